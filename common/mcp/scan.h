/*
 * The pieces of the scanner of common/mcp: strings, keys, values. Only for this folder.
 */
#pragma once

#include "common/mcp/message.h"

/* -- strings (string.c) ------------------------------------------------------------------------------------------------------ */
/* The first byte of [p, end) that is a quote, a backslash, a control character or not ASCII; end when there is none. */
const char *string_plain_end(const char *p, const char *end);
/* The first byte of [p, end) that is a or b; end when there is none. */
const char *string_find_either(const char *p, const char *end, char a, char b);
/* p stands behind the opening quote, in checked text: the place of the closing quote, or end. */
const char *string_end(const char *p, const char *end);
/* Of a string that was read: is there an escape in it; or why it is none, and where. */
struct string_note {
        bool escaped;
        const char *why, *at;
};
/* p stands behind the opening quote of unchecked text. The place of the closing quote; NULL: *note says what is wrong. */
const char *string_check(const char *p, const char *end, struct string_note *note);
/* Appends the characters of a checked string, without its quotes, escapes decoded. */
void string_decode(struct buf *out, const char *p, const char *end);
/* Are two checked strings (without quotes) the same characters? */
bool string_same(struct mcp_slice a, struct mcp_slice b);
/* Are the characters of a checked string these? */
bool string_is(struct mcp_slice s, const char *text);

/* -- keys (keys.c) ----------------------------------------------------------------------------------------------------------- */
struct key {
        uint32_t at;    /* byte of the text, behind the quote */
        uint32_t shape; /* its length, and KEY_ESCAPED */
};
#define KEY_ESCAPED UINT32_C(0x80000000)

/* The keys of all objects that are open, the innermost last. */
struct keys {
        const char *text;
        struct key *items; /* few, or allocated */
        size_t n, cap;
        struct buf scratch;
        struct key few[32];
};
/* Of one open object: where its keys begin, and a hash table when there are many. */
struct key_set {
        size_t first;
        uint64_t *slots; /* hash in the upper half, place among the set's keys + 1 in the lower */
        size_t cap;
};
enum key_outcome { KEY_NEW, KEY_TWICE, KEY_TOO_MANY };
#define MCP_MAX_KEYS (1U << 20) /* of the objects that are open at one time */

void keys_init(struct keys *k, const char *text);
enum key_outcome keys_add(struct keys *k, struct key_set *set, struct mcp_slice key, bool escaped);
void keys_deinit(struct keys *k);
void key_set_deinit(struct key_set *set);

/* -- values (scan.c) --------------------------------------------------------------------------------------------------------- */
/* The objects of a message whose members are looked for. */
enum place { IN_OTHER, IN_MESSAGE, IN_PARAMS, IN_RESULT, IN_META, IN_ERROR, IN_REF };

struct found;
struct field;

struct scan {
        const char *text, *p, *end;
        struct mcp_slice value;  /* the whole, without white space around it */
        struct mcp_slice string; /* the last one that was read, without its quotes */
        struct string_note note; /* about it */
        unsigned depth;
        struct keys keys;
        struct found *found; /* goes to found_value(); unused when the whole is IN_OTHER */
        struct err **err;
};
/*
 * One value and the white space around it. 0 or an mcp_fault. place: what it is when it is an object. Only found and err need be set
 * before; scan_deinit() is due in any case.
 */
int scan_text(struct scan *s, const char *text, size_t n, enum place place);
void scan_deinit(struct scan *s);
/* Of a number as written, checked but for its size. */
double number_value(struct mcp_slice number);

/* -- what is looked for (message.c) ------------------------------------------------------------------------------------------ */
/* NULL: the member is none of interest. */
const struct field *found_field(enum place place, struct mcp_slice key, bool escaped);
/* What the member's value is when it is an object. */
enum place found_place(const struct field *field);
void found_value(struct found *found, const struct field *field, struct mcp_slice value);
