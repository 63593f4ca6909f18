/*
 * JSON with the strictness json-c lacks: one scan before json-c refuses duplicate keys, NUL, invalid UTF-8, lone surrogates,
 * trailing bytes, too much depth or size and integers beyond 2^53, with line and column. Also RFC 8785 canonical text and hashes over
 * it, because approvals sign hashes of JSON. Every program parses JSON through here.
 */
#pragma once

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

static inline void json_freep(json_object **o)
{
        if (*o)
                json_object_put(*o);
}
#define _cleanup_json_ _cleanup_(json_freep)

struct json_limits {
        size_t max_bytes;   /* 0 = 1 MiB */
        unsigned max_depth; /* 0 = 32 */
};

/* Where a value stands in its text: kept by json_parse_located() for error messages. */
struct json_locations;

/*
 * Parses text[0..n) into *ret (owned). `name` is the file's or peer's name, used in errors: "name:line:column: reason".
 * limits may be NULL.
 */
_must_check_ int json_parse(json_object **ret, const char *text, size_t n, const char *name, const struct json_limits *limits,
                            struct err **err);
/* The same, and *loc (owned) can tell every value's place. Costs memory per value: for files that people write. */
_must_check_ int json_parse_located(json_object **ret, struct json_locations **loc, const char *text, size_t n, const char *name,
                                    const struct json_limits *limits, struct err **err);
/* 1-based place of a value, by its RFC 6901 pointer ("/servers/github/image"); false if unknown. For a member it is the place of the *key*.
 */
bool json_locate(const struct json_locations *loc, const char *pointer, unsigned *line, unsigned *column);
struct json_locations *json_locations_free(struct json_locations *loc);
DEFINE_FREEP(struct json_locations *, json_locations_free)

/* Accessors that tolerate NULL objects and wrong types by returning NULL / fallback. Borrowed. */
json_object *json_get(json_object *o, const char *key);
const char *json_str(json_object *o, const char *key);
int64_t json_int(json_object *o, const char *key, int64_t fallback);
bool json_flag(json_object *o, const char *key, bool fallback);
/* Walks keys, NULL-terminated: json_path(o, "HostConfig", "Memory", NULL). */
json_object *json_path(json_object *o, ...) __attribute__((sentinel));

/* Builders. The value is handed over; a NULL value adds JSON null. */
void json_add(json_object *o, const char *key, json_object *value);
void json_add_str(json_object *o, const char *key, const char *value); /* NULL adds nothing */
void json_add_int(json_object *o, const char *key, int64_t value);
void json_add_bool(json_object *o, const char *key, bool value);
json_object *json_from_strv(char *const *v); /* array; NULL list gives [] */
/* Array of strings -> strv; false when it is not one. */
bool json_to_strv(char ***ret, json_object *array);

/* RFC 8785 canonical text (owned): members sorted by UTF-16 code units, ECMAScript numbers, minimal escapes. */
char *json_canonical(json_object *o);
/* Lower-case hex SHA-256 of the canonical text / of bytes. out: 65 bytes. */
#define SHA256_HEX 65
void json_sha256(char out[SHA256_HEX], json_object *o);
void sha256_hex(char out[SHA256_HEX], const void *data, size_t n);
