#include "common/yaml.h"

#include <ctype.h>
#include <stdio.h>
#include <yaml.h>

#include "common/json_scan.h"
#include "common/text.h"

#define MAX_KEY 512 /* bytes; nothing we read has longer ones */

struct reader {
        yaml_parser_t parser;
        const char *name;
        unsigned depth, max_depth;
        struct json_locations *loc;
        struct err **err;
};

static void event_deinit(yaml_event_t *e)
{
        yaml_event_delete(e);
}

static int fail_at(struct reader *r, yaml_mark_t at, const char *reason)
{
        return err_set(r->err, ERR_INVALID, "%s:%zu:%zu: %s", r->name, at.line + 1, at.column + 1, reason);
}

static int next_event(struct reader *r, yaml_event_t *event)
{
        if (yaml_parser_parse(&r->parser, event))
                return 0;
        return fail_at(r, r->parser.problem_mark, r->parser.problem ? r->parser.problem : "not YAML");
}

static void remember(struct reader *r, const char *pointer, yaml_mark_t at)
{
        struct json_locations *loc = r->loc;

        if (strlen(pointer) > JSON_POINTER_KEPT)
                return;
        if (loc->n == loc->cap) {
                loc->cap = loc->cap ? 2 * loc->cap : 32;
                loc->items = mem_realloc(loc->items, loc->cap, sizeof(*loc->items));
        }
        loc->items[loc->n++] =
                (struct json_location){.pointer = mem_strdup(pointer), .line = (unsigned)at.line + 1, .column = (unsigned)at.column + 1};
}

/* -?(0|[1-9][0-9]*) */
static bool is_integer(const char *s)
{
        if (*s == '-')
                s++;
        return isdigit((unsigned char)*s) && (s[0] != '0' || s[1] == '\0') && str_in_charset(s, "0123456789");
}

/* -?digits.digits */
static bool is_decimal(const char *s)
{
        const char *point = strchr(s, '.');

        if (*s == '-')
                s++;
        return point && point > s && point[1] && strspn(s, "0123456789") == (size_t)(point - s) && str_in_charset(point + 1, "0123456789");
}

static int read_plain(struct reader *r, json_object **ret, const char *s, yaml_mark_t at)
{
        if (str_eq(s, "true") || str_eq(s, "false")) {
                *ret = json_object_new_boolean(*s == 't');
        } else if (str_eq(s, "null") || str_eq(s, "~") || *s == '\0') {
                *ret = NULL;
        } else if (is_integer(s)) {
                long long v = strlen(s) <= 17 ? strtoll(s, NULL, 10) : INT64_MAX;
                if (v > (INT64_C(1) << 53) || v < -(INT64_C(1) << 53))
                        return fail_at(r, at, "an integer is beyond 2^53 and cannot be represented: quote it or make it smaller");
                *ret = json_object_new_int64(v);
        } else if (is_decimal(s) && strlen(s) <= 32) {
                *ret = json_object_new_double(strtod(s, NULL));
        } else {
                *ret = json_object_new_string(s);
        }
        return 0;
}

static int check_scalar(struct reader *r, const yaml_event_t *event)
{
        const char *s = (const char *)event->data.scalar.value;

        if (event->data.scalar.anchor || event->data.scalar.tag)
                return fail_at(r, event->start_mark, "anchors and tags are not allowed here: write the value itself");
        if (!text_is_utf8(s, event->data.scalar.length))
                return fail_at(r, event->start_mark, "a value contains NUL or is not valid UTF-8");
        return 0;
}

static int read_node(struct reader *r, yaml_event_t *event, const char *pointer, json_object **ret);

static int read_sequence(struct reader *r, const char *pointer, json_object **ret)
{
        _cleanup_json_ json_object *array = json_object_new_array();

        for (;;) {
                _cleanup_(event_deinit) yaml_event_t event = {0};
                json_object *value = NULL;
                _cleanup_free_ char *inner = mem_printf("%s/%zu", pointer, json_object_array_length(array));

                if (next_event(r, &event) < 0)
                        return -1;
                if (event.type == YAML_SEQUENCE_END_EVENT)
                        break;
                remember(r, inner, event.start_mark);
                if (read_node(r, &event, inner, &value) < 0)
                        return -1;
                json_object_array_add(array, value);
        }
        *ret = TAKE_PTR(array);
        return 0;
}

static int read_key(struct reader *r, const yaml_event_t *event, json_object *object)
{
        const char *key = (const char *)event->data.scalar.value;

        if (event->type != YAML_SCALAR_EVENT)
                return fail_at(r, event->start_mark, "a key must be a plain word");
        if (check_scalar(r, event) < 0)
                return -1;
        if (event->data.scalar.length > MAX_KEY)
                return fail_at(r, event->start_mark, "a key is longer than 512 bytes");
        if (str_eq(key, "<<"))
                return fail_at(r, event->start_mark, "merge keys are not allowed here: write the values out");
        if (json_object_object_get_ex(object, key, NULL))
                return fail_at(r, event->start_mark, "this key stands twice in the same mapping: remove one");
        return 0;
}

static int read_mapping(struct reader *r, const char *pointer, json_object **ret)
{
        _cleanup_json_ json_object *object = json_object_new_object();

        for (;;) {
                _cleanup_(event_deinit) yaml_event_t key = {0}, event = {0};
                json_object *value = NULL;

                if (next_event(r, &key) < 0)
                        return -1;
                if (key.type == YAML_MAPPING_END_EVENT)
                        break;
                if (read_key(r, &key, object) < 0)
                        return -1;
                _cleanup_free_ char *inner = mem_printf("%s/%s", pointer, (const char *)key.data.scalar.value);
                remember(r, inner, key.start_mark);
                if (next_event(r, &event) < 0 || read_node(r, &event, inner, &value) < 0)
                        return -1;
                json_add(object, (const char *)key.data.scalar.value, value);
        }
        *ret = TAKE_PTR(object);
        return 0;
}

static int read_collection(struct reader *r, const yaml_event_t *event, const char *pointer, json_object **ret)
{
        bool mapping = event->type == YAML_MAPPING_START_EVENT;
        const yaml_char_t *anchor = mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
        const yaml_char_t *tag = mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag;
        int result;

        if (anchor || tag)
                return fail_at(r, event->start_mark, "anchors and tags are not allowed here: write the value itself");
        if (++r->depth > r->max_depth)
                return fail_at(r, event->start_mark, "values are nested too deeply");
        result = mapping ? read_mapping(r, pointer, ret) : read_sequence(r, pointer, ret);
        r->depth--;
        return result;
}

static int read_node(struct reader *r, yaml_event_t *event, const char *pointer, json_object **ret)
{
        switch (event->type) {
        case YAML_SCALAR_EVENT:
                if (check_scalar(r, event) < 0)
                        return -1;
                if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
                        return read_plain(r, ret, (const char *)event->data.scalar.value, event->start_mark);
                *ret = json_object_new_string_len((const char *)event->data.scalar.value, (int)event->data.scalar.length);
                return 0;
        case YAML_MAPPING_START_EVENT:
        case YAML_SEQUENCE_START_EVENT:
                return read_collection(r, event, pointer, ret);
        case YAML_ALIAS_EVENT:
                return fail_at(r, event->start_mark, "aliases are not allowed here: write the value itself");
        default:
                return fail_at(r, event->start_mark, "a value is missing here");
        }
}

/* Skips stream and document starts; anything else than `want` is an error. */
static int expect(struct reader *r, yaml_event_type_t want, const char *otherwise)
{
        _cleanup_(event_deinit) yaml_event_t event = {0};

        if (next_event(r, &event) < 0)
                return -1;
        if (event.type == YAML_DOCUMENT_START_EVENT &&
            (event.data.document_start.version_directive ||
             event.data.document_start.tag_directives.start != event.data.document_start.tag_directives.end))
                return fail_at(r, event.start_mark, "directives are not allowed here");
        return event.type == want ? 0 : fail_at(r, event.start_mark, otherwise);
}

static int read_document(struct reader *r, json_object **ret)
{
        _cleanup_(event_deinit) yaml_event_t event = {0};
        _cleanup_json_ json_object *value = NULL;

        if (expect(r, YAML_STREAM_START_EVENT, "not YAML") < 0 || expect(r, YAML_DOCUMENT_START_EVENT, "the file is empty") < 0)
                return -1;
        if (next_event(r, &event) < 0 || read_node(r, &event, "", &value) < 0)
                return -1;
        if (expect(r, YAML_DOCUMENT_END_EVENT, "there is more text behind the value") < 0 ||
            expect(r, YAML_STREAM_END_EVENT, "only one document is allowed: remove what follows \"---\"") < 0)
                return -1;
        *ret = TAKE_PTR(value);
        return 0;
}

int yaml_parse(json_object **ret, struct json_locations **loc, const char *text, size_t n, const char *name,
               const struct json_limits *limits, struct err **err)
{
        size_t max_bytes = limits && limits->max_bytes ? limits->max_bytes : 1U << 20;
        _cleanup_(json_locations_freep) struct json_locations *places = NEW(struct json_locations);
        struct reader r = {.name = name, .max_depth = limits && limits->max_depth ? limits->max_depth : 32, .loc = places, .err = err};

        if (n > max_bytes)
                return err_set(err, ERR_LIMIT, "%s: %zu bytes are more than the %zu allowed", name, n, max_bytes);
        if (!text_is_utf8(text, n))
                return err_set(err, ERR_INVALID, "%s: contains NUL or is not valid UTF-8", name);
        if (!yaml_parser_initialize(&r.parser))
                abort();
        yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
        int result = read_document(&r, ret);
        yaml_parser_delete(&r.parser);
        if (result == 0 && loc)
                *loc = TAKE_PTR(places);
        return result;
}
