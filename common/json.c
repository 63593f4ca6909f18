#include "common/json.h"

#include <sodium.h>
#include <stdarg.h>

#include "common/json_scan.h"

int json_parse(json_object **ret, const char *text, size_t n, const char *name, const struct json_limits *limits, struct err **err)
{
        return json_parse_located(ret, NULL, text, n, name, limits, err);
}

int json_parse_located(json_object **ret, struct json_locations **loc, const char *text, size_t n, const char *name,
                       const struct json_limits *limits, struct err **err)
{
        size_t max_bytes = limits && limits->max_bytes ? limits->max_bytes : 1U << 20;
        unsigned max_depth = limits && limits->max_depth ? limits->max_depth : 32;
        _cleanup_(json_locations_freep) struct json_locations *places = loc ? NEW(struct json_locations) : NULL;

        if (n > max_bytes)
                return err_set(err, ERR_LIMIT, "%s: %zu bytes are more than the %zu allowed", name, n, max_bytes);
        if (json_scan(text, n, name, max_depth, places, err) < 0)
                return -1;

        struct json_tokener *tokener = json_tokener_new_ex((int)max_depth + 1);
        if (!tokener)
                abort();
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 | JSON_TOKENER_ALLOW_TRAILING_CHARS);
        json_object *o = json_tokener_parse_ex(tokener, text, (int)n);
        /* A bare number has no end of its own: one more blank says that it is complete. */
        if (json_tokener_get_error(tokener) == json_tokener_continue)
                o = json_tokener_parse_ex(tokener, " ", 1);
        enum json_tokener_error problem = json_tokener_get_error(tokener);
        json_tokener_free(tokener);
        if (problem != json_tokener_success) {
                json_object_put(o);
                return err_set(err, ERR_INVALID, "%s: %s", name, json_tokener_error_desc(problem));
        }
        *ret = o;
        if (loc)
                *loc = TAKE_PTR(places);
        return 0;
}

bool json_locate(const struct json_locations *loc, const char *pointer, unsigned *line, unsigned *column)
{
        for (size_t i = 0; loc && i < loc->n; i++) {
                if (strcmp(loc->items[i].pointer, pointer) != 0)
                        continue;
                *line = loc->items[i].line;
                *column = loc->items[i].column;
                return true;
        }
        return false;
}

struct json_locations *json_locations_free(struct json_locations *loc)
{
        if (loc) {
                for (size_t i = 0; i < loc->n; i++)
                        free(loc->items[i].pointer);
                free(loc->items);
                free(loc);
        }
        return NULL;
}

json_object *json_get(json_object *o, const char *key)
{
        json_object *value = NULL;

        if (!json_object_is_type(o, json_type_object))
                return NULL;
        json_object_object_get_ex(o, key, &value);
        return value;
}

const char *json_str(json_object *o, const char *key)
{
        json_object *value = json_get(o, key);

        return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

int64_t json_int(json_object *o, const char *key, int64_t fallback)
{
        json_object *value = json_get(o, key);

        return json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : fallback;
}

bool json_flag(json_object *o, const char *key, bool fallback)
{
        json_object *value = json_get(o, key);

        return json_object_is_type(value, json_type_boolean) ? json_object_get_boolean(value) : fallback;
}

json_object *json_path(json_object *o, ...)
{
        const char *key;
        va_list ap;

        va_start(ap, o);
        while (o && (key = va_arg(ap, const char *)))
                o = json_get(o, key);
        va_end(ap);
        return o;
}

void json_add(json_object *o, const char *key, json_object *value)
{
        if (json_object_object_add(o, key, value) < 0)
                abort();
}

void json_add_str(json_object *o, const char *key, const char *value)
{
        if (value)
                json_add(o, key, json_object_new_string(value));
}

void json_add_int(json_object *o, const char *key, int64_t value)
{
        json_add(o, key, json_object_new_int64(value));
}

void json_add_bool(json_object *o, const char *key, bool value)
{
        json_add(o, key, json_object_new_boolean(value));
}

json_object *json_from_strv(char *const *v)
{
        json_object *array = json_object_new_array();

        for (; v && *v; v++)
                json_object_array_add(array, json_object_new_string(*v));
        return array;
}

bool json_to_strv(char ***ret, json_object *array)
{
        _cleanup_strv_ char **v = NULL;

        if (!json_object_is_type(array, json_type_array))
                return false;
        for (size_t i = 0; i < json_object_array_length(array); i++) {
                json_object *item = json_object_array_get_idx(array, i);
                if (!json_object_is_type(item, json_type_string))
                        return false;
                v = strv_append(v, json_object_get_string(item));
        }
        *ret = TAKE_PTR(v);
        return true;
}

void json_sha256(char out[SHA256_HEX], json_object *o)
{
        _cleanup_free_ char *text = json_canonical(o);

        sha256_hex(out, text, strlen(text));
}

void sha256_hex(char out[SHA256_HEX], const void *data, size_t n)
{
        unsigned char hash[crypto_hash_sha256_BYTES];

        crypto_hash_sha256(hash, data, n);
        hex_encode(out, hash, sizeof(hash));
}
