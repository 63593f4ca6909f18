#include "common/mcp/value.h"

#include <math.h>

#include "common/mcp/scan.h"

struct parse {
        struct value_tree *t;
        const char *p, *end;
        unsigned depth;
        const char *why;
};

static void skip_space(struct parse *s)
{
        while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
                s->p++;
}

static bool take(struct parse *s, char c)
{
        skip_space(s);
        if (s->p == s->end || *s->p != c)
                return false;
        s->p++;
        return true;
}

static uint32_t new_node(struct parse *s)
{
        struct value_tree *t = s->t;

        if (t->n == VALUE_MAX_NODES) {
                s->why = "has too many values";
                return UINT32_MAX;
        }
        if (t->n == t->cap) {
                t->cap = t->cap ? 2 * t->cap : 64;
                t->nodes = mem_realloc(t->nodes, t->cap, sizeof(*t->nodes));
        }
        t->nodes[t->n] = (struct value){0};
        return t->n++;
}

/* p stands on the opening quote. Without escapes the slice stays in the text. */
static bool read_string_slice(struct parse *s, struct mcp_slice *ret)
{
        const char *start = ++s->p, *stop = string_end(start, s->end);
        struct buf *strings = &s->t->strings;

        if (stop == s->end)
                return false;
        s->p = stop + 1;
        *ret = (struct mcp_slice){start, (size_t)(stop - start)};
        if (!memchr(start, '\\', ret->n))
                return true;
        size_t before = strings->len;
        string_decode(strings, start, stop); /* room for all of them was made at the start: nothing moves */
        *ret = (struct mcp_slice){strings->data + before, strings->len - before};
        return true;
}

static uint32_t count_characters(struct mcp_slice s)
{
        uint32_t n = 0;

        for (size_t i = 0; i < s.n; i++)
                n += ((unsigned char)s.at[i] & 0xc0) != 0x80;
        return n;
}

static bool read_literal(struct parse *s, struct value *v)
{
        static const struct {
                const char *text;
                enum value_type type;
        } literals[] = {{"true", VALUE_BOOLEAN}, {"false", VALUE_BOOLEAN}, {"null", VALUE_NULL}};

        for (size_t i = 0; i < ELEMENTSOF(literals); i++) {
                size_t n = strlen(literals[i].text);

                if ((size_t)(s->end - s->p) < n || memcmp(s->p, literals[i].text, n) != 0)
                        continue;
                v->type = literals[i].type;
                v->truth = i == 0;
                s->p += n;
                return true;
        }
        return false;
}

/* Whole numbers of few digits, which most are, without strtod(). */
static double to_double(struct mcp_slice s)
{
        _cleanup_free_ char *copy = NULL;
        double value = 0;
        size_t i = s.at[0] == '-';

        if (s.n <= 15)
                while (i < s.n && s.at[i] >= '0' && s.at[i] <= '9')
                        value = 10 * value + (s.at[i++] - '0');
        if (i == s.n)
                return s.at[0] == '-' ? -value : value;
        copy = mem_strndup(s.at, s.n);
        return strtod(copy, NULL);
}

static bool read_number(struct parse *s, struct value *v)
{
        const char *start = s->p;

        while (s->p < s->end && *s->p && strchr("+-.0123456789eE", *s->p))
                s->p++;
        v->text = (struct mcp_slice){start, (size_t)(s->p - start)};
        if (v->text.n == 0)
                return false;
        v->number = to_double(v->text);
        v->type = isfinite(v->number) && v->number == trunc(v->number) ? VALUE_INTEGER : VALUE_NUMBER;
        return true;
}

static bool read_value(struct parse *s, uint32_t at);

/* The place of the node is kept, not its address: the array moves as it grows. */
static bool read_children(struct parse *s, uint32_t at, char close, bool members)
{
        uint32_t last = 0;

        if (take(s, close))
                return true;
        do {
                uint32_t child = new_node(s);

                if (child == UINT32_MAX)
                        return false;
                if (last)
                        s->t->nodes[last].next = child;
                else
                        s->t->nodes[at].first = child;
                s->t->nodes[at].count++;
                last = child;
                skip_space(s);
                if (members && (s->p == s->end || *s->p != '"' || !read_string_slice(s, &s->t->nodes[child].key) || !take(s, ':')))
                        return false;
                if (!read_value(s, child))
                        return false;
        } while (take(s, ','));
        return take(s, close);
}

static bool read_value(struct parse *s, uint32_t at)
{
        struct value *v = &s->t->nodes[at];
        bool read;

        skip_space(s);
        if (s->p == s->end)
                return false;
        if (*s->p == '"') {
                v->type = VALUE_STRING;
                read = read_string_slice(s, &v->text);
                v->count = count_characters(v->text);
                return read;
        }
        if (*s->p != '{' && *s->p != '[')
                return *s->p == '-' || (*s->p >= '0' && *s->p <= '9') ? read_number(s, v) : read_literal(s, v);
        if (s->depth == MCP_MAX_DEPTH) {
                s->why = "is nested too deeply";
                return false;
        }
        bool members = *s->p++ == '{';
        v->type = members ? VALUE_OBJECT : VALUE_ARRAY;
        s->depth++;
        read = read_children(s, at, members ? '}' : ']', members);
        s->depth--;
        return read;
}

int value_parse(struct value_tree *t, struct mcp_slice text, struct err **err)
{
        struct parse s = {t, text.at, text.at + text.n, 0, "is not JSON"};

        t->n = 0;
        t->strings.len = 0;
        if (memchr(text.at, '\\', text.n))
                buf_reserve(&t->strings, text.n + 1);
        if (!read_value(&s, new_node(&s)))
                return err_set(err, ERR_INVALID, "the value %s", s.why);
        skip_space(&s);
        return s.p == s.end ? 0 : err_set(err, ERR_INVALID, "the value is not JSON");
}

void value_tree_deinit(struct value_tree *t)
{
        free(t->nodes);
        buf_deinit(&t->strings);
        *t = (struct value_tree){0};
}

static const struct value *get(const struct value_tree *t, const struct value *object, struct mcp_slice name, uint32_t *work)
{
        for (const struct value *v = value_child(t, object); v && *work > 0; v = value_next(t, v), --*work)
                if (mcp_same(v->key, name))
                        return v;
        return NULL;
}

const struct value *value_get(const struct value_tree *t, const struct value *object, const char *name)
{
        uint32_t work = UINT32_MAX;

        return object->type == VALUE_OBJECT ? get(t, object, mcp_slice_of(name), &work) : NULL;
}

bool value_equal(const struct value_tree *ta, const struct value *a, const struct value_tree *tb, const struct value *b, uint32_t *work)
{
        if (*work == 0)
                return false;
        --*work;
        if (a->type != b->type || a->count != b->count)
                return false;
        switch (a->type) {
        case VALUE_NULL:
                return true;
        case VALUE_BOOLEAN:
                return a->truth == b->truth;
        case VALUE_INTEGER:
        case VALUE_NUMBER:
                return a->number == b->number;
        case VALUE_STRING:
                return mcp_same(a->text, b->text);
        case VALUE_ARRAY:
        case VALUE_OBJECT:
                break;
        }
        const struct value *other = value_child(tb, b);
        for (const struct value *v = value_child(ta, a); v; v = value_next(ta, v)) {
                const struct value *same = a->type == VALUE_OBJECT ? get(tb, b, v->key, work) : other;

                if (!same || !value_equal(ta, v, tb, same, work))
                        return false;
                other = a->type == VALUE_ARRAY ? value_next(tb, other) : NULL;
        }
        return true;
}
