#include "common/forge/record.h"

#include <stdio.h>

#include "common/forge/record_fields.h"
#include "common/text.h"
#include "common/yaml.h"

#define MAX_INTEGER (INT64_C(1) << 53)

static const char *const kind_names[] = {
        [RECORD_PROPOSAL] = "Proposal",
        [RECORD_APPROVAL] = "Approval",
        [RECORD_REJECTION] = "Rejection",
        [RECORD_REVOCATION] = "Revocation",
};

/* What every check needs to say where the fault is. */
struct place {
        const char *name;
        const struct json_locations *loc; /* may be NULL */
        const char *parent;               /* "" or "/source" */
        enum record_kind kind;
};

const char *record_kind_name(enum record_kind kind)
{
        return kind_names[kind];
}

bool record_id_valid(const char *id)
{
        return id && str_has_prefix(id, "f-") && str_is_hex(id + 2, 16);
}

static int fault(const struct place *p, const char *key, struct err **err, const char *fmt, ...) _printf_(4, 5);
static int fault(const struct place *p, const char *key, struct err **err, const char *fmt, ...)
{
        _cleanup_free_ char *pointer = mem_printf("%s%s%s", p->parent, key ? "/" : "", key ? key : "");
        _cleanup_free_ char *safe_name = text_escape(p->name);
        _cleanup_free_ char *safe_key = text_escape(*pointer ? pointer + 1 : "record");
        unsigned line, column;
        char *reason = NULL;
        va_list ap;

        va_start(ap, fmt);
        int n = vasprintf(&reason, fmt, ap);
        va_end(ap);
        if (n < 0)
                abort();
        _cleanup_free_ char *owned = reason;
        if (p->loc && json_locate(p->loc, pointer, &line, &column))
                return err_set(err, ERR_INVALID, "%s:%u:%u: %s: %s", safe_name, line, column, safe_key, owned);
        return err_set(err, ERR_INVALID, "%s: %s: %s", safe_name, safe_key, owned);
}

/* Records are read by people: nothing in them may move a cursor. U+0080..U+009F are the C1 controls, in UTF-8 C2 80..C2 9F. */
static bool has_control(const char *s)
{
        for (const unsigned char *c = (const unsigned char *)s; *c; c++)
                if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f))
                        return true;
        return false;
}

static int read_string(char **ret, const struct place *p, const char *key, json_object *v, size_t max, struct err **err)
{
        if (!json_object_is_type(v, json_type_string))
                return fault(p, key, err, "must be a string");
        const char *s = json_object_get_string(v);
        size_t n = (size_t)json_object_get_string_len(v);
        if (n == 0 || n > max)
                return fault(p, key, err, "must be 1 to %zu bytes long, is %zu", max, n);
        if (strlen(s) != n || has_control(s))
                return fault(p, key, err, "holds a control character; remove it");
        mem_replace(ret, mem_strdup(s));
        return 0;
}

static int read_list(char ***ret, const struct place *p, const char *key, json_object *v, size_t max, struct err **err)
{
        _cleanup_strv_ char **list = NULL;

        if (!json_object_is_type(v, json_type_array))
                return fault(p, key, err, "must be a list of strings");
        size_t n = json_object_array_length(v);
        if (n > RECORD_MAX_LIST)
                return fault(p, key, err, "has %zu items, at most %d are read", n, RECORD_MAX_LIST);
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *item = NULL;
                if (read_string(&item, p, key, json_object_array_get_idx(v, i), max, err) < 0)
                        return -1;
                if (strv_contains(list, item))
                        return fault(p, key, err, "names one item twice");
                list = strv_append(list, item);
        }
        strv_free(*ret);
        *ret = TAKE_PTR(list);
        return 0;
}

static int read_time(time_t *ret, const struct place *p, const char *key, json_object *v, struct err **err)
{
        _cleanup_err_ struct err *why = NULL;

        if (!json_object_is_type(v, json_type_string) || text_parse_time(ret, json_object_get_string(v), &why) < 0 || *ret <= 0)
                return fault(p, key, err, "must be a time in UTC such as 2026-11-20T10:00:00Z");
        return 0;
}

static int read_smoke_test(json_object **ret, const struct place *p, json_object *v, struct err **err)
{
        static const char *const keys[] = {"result", "at", "protocol", "duration_ms"};
        struct place inner = *p;
        _cleanup_free_ char *protocol = NULL;
        time_t at;

        if (!json_object_is_type(v, json_type_object))
                return fault(p, "smoke_test", err, "must be a mapping with result, at, protocol and duration_ms");
        inner.parent = "/smoke_test";
        json_object_object_foreach (v, key, value) {
                bool known = false;
                (void)value;
                for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                        known |= str_eq(key, keys[i]);
                if (!known)
                        return fault(&inner, key, err, "unknown key");
        }
        const char *result = json_str(v, "result");
        if (!str_eq(result, "pass") && !str_eq(result, "fail"))
                return fault(&inner, "result", err, "must be pass or fail");
        if (p->kind == RECORD_APPROVAL && !str_eq(result, "pass"))
                return fault(&inner, "result", err, "an approval needs a smoke test that passed");
        if (read_time(&at, &inner, "at", json_get(v, "at"), err) < 0)
                return -1;
        json_object *o = json_get(v, "protocol");
        if (o && read_string(&protocol, &inner, "protocol", o, 64, err) < 0)
                return -1;
        o = json_get(v, "duration_ms");
        if (o && (!json_object_is_type(o, json_type_int) || json_object_get_int64(o) < 0))
                return fault(&inner, "duration_ms", err, "must be a number of milliseconds");
        *ret = json_object_get(v);
        return 0;
}

static int read_plain(void *member, const struct place *p, const struct record_field *f, json_object *v, struct err **err)
{
        const char *s = json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;

        switch (f->type) {
        case FIELD_ID:
                if (!record_id_valid(s))
                        return fault(p, f->key, err, "must be f- and 16 lower-case hex digits");
                break;
        case FIELD_HEX:
                if (!s || !str_is_hex(s, 64))
                        return fault(p, f->key, err, "must be 64 lower-case hex digits, in quotes");
                break;
        case FIELD_DIGEST:
                if (!s || !str_is_digest(s))
                        return fault(p, f->key, err, "must be sha256: and 64 lower-case hex digits");
                break;
        case FIELD_SERVER:
                if (!s || !registry_name_valid(s))
                        return fault(p, f->key, err, "must be a server name, [a-z0-9-]{1,40}");
                break;
        case FIELD_AUDIENCE:
                if (!s || !*s || strlen(s) > f->max ||
                    !str_in_charset(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"))
                        return fault(p, f->key, err, "must match [A-Za-z0-9.-]{1,%zu}", f->max);
                break;
        default:
                return read_string(member, p, f->key, v, f->max, err);
        }
        mem_replace(member, mem_strdup(s));
        return 0;
}

/* Unknown keys, keys of another kind and missing keys. */
static int check_keys(const struct place *p, json_object *o, const struct record_field *fields, size_t n, unsigned waived, struct err **err)
{
        unsigned kind = 1U << p->kind;

        json_object_object_foreach (o, key, value) {
                const struct record_field *f = NULL;
                (void)value;
                for (size_t i = 0; i < n && !f; i++)
                        if (str_eq(fields[i].key, key))
                                f = &fields[i];
                if (!f)
                        return fault(p, key, err, "unknown key");
                if (!(f->allowed & kind))
                        return fault(p, key, err, "does not belong into a %s", record_kind_name(p->kind));
        }
        for (size_t i = 0; i < n; i++)
                if ((fields[i].required & kind) && !(waived & (1U << fields[i].type)) && !json_object_object_get_ex(o, fields[i].key, NULL))
                        return fault(p, NULL, err, "a %s needs the key %s%s%s", record_kind_name(p->kind), *p->parent ? p->parent + 1 : "",
                                     *p->parent ? "." : "", fields[i].key);
        return 0;
}

static int read_url_source(struct record *r, const struct place *p, json_object *v, struct err **err)
{
        if (check_keys(p, v, record_url_fields, record_n_url_fields, 0, err) < 0)
                return -1;
        r->source = SOURCE_URL;
        return read_string(&r->url, p, "url", json_get(v, "url"), 512, err);
}

static int read_source(struct record *r, const struct place *p, json_object *v, struct err **err)
{
        struct place inner = *p;

        if (!json_object_is_type(v, json_type_object))
                return fault(p, "source", err, "must be a mapping with type, and reference and digest or url");
        inner.parent = "/source";
        if (str_eq(json_str(v, "type"), "url"))
                return read_url_source(r, &inner, v, err);
        if (check_keys(&inner, v, record_source_fields, record_n_source_fields, 0, err) < 0)
                return -1;
        if (!str_eq(json_str(v, "type"), "docker_image"))
                return fault(&inner, "type", err, "must be docker_image or url: this version approves no other source");
        r->source = SOURCE_DOCKER_IMAGE;
        r->image = NEW(struct image_facts);
        for (size_t i = 1; i < record_n_source_fields; i++) {
                const struct record_field *f = &record_source_fields[i];
                json_object *value;
                if (!json_object_object_get_ex(v, f->key, &value))
                        continue;
                void *member = (char *)r->image + f->offset;
                int rc = f->type == FIELD_LIST ? read_list(member, &inner, f->key, value, f->max, err)
                                               : read_plain(member, &inner, f, value, err);
                if (rc < 0)
                        return -1;
        }
        return 0;
}

static int read_field(struct record *r, const struct place *p, const struct record_field *f, json_object *v, struct err **err)
{
        void *member = (char *)r + f->offset;

        switch (f->type) {
        case FIELD_API:
        case FIELD_KIND:
                return 0;
        case FIELD_SERIAL:
                if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 1 || json_object_get_int64(v) > MAX_INTEGER)
                        return fault(p, f->key, err, "must be an integer from 1 to 2^53");
                r->serial = (uint64_t)json_object_get_int64(v);
                return 0;
        case FIELD_SOURCE:
                return read_source(r, p, v, err);
        case FIELD_TIME:
                return read_time(member, p, f->key, v, err);
        case FIELD_LIST:
                return read_list(member, p, f->key, v, f->max, err);
        case FIELD_SMOKE:
                return read_smoke_test(&r->smoke_test, p, v, err);
        case FIELD_ENTRY:
                if (!json_object_is_type(v, json_type_object))
                        return fault(p, f->key, err, "must be a registry entry");
                r->entry = json_object_get(v);
                return 0;
        default:
                return read_plain(member, p, f, v, err);
        }
}

static int read_kind(struct place *p, json_object *json, struct err **err)
{
        const char *kind = json_str(json, "kind");

        if (!json_object_is_type(json, json_type_object))
                return fault(p, NULL, err, "must be a mapping");
        if (!str_eq(json_str(json, "apiVersion"), RECORD_API_VERSION))
                return fault(p, "apiVersion", err, "must be %s", RECORD_API_VERSION);
        for (size_t i = 0; i < ELEMENTSOF(kind_names); i++)
                if (str_eq(kind, kind_names[i])) {
                        p->kind = (enum record_kind)i;
                        return 0;
                }
        return fault(p, "kind", err, "must be Proposal, Approval, Rejection or Revocation");
}

static int read_record(struct record **ret, struct place *p, json_object *json, bool slim, struct err **err)
{
        _cleanup_(record_freep) struct record *r = NULL;

        if (read_kind(p, json, err) < 0 || check_keys(p, json, record_fields, record_n_fields, slim ? 1U << FIELD_ENTRY : 0, err) < 0)
                return -1;
        r = NEW(struct record);
        r->kind = p->kind;
        for (size_t i = 0; i < record_n_fields; i++) {
                json_object *v;
                if (json_object_object_get_ex(json, record_fields[i].key, &v) && read_field(r, p, &record_fields[i], v, err) < 0)
                        return -1;
        }
        if (r->expires_at && r->expires_at <= r->approved_at)
                return fault(p, "expires_at", err, "must be later than approved_at");
        if (!slim) {
                _cleanup_free_ char *id = record_compute_id(json);
                if (!str_eq(id, r->id))
                        return fault(p, "id", err, "is %s, but the content gives %s: the record was edited", r->id, id);
                r->json = json_object_get(json);
        }
        *ret = TAKE_PTR(r);
        return 0;
}

int record_from_json(struct record **ret, json_object *json, const char *name, bool slim, struct err **err)
{
        struct place p = {.name = name, .parent = ""};

        return read_record(ret, &p, json, slim, err);
}

int record_parse(struct record **ret, const char *text, size_t n, const char *name, struct err **err)
{
        static const struct json_limits limits = {.max_bytes = RECORD_MAX_BYTES, .max_depth = 24};
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_json_ json_object *json = NULL;

        if (yaml_parse(&json, &loc, text, n, name, &limits, err) < 0)
                return -1;
        struct place p = {.name = name, .loc = loc, .parent = ""};
        return read_record(ret, &p, json, false, err);
}

struct record *record_free(struct record *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < record_n_fields; i++) {
                enum field_type type = record_fields[i].type;
                if (type == FIELD_ID || type == FIELD_AUDIENCE || type == FIELD_SERVER || type == FIELD_HEX || type == FIELD_STRING)
                        free(*(char **)(void *)((char *)r + record_fields[i].offset));
        }
        strv_free(r->tools);
        strv_free(r->secrets);
        strv_free(r->egress);
        image_facts_free(r->image);
        free(r->url);
        json_object_put(r->smoke_test);
        json_object_put(r->entry);
        json_object_put(r->json);
        free(r);
        return NULL;
}
