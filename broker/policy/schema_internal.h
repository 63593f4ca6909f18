/*
 * A compiled schema. Only for schema_*.c.
 */
#pragma once

#include "broker/policy/schema.h"
#include "common/policy/pattern.h"

struct subschema;

struct schema_property {
        struct mcp_slice name;       /* borrowed from the schema's tree */
        const struct subschema *sub; /* NULL: only named by required */
        bool required;
};

struct schema_pattern {
        struct pattern *pattern;
        const struct subschema *sub; /* NULL for the keyword pattern */
};

struct schema_dependent {
        struct mcp_slice name;
        const struct value *required; /* array of names, or NULL */
        const struct subschema *sub;  /* or NULL */
};

struct schema_list {
        const struct subschema **items;
        size_t n;
};

struct subschema {
        const struct value_tree *tree; /* of the schema, for the values below */
        bool never;                    /* false */
        unsigned types;                /* allowed value_type bits; 0: all. VALUE_NUMBER is never here without VALUE_INTEGER. */
        const struct value *enumeration, *constant;
        const struct subschema *ref;
        /* numbers */
        bool has_minimum, has_maximum, has_exclusive_minimum, has_exclusive_maximum, has_multiple;
        double minimum, maximum, exclusive_minimum, exclusive_maximum, multiple_of;
        /* strings; UINT32_MAX: no bound */
        uint32_t min_length, max_length;
        struct pattern *pattern;
        /* objects */
        uint32_t min_properties, max_properties, n_required;
        struct schema_property *properties; /* sorted by name */
        size_t n_properties;
        struct schema_pattern *patterns;
        size_t n_patterns;
        struct schema_dependent *dependents;
        size_t n_dependents;
        const struct subschema *additional, *names;
        /* arrays */
        uint32_t min_items, max_items, min_contains, max_contains;
        bool unique;
        struct schema_list prefix;
        const struct subschema *items, *contains;
        /* of the same value */
        struct schema_list all, any, one;
        const struct subschema *negated, *condition, *then, *otherwise;
};

struct schema {
        char *text;
        struct value_tree tree;
        struct subschema **nodes; /* owned */
        size_t n, cap;
        uint32_t *of_value; /* place among nodes + 1 of each value of the tree; 0: none */
        bool old;           /* draft-07 or earlier */
        const struct subschema *root;
};

/* Appends an ECMAScript expression (as a schema's "pattern" has it, with the u flag) in RE2's syntax. -1: it cannot be said there. */
_must_check_ int ecma_translate(struct buf *out, struct mcp_slice expression, struct err **err);
/* Of the schema's properties, by name; NULL when there is none. */
struct schema_property *subschema_property(const struct subschema *s, struct mcp_slice name);
