/*
 * Reading a JSON object by a table of its keys, with errors that name file:line:column, key, reason and remedy: a table row per key, a
 * small function per kind of value. For the loaders of the files that people write (registry, security policy).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"

struct conf;

/* What is being read, for messages and for the host's limits. */
struct reader {
        const char *name;                 /* the file, or what the entry came from */
        const struct json_locations *loc; /* NULL: places are not known, messages name only the key */
        const struct conf *conf;          /* what this host allows; NULL where the file does not depend on it */
};

/* Where in the document: a chain on the stack, so that good input costs nothing. key NULL: an array's item number `index`. */
struct place {
        const struct place *up;
        const char *key;
        size_t index;
};
#define PLACE_KEY(parent, name) (&(const struct place){(parent), (name), 0})
#define PLACE_ITEM(parent, i)   (&(const struct place){(parent), NULL, (i)})

/* Sets "file:line:column: a.b.c: <message>" and returns -1. */
int reader_fail(const struct reader *r, const struct place *at, struct err **err, const char *fmt, ...) _printf_(4, 5);
/* The same for a failure that a helper already described: *err gets the place in front. */
int reader_wrap(const struct reader *r, const struct place *at, struct err **err);
/* "servers.github.egress[0].cidr", escaped for people; owned. */
char *reader_place_text(const struct place *at);
/* Line of a place; 0 when unknown. */
unsigned reader_line(const struct reader *r, const struct place *at);
/* Line and column; both 0 when unknown. */
void reader_spot(const struct reader *r, const struct place *at, unsigned *line, unsigned *column);

typedef int (*key_parse_fn)(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err);
struct key {
        const char *name;
        key_parse_fn parse; /* gets the object's dst */
        bool required;
        const char *refused; /* never accepted, for this reason; parse is unused */
};
/* Unknown keys are errors; the known ones are parsed in the table's order. */
_must_check_ int read_object(const struct reader *r, const struct place *at, json_object *value, const struct key *keys, size_t n_keys,
                             void *dst, struct err **err);
#define READ_OBJECT(r, at, value, keys, dst, err) read_object(r, at, value, keys, ELEMENTSOF(keys), dst, err)

/* Scalars. Strings are 1 .. max bytes and borrowed from value. */
_must_check_ int read_string(const struct reader *r, const struct place *at, json_object *value, size_t max, const char **ret,
                             struct err **err);
_must_check_ int read_bool(const struct reader *r, const struct place *at, json_object *value, bool *ret, struct err **err);
_must_check_ int read_integer(const struct reader *r, const struct place *at, json_object *value, int64_t min, int64_t max, int64_t *ret,
                              struct err **err);
/* Index of the word; words is NULL-terminated. */
_must_check_ int read_word(const struct reader *r, const struct place *at, json_object *value, const char *const *words, unsigned *ret,
                           struct err **err);
_must_check_ int read_size(const struct reader *r, const struct place *at, json_object *value, uint64_t min, uint64_t max, uint64_t *ret,
                           struct err **err);
_must_check_ int read_duration(const struct reader *r, const struct place *at, json_object *value, uint64_t min_ms, uint64_t max_ms,
                               uint64_t *ret, struct err **err);
/* 1 .. max_items strings, each checked by `check` (may be NULL). *ret owned. */
typedef int (*string_check_fn)(const struct reader *r, const struct place *at, const char *s, struct err **err);
_must_check_ int read_strings(const struct reader *r, const struct place *at, json_object *value, size_t max_items, size_t max_each,
                              string_check_fn check, char ***ret, struct err **err);
_must_check_ int read_array(const struct reader *r, const struct place *at, json_object *value, size_t max_items, size_t *ret_n,
                            struct err **err);
/* Refuses control characters in any string or key below value: they have no use here and deceive whoever reads the file. */
_must_check_ int read_clean(const struct reader *r, const struct place *at, json_object *value, struct err **err);

/* [A-Za-z_][A-Za-z0-9_]{0,127} */
_must_check_ int check_variable_name(const struct reader *r, const struct place *at, const char *s, struct err **err);
