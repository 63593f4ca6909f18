/*
 * Block-style YAML. Not libyaml's emitter: records are signed, so their text must depend on nothing but their value.
 */
#include <ctype.h>

#include "common/text.h"
#include "common/yaml.h"

/* May s stand without quotes? Only words that no YAML reader takes for anything but a string. */
static bool is_plain(const char *s)
{
        static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"};

        if (!isalpha((unsigned char)*s) || strlen(s) > 200)
                return false;
        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                if (strcasecmp(s, words[i]) == 0)
                        return false;
        for (const char *p = s; *p; p++) {
                bool inner = p[1] && (*p == ' ' || *p == ':') && p[1] != ' ' && p[1] != '#' && p > s;
                if (!isalnum((unsigned char)*p) && !strchr("-_./@+", *p) && !inner)
                        return false;
        }
        return true;
}

static void write_quoted(struct buf *out, const char *s)
{
        buf_addc(out, '"');
        for (const char *p = s; *p; p++) {
                unsigned char c = (unsigned char)*p;
                if (c == '"' || c == '\\')
                        buf_addf(out, "\\%c", c);
                else if (c == '\n')
                        buf_adds(out, "\\n");
                else if (c == '\t')
                        buf_adds(out, "\\t");
                else if (c < 0x20 || c == 0x7f)
                        buf_addf(out, "\\x%02x", c);
                else if (c == 0xc2 && ((unsigned char)p[1] < 0xa0)) /* C1 controls, NEL among them */
                        buf_addf(out, "\\x%02x", (unsigned char)*++p);
                else if (c == 0xe2 && (unsigned char)p[1] == 0x80 && ((unsigned char)p[2] == 0xa8 || (unsigned char)p[2] == 0xa9)) {
                        buf_addf(out, "\\u%04x", (unsigned char)p[2] == 0xa8 ? 0x2028U : 0x2029U);
                        p += 2;
                } else if (c == 0xef && (unsigned char)p[1] == 0xbb &&
                           (unsigned char)p[2] == 0xbf) { /* a byte order mark ends libyaml's patience */
                        buf_adds(out, "\\uFEFF");
                        p += 2;
                } else if (c == 0xef && (unsigned char)p[1] == 0xbf && (unsigned char)p[2] >= 0xbe) {
                        buf_addf(out, "\\u%04x", 0xff00U + (unsigned char)p[2] + 0x40U);
                        p += 2;
                } else
                        buf_addc(out, (char)c);
        }
        buf_addc(out, '"');
}

static void write_scalar(struct buf *out, json_object *o)
{
        if (json_object_is_type(o, json_type_string)) {
                const char *s = json_object_get_string(o);
                if (is_plain(s))
                        buf_adds(out, s);
                else
                        write_quoted(out, s);
        } else {
                _cleanup_free_ char *text = json_canonical(o);
                buf_adds(out, text);
        }
}

static bool is_block(json_object *o)
{
        return (json_object_is_type(o, json_type_object) && json_object_object_length(o) > 0) ||
               (json_object_is_type(o, json_type_array) && json_object_array_length(o) > 0);
}

static void indent(struct buf *out, unsigned depth)
{
        for (unsigned i = 0; i < depth; i++)
                buf_adds(out, "  ");
}

static void write_block(struct buf *out, json_object *o, unsigned depth);

/* What follows "key:" or "-". */
static void write_value(struct buf *out, json_object *o, unsigned depth)
{
        if (is_block(o)) {
                buf_addc(out, '\n');
                write_block(out, o, depth + 1);
                return;
        }
        buf_addc(out, ' ');
        write_scalar(out, o); /* empty collections are "{}" and "[]", as in JSON */
        buf_addc(out, '\n');
}

static void write_block(struct buf *out, json_object *o, unsigned depth)
{
        if (json_object_is_type(o, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(o); i++) {
                        indent(out, depth);
                        buf_addc(out, '-');
                        write_value(out, json_object_array_get_idx(o, i), depth);
                }
                return;
        }
        json_object_object_foreach (o, key, value) {
                indent(out, depth);
                if (is_plain(key))
                        buf_adds(out, key);
                else
                        write_quoted(out, key);
                buf_addc(out, ':');
                write_value(out, value, depth);
        }
}

char *yaml_write(json_object *o)
{
        struct buf out = {0};

        if (is_block(o)) {
                write_block(&out, o, 0);
        } else {
                write_scalar(&out, o);
                buf_addc(&out, '\n');
        }
        return buf_take(&out);
}
