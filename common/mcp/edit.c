#include <assert.h>

#include "common/mcp/scan.h"

static void add_escape(struct buf *b, unsigned char c)
{
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
        const char *known = c ? strchr(from, c) : NULL;
        char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

        if (known) {
                text[1] = to[known - from];
                buf_add(b, text, 2);
        } else {
                buf_add(b, text, sizeof(text));
        }
}

void mcp_add_string(struct buf *b, const char *s, size_t n)
{
        const char *p = s, *end = s + n;

        buf_addc(b, '"');
        while (p < end) {
                const char *stop = string_plain_end(p, end);

                /* Characters of several bytes go as they are. */
                while (stop < end && (unsigned char)*stop >= 0x80)
                        stop++;
                buf_add(b, p, (size_t)(stop - p));
                p = stop;
                if (p < end && ((unsigned char)*p < 0x20 || *p == '"' || *p == '\\'))
                        add_escape(b, (unsigned char)*p++);
        }
        buf_addc(b, '"');
}

void mcp_edit_add(struct buf *out, struct mcp_slice text, const struct mcp_edit *edits, size_t n_edits)
{
        const char *p = text.at, *end = text.at + text.n;
        size_t n = text.n;

        /* One allocation of about the right size. */
        for (size_t i = 0; i < n_edits; i++)
                n += edits[i].by.n;
        buf_reserve(out, n);
        for (size_t i = 0; i < n_edits; i++) {
                assert(edits[i].old.at >= p && edits[i].old.at + edits[i].old.n <= end);
                buf_add(out, p, (size_t)(edits[i].old.at - p));
                buf_add(out, edits[i].by.at, edits[i].by.n);
                p = edits[i].old.at + edits[i].old.n;
        }
        buf_add(out, p, (size_t)(end - p));
}

/* What of the object makes room for nothing: the member, and one of the commas beside it. */
static struct mcp_slice member_with_comma(struct mcp_slice object, const char *before, const char *start, struct mcp_slice value)
{
        size_t pos = (size_t)(value.at + value.n - object.at);
        struct mcp_slice key, next;
        const char *stop = value.at + value.n;

        if (before)
                start = before;
        else if (mcp_object_next(object, &pos, &key, &next))
                stop = key.at - 1;
        return (struct mcp_slice){start, (size_t)(stop - start)};
}

void mcp_object_set(struct buf *out, struct mcp_slice object, const char *name, struct mcp_slice value)
{
        struct mcp_slice key, old;
        const char *before = NULL; /* the end of the member before */
        struct mcp_edit edit = {.by = value};

        if (!mcp_is_object(object))
                object = mcp_slice_of("{}");
        for (size_t pos = 0; mcp_object_next(object, &pos, &key, &old); before = old.at + old.n) {
                if (!mcp_key_is(key, name))
                        continue;
                edit.old = value.at ? old : member_with_comma(object, before, key.at - 1, old);
                mcp_edit_add(out, object, &edit, 1);
                return;
        }
        if (!value.at) {
                mcp_add_slice(out, object);
                return;
        }
        const char *at = before ? before : object.at + 1;

        /* One allocation, with room for the quotes, the colon and the comma. */
        buf_reserve(out, object.n + strlen(name) + value.n + 4);
        buf_add(out, object.at, (size_t)(at - object.at));
        if (before)
                buf_addc(out, ',');
        mcp_add_string(out, name, strlen(name));
        buf_addc(out, ':');
        mcp_add_slice(out, value);
        buf_add(out, at, (size_t)(object.at + object.n - at));
}
