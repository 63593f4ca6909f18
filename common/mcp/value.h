/*
 * A checked JSON value taken apart: a tree in one array, for those who look at every value of it (policy, schemas). Strings are decoded.
 * Memory is kept from one value to the next and bounded; nothing is allocated per node. Used by the broker.
 */
#pragma once

#include "common/mcp/message.h"

#define VALUE_MAX_NODES 65536U

/* Bits, so that a set of types is their sum. */
enum value_type {
        VALUE_NULL = 1,
        VALUE_BOOLEAN = 2,
        VALUE_INTEGER = 4, /* a number without a fraction: 1, 1.0, 1e3 */
        VALUE_NUMBER = 8,  /* another number */
        VALUE_STRING = 16,
        VALUE_ARRAY = 32,
        VALUE_OBJECT = 64,
};

struct value {
        enum value_type type;
        bool truth;            /* of a boolean */
        uint32_t count;        /* members, elements; characters (code points) of a string */
        uint32_t first, next;  /* place of the first child; of the next sibling; 0: none */
        struct mcp_slice key;  /* of a member: decoded, not NUL-terminated; absent for others */
        struct mcp_slice text; /* a string decoded; a number as written */
        double number;
};

/* Zero-initialised. nodes[0] is the root. Slices point into the text or into `strings`; both live until the next call. */
struct value_tree {
        struct value *nodes;
        uint32_t n, cap;
        struct buf strings;
};

/*
 * text passed mcp_value_check() or is a slice of a scanned message. -1: it did not after all, is deeper than MCP_MAX_DEPTH, or has more
 * than VALUE_MAX_NODES values.
 */
_must_check_ int value_parse(struct value_tree *t, struct mcp_slice text, struct err **err);
void value_tree_deinit(struct value_tree *t);

static inline const struct value *value_child(const struct value_tree *t, const struct value *v)
{
        return v->first ? &t->nodes[v->first] : NULL;
}
static inline const struct value *value_next(const struct value_tree *t, const struct value *v)
{
        return v->next ? &t->nodes[v->next] : NULL;
}
/* The member of an object, or NULL. */
const struct value *value_get(const struct value_tree *t, const struct value *object, const char *name);
/* Are the bytes of a slice this text? */
static inline bool value_is(struct mcp_slice s, const char *text)
{
        return mcp_is(s, text);
}
/* Deep equality as JSON Schema has it: numbers by value, members in any order. Counts *work down by one for each pair looked at; false when
 * it reaches 0. */
bool value_equal(const struct value_tree *ta, const struct value *a, const struct value_tree *tb, const struct value *b, uint32_t *work);
