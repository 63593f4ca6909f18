#include "common/mcp/sse.h"

#include <assert.h>

#include "common/mcp/scan.h"
#include "common/text.h"

#define MAX_TYPE  64            /* bytes kept of an event's type */
#define MAX_RETRY 10            /* digits */
#define MAX_PATH  2048          /* bytes of an endpoint */
#define KEEP_ROOM (64U * 1024U) /* an idle stream holds no more than this of its last event */

void sse_reader_deinit(struct sse_reader *s)
{
        buf_deinit(&s->data);
        buf_deinit(&s->type);
        buf_deinit(&s->id);
        buf_deinit(&s->next_id);
        buf_deinit(&s->next_retry);
}

/* An id counts once its event is whole: what was cut off must be sent again. */
static void take_id(struct sse_reader *s)
{
        if (!s->next_id.data)
                return;
        s->id.len = 0;
        buf_add(&s->id, s->next_id.data, s->next_id.len);
}

static void end_id(struct sse_reader *s)
{
        /* Too long, or with a NUL: as if it had not been there. */
        if (s->next_id.len > SSE_MAX_ID || (s->next_id.len > 0 && memchr(s->next_id.data, '\0', s->next_id.len)))
                buf_deinit(&s->next_id);
        else if (!s->next_id.data)
                buf_add(&s->next_id, "", 0); /* an empty one: there is none from here on */
}

static void end_retry(struct sse_reader *s)
{
        if (s->next_retry.len > 0 && s->next_retry.len <= MAX_RETRY && str_in_charset(s->next_retry.data, "0123456789"))
                s->retry_ms = strtoull(s->next_retry.data, NULL, 10);
        s->next_retry.len = 0;
}

static int dispatch(struct sse_reader *s, sse_event_fn event, void *user, struct err **err)
{
        int r = 0;

        take_id(s);
        if (s->data.len > 0) {
                const char *type = s->type.len > 0 && s->type.data[0] ? s->type.data : "message";
                /* The last LF is a separator that separates nothing. */
                s->data.data[s->data.len - 1] = '\0';
                r = event(type, s->data.data, s->data.len - 1, user, err);
        }
        if (s->data.cap > KEEP_ROOM)
                buf_deinit(&s->data);
        s->data.len = s->type.len = 0;
        return r;
}

/* The field's name is complete. */
static enum sse_field field_of(struct sse_reader *s)
{
        const char *name = s->name;
        size_t n = s->name_n;

        if (!s->started && n >= 3 && memcmp(name, "\xef\xbb\xbf", 3) == 0)
                name += 3, n -= 3;
        s->started = true;
        if (n == 4 && memcmp(name, "data", 4) == 0)
                return SSE_DATA;
        if (n == 5 && memcmp(name, "event", 5) == 0)
                return SSE_TYPE;
        if (n == 2 && memcmp(name, "id", 2) == 0)
                return SSE_ID;
        if (n == 5 && memcmp(name, "retry", 5) == 0)
                return SSE_RETRY;
        return n == 0 ? SSE_EMPTY : SSE_OTHER;
}

static int add_value(struct sse_reader *s, const char *value, size_t n, struct err **err)
{
        if (s->field == SSE_DATA) {
                if (n >= s->max || s->data.len >= s->max - n)
                        return err_set(err, ERR_LIMIT, "an event of more than %zu bytes in an event stream", s->max);
                buf_add(&s->data, value, n);
        } else if (s->field == SSE_TYPE && s->type.len < MAX_TYPE) {
                buf_add(&s->type, value, MIN(n, MAX_TYPE - s->type.len));
        } else if (s->field == SSE_ID && s->next_id.len <= SSE_MAX_ID) {
                buf_add(&s->next_id, value, MIN(n, SSE_MAX_ID + 1 - s->next_id.len));
        } else if (s->field == SSE_RETRY && s->next_retry.len <= MAX_RETRY) {
                buf_add(&s->next_retry, value, MIN(n, MAX_RETRY + 1 - s->next_retry.len));
        }
        return 0;
}

/* Bytes of one line, not necessarily all of it. */
static int take_part(struct sse_reader *s, const char *p, size_t n, struct err **err)
{
        if (s->field == SSE_NAME) {
                const char *colon = memchr(p, ':', n);
                size_t name = colon ? (size_t)(colon - p) : n, room = sizeof(s->name) - s->name_n;

                /* A longer name than there is room for is none that matters, cut or not. */
                memcpy(s->name + s->name_n, p, MIN(name, room));
                s->name_n += (unsigned)MIN(name, room);
                if (!colon)
                        return 0;
                s->field = field_of(s);
                s->colon = s->before_value = true;
                if (s->field == SSE_TYPE)
                        s->type.len = 0;
                if (s->field == SSE_ID)
                        s->next_id.len = 0;
                p += name + 1, n -= name + 1;
        }
        if (n == 0)
                return 0;
        if (s->before_value && *p == ' ')
                p++, n--;
        s->before_value = false;
        return add_value(s, p, n, err);
}

static int end_line(struct sse_reader *s, sse_event_fn event, void *user, struct err **err)
{
        enum sse_field field = s->field == SSE_NAME ? field_of(s) : s->field;
        bool blank = field == SSE_EMPTY && !s->colon;

        if (field == SSE_TYPE && !s->colon)
                s->type.len = 0;
        if (field == SSE_ID && !s->colon)
                s->next_id.len = 0;
        if (field == SSE_ID)
                end_id(s);
        if (field == SSE_RETRY)
                end_retry(s);
        s->field = SSE_NAME;
        s->name_n = 0;
        s->colon = s->before_value = false;
        if (field == SSE_DATA) {
                if (s->data.len >= s->max)
                        return err_set(err, ERR_LIMIT, "an event of more than %zu bytes in an event stream", s->max);
                buf_addc(&s->data, '\n');
        }
        return blank ? dispatch(s, event, user, err) : 0;
}

int sse_reader_feed(struct sse_reader *s, const char *bytes, size_t n, sse_event_fn event, void *user, struct err **err)
{
        const char *p = bytes, *end = bytes + n;

        while (p < end) {
                const char *stop;

                if (s->after_cr && *p == '\n') {
                        s->after_cr = false;
                        p++;
                        continue;
                }
                s->after_cr = false;
                stop = string_find_either(p, end, '\r', '\n');
                if (stop > p && take_part(s, p, (size_t)(stop - p), err) < 0)
                        return -1;
                if (stop == end)
                        break;
                s->after_cr = *stop == '\r';
                p = stop + 1;
                if (end_line(s, event, user, err) < 0)
                        return -1;
        }
        return 0;
}

static void add_field(struct buf *b, const char *name, const char *value)
{
        /* Ours, not from outside. */
        assert(!strpbrk(value, "\r\n"));
        buf_adds(b, name);
        buf_adds(b, value);
        buf_addc(b, '\n');
}

void sse_add_event(struct buf *b, const char *type, const char *id, const char *text, size_t n)
{
        const char *p = text, *end = text + n, *stop;

        buf_reserve(b, n + 64);
        if (type)
                add_field(b, "event: ", type);
        if (id)
                add_field(b, "id: ", id);
        do {
                stop = string_find_either(p, end, '\r', '\n');
                buf_adds(b, "data: ");
                buf_add(b, p, (size_t)(stop - p));
                buf_addc(b, '\n');
                p = end - stop > 1 && stop[0] == '\r' && stop[1] == '\n' ? stop + 2 : stop + 1;
        } while (stop < end);
        buf_addc(b, '\n');
}

char *sse_endpoint(const char *data, const char *origin, struct err **err)
{
        const char *path = str_has_prefix(data, origin) ? data + strlen(origin) : data;
        _cleanup_free_ char *safe = text_escape(data);

        if (path[0] != '/' || path[1] == '/' || strlen(path) > MAX_PATH) {
                err_set(err, ERR_DENIED, "the server named an endpoint that is not on its own address: %.200s", safe);
                return NULL;
        }
        for (const char *p = path; *p; p++)
                if (*p <= ' ' || *p >= 0x7f || *p == '#' || *p == '\\') {
                        err_set(err, ERR_INVALID, "the server named an unusable endpoint: %.200s", safe);
                        return NULL;
                }
        return mem_strdup(path);
}
