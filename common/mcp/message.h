/*
 * One JSON-RPC message of MCP as raw text, and the places in it that a gateway reads. Nothing is decoded into values: what policy does not
 * need to see is copied as bytes. Pure functions of bytes; the first code that reads what agents and servers wrote. Used by broker and
 * tests.
 *
 * Rules: JSON-RPC 2.0; RFC 8259; MCP "Messages" (basic/index), revisions 2024-11-05 to 2026-07-28. What two parsers could read differently
 * is refused: duplicate keys (compared after decoding escapes), NUL, invalid UTF-8, lone surrogates, integers beyond 2^53, numbers that are
 * not finite as a double, too much depth.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

/* Bytes of somebody else's text. at == NULL: absent. */
struct mcp_slice {
        const char *at;
        size_t n;
};

enum mcp_kind { MCP_REQUEST, MCP_NOTIFICATION, MCP_RESULT, MCP_ERROR };

#define MCP_MAX_DEPTH  64U
#define MCP_MAX_METHOD 128U
#define MCP_MAX_ID     256U /* bytes of an id as written */

/* Every slice points into the text that was scanned and is a whole JSON value as written (strings with their quotes), unless said. */
struct mcp_message {
        const char *text;
        size_t n;
        enum mcp_kind kind;
        struct mcp_slice id;     /* string or integer; absent for notifications, and for errors about what could not be read */
        struct mcp_slice method; /* without quotes; [A-Za-z0-9_/.$-]+, anything else is refused */
        struct mcp_slice params, result, error; /* objects */
        /* of params (of result: meta, result_type, next_cursor and instructions only) */
        struct mcp_slice meta;              /* object */
        struct mcp_slice name, uri;         /* strings */
        struct mcp_slice cursor;            /* string */
        struct mcp_slice arguments;         /* any */
        struct mcp_slice request_id;        /* notifications/cancelled: string or integer */
        struct mcp_slice level;             /* logging/setLevel, notifications/message */
        struct mcp_slice input_responses;   /* object */
        struct mcp_slice request_state;     /* string */
        struct mcp_slice notifications;     /* subscriptions/listen: object */
        struct mcp_slice ref;               /* completion/complete: object */
        struct mcp_slice ref_name, ref_uri; /* its "name" and "uri" */
        struct mcp_slice protocol_version;  /* initialize: params.protocolVersion; its result: result.protocolVersion */
        struct mcp_slice capabilities, client_info;
        struct mcp_slice result_type;  /* string */
        struct mcp_slice next_cursor;  /* string */
        struct mcp_slice instructions; /* string */
        struct mcp_slice server_info;
        /* of _meta */
        struct mcp_slice progress_token; /* string or integer; of notifications/progress: params.progressToken */
        struct mcp_slice meta_version, meta_capabilities, meta_client_info, meta_log_level; /* io.modelcontextprotocol/… */
        struct mcp_slice meta_subscription;                                                 /* io.modelcontextprotocol/subscriptionId */
        /* of error */
        struct mcp_slice error_message, error_data;
        int64_t error_code;
        /* The first of these members whose value is of another type than said here: "cursor". Its slice is absent then. Else NULL. */
        const char *misfit;
};

enum mcp_fault {
        MCP_FAULT_PARSE = 1, /* not JSON, or JSON that is refused: -32700 */
        MCP_FAULT_INVALID,   /* JSON, but no message: -32600 */
        MCP_FAULT_BATCH,     /* an array, checked: mcp_batch_next() splits it where the revision has batches */
        MCP_FAULT_LIMIT,     /* too deep, too many members */
};

/*
 * Reads text[0..n); leading and trailing white space is allowed. 0: *m is filled, its slices live as long as text. Else an mcp_fault, and
 * *err says why and at which byte; foreign text in it is escaped. With MCP_FAULT_INVALID m->id is filled when it could be read.
 * Linear in n; memory in proportion to the number of keys of the objects that are open at one time.
 */
_must_check_ int mcp_message_scan(struct mcp_message *m, const char *text, size_t n, struct err **err);
/* Checks any JSON value by the same rules: 0 or an mcp_fault. */
_must_check_ int mcp_value_check(const char *text, size_t n, struct err **err);

/*
 * Walks a batch: *item is the next element, *pos the caller's cursor (0 at first). 1 = an element, 0 = the end, -1 = no array.
 * The text must have been checked: mcp_message_scan() called it MCP_FAULT_BATCH.
 */
int mcp_batch_next(struct mcp_slice *item, const char *text, size_t n, size_t *pos);

/* -- walking checked values -------------------------------------------------------------------------------------------------- */
/*
 * Members of an object and elements of an array in text that was checked before (a slice of an mcp_message). *pos is the caller's cursor,
 * 0 at first. 1 = one more, 0 = the end. key is without quotes, as written (escapes not decoded). Neither allocates.
 */
int mcp_object_next(struct mcp_slice object, size_t *pos, struct mcp_slice *key, struct mcp_slice *value);
int mcp_array_next(struct mcp_slice array, size_t *pos, struct mcp_slice *value);
/* Is a key, as mcp_object_next() gives it, this name (plain text)? The key may be written with escapes. */
bool mcp_key_is(struct mcp_slice key, const char *name);
/* Does it begin so? */
bool mcp_key_begins(struct mcp_slice key, const char *prefix);
/* The member called name, however it is written, or an absent slice. */
struct mcp_slice mcp_object_get(struct mcp_slice object, const char *name);
bool mcp_is_object(struct mcp_slice s);
bool mcp_is_array(struct mcp_slice s);
bool mcp_is_string(struct mcp_slice s);
bool mcp_is_integer(struct mcp_slice s); /* as written: 1, not 1.0 */
bool mcp_is_true(struct mcp_slice s);

static inline bool mcp_has(struct mcp_slice s)
{
        return s.at != NULL;
}
/* Compares the bytes as written with a C string: mcp_is(m.method, "tools/call"). */
static inline bool mcp_is(struct mcp_slice s, const char *literal)
{
        return s.at && strlen(literal) == s.n && memcmp(s.at, literal, s.n) == 0;
}
bool mcp_same(struct mcp_slice a, struct mcp_slice b);
static inline struct mcp_slice mcp_slice_of(const char *s)
{
        return (struct mcp_slice){s, s ? strlen(s) : 0};
}
/* A JSON string's value, escapes decoded (owned, NUL-terminated, may be empty); NULL when s is no string. */
char *mcp_string(struct mcp_slice s);
/* Appends s as a JSON string, with quotes. s must be UTF-8. */
void mcp_add_string(struct buf *b, const char *s, size_t n);
static inline void mcp_add_slice(struct buf *b, struct mcp_slice s)
{
        buf_add(b, s.at, s.n);
}

/* -- rewriting --------------------------------------------------------------------------------------------------------------- */
/* Bytes of a text to be replaced. old.n may be 0 (an insertion at old.at); by.n may be 0 (a removal). */
struct mcp_edit {
        struct mcp_slice old, by;
};
/* Appends `text` with the edits done; they are sorted by place and do not overlap. */
void mcp_edit_add(struct buf *out, struct mcp_slice text, const struct mcp_edit *edits, size_t n_edits);
/*
 * Appends object with member name set to value (raw JSON; value.at == NULL removes it); everything else stays as written. object may be
 * absent: then a new one is written.
 */
void mcp_object_set(struct buf *out, struct mcp_slice object, const char *name, struct mcp_slice value);
