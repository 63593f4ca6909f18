/*
 * Heads of HTTP/1.1 messages, read strictly: the start line and the fields of a request or of a response, as places in the reader's buffer,
 * and how the body behind them is delimited. Pure, bounded, no memory of its own. Used by the broker, for callers and for HTTP servers.
 *
 * What two programs could read differently is refused, not repaired: a CR or LF alone, folded lines, space before a colon, fields without a
 * name, control characters, two lengths, any transfer coding but "chunked", versions other than 1.0 and 1.1.
 *
 * Source: RFC 9112 (2.2 line ends, 3 request line, 4 status line, 5 fields, 6 body length, 9.3 persistence), RFC 9110 (5.5, 5.6.2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

/* Why a message is refused. */
enum http_fault {
        HTTP_FAULT_NONE,
        HTTP_FAULT_START_LINE,  /* no request line, or no status line */
        HTTP_FAULT_VERSION,     /* it is HTTP, but neither 1.0 nor 1.1 */
        HTTP_FAULT_LINE_END,    /* a CR or LF that stands alone */
        HTTP_FAULT_FIELD,       /* no colon, a name that is none, space around a name, a folded line, control characters in a value */
        HTTP_FAULT_LENGTH,      /* Content-Length twice, with Transfer-Encoding, or no decimal number; a transfer coding but "chunked" */
        HTTP_FAULT_CHUNK,       /* a chunk's size, end or extension, or a trailer */
        HTTP_FAULT_TARGET_SIZE, /* the start line alone is longer than the bound */
        HTTP_FAULT_HEAD_SIZE,   /* too many fields, or too many bytes of them */
        HTTP_FAULT_BODY_SIZE,   /* a length that is no 64-bit number */
};
/* The status with which a server answers a request like that: 400, 413, 414, 431 or 505. */
unsigned http_fault_status(enum http_fault fault);
/* "a field without a colon, …": for messages. */
const char *http_fault_text(enum http_fault fault);

/* Fields that are looked up while they are read; the others can be found by their name. */
enum http_known {
        HTTP_ACCEPT,
        HTTP_AUTHORIZATION,
        HTTP_CONNECTION,
        HTTP_CONTENT_ENCODING,
        HTTP_CONTENT_LENGTH,
        HTTP_CONTENT_TYPE,
        HTTP_EXPECT,
        HTTP_HOST,
        HTTP_MCP_METHOD,
        HTTP_MCP_NAME,
        HTTP_MCP_PROTOCOL_VERSION,
        HTTP_MCP_SESSION_ID,
        HTTP_ORIGIN,
        HTTP_RETRY_AFTER,
        HTTP_TRANSFER_ENCODING,
        HTTP_UPGRADE,
        HTTP_N_KNOWN,
};

#define HTTP_MAX_FIELDS 64U
#define HTTP_MAX_HEAD   (1U << 20) /* what max may be */

/* A part of the head, by its place behind the head's first byte: the buffer may move while it grows. */
struct http_span {
        uint32_t at, n;
};
struct http_field {
        struct http_span name, value; /* value: without white space around it */
};
enum http_kind { HTTP_REQUEST, HTTP_RESPONSE };

struct http_head {
        enum http_kind kind;
        uint32_t max;                    /* bytes of start line and fields with their line ends */
        unsigned minor;                  /* version: HTTP/1.minor, 0 or 1 */
        unsigned status;                 /* of a response: 100 .. 599 */
        struct http_span method, target; /* of a request. target: visible ASCII, at least one character */
        struct http_span reason;         /* of a response; may be empty */
        uint32_t size;                   /* of the whole head with its empty line; what follows is body. 0: it is not whole yet */
        bool begun;                      /* the start line was read */
        uint32_t line, seen;             /* for the next call: where the line begins that is not whole, and how far it was looked at */
        uint8_t first[HTTP_N_KNOWN];     /* place in fields, where count is not 0 */
        uint8_t count[HTTP_N_KNOWN];
        unsigned n_fields;
        struct http_field fields[HTTP_MAX_FIELDS]; /* the last ones are never looked at: a copy may be cut off behind n_fields */
};
/* Bytes of a copy that is cut off there. */
static inline size_t http_head_extent(const struct http_head *h)
{
        return offsetof(struct http_head, fields) + h->n_fields * sizeof(h->fields[0]);
}

/* Anew. max: at most HTTP_MAX_HEAD. Does not touch what it need not: an http_head is large. */
void http_head_init(struct http_head *h, enum http_kind kind, size_t max);
/*
 * bytes: all n bytes that have come, from the head's first one on; the same as last time, and maybe more behind them, maybe elsewhere. No
 * byte is looked at again because more came. 1: the head is whole (h->size); 0: more is needed; -1: *fault says what is wrong.
 * One empty line before a request is skipped.
 */
_must_check_ int http_head_read(struct http_head *h, const char *bytes, size_t n, enum http_fault *fault);

/* The first field called that; NULL: there is none. name: NUL-terminated, any case. */
const struct http_field *http_head_find(const struct http_head *h, const char *bytes, const char *name);
static inline const struct http_field *http_head_known(const struct http_head *h, enum http_known known)
{
        return h->count[known] ? &h->fields[h->first[known]] : NULL;
}
/* How many fields are called that. */
unsigned http_head_count(const struct http_head *h, const char *bytes, const char *name);
/* Does the comma-separated list in any field called that have this member? Compared without case, parameters not cut off. */
bool http_head_lists(const struct http_head *h, const char *bytes, enum http_known known, const char *member);
/* May another message follow on the connection (RFC 9112, 9.3)? A body until the end of the connection forbids it, too. */
bool http_head_persists(const struct http_head *h, const char *bytes);
/* Writes a NUL behind method, target, every name and every value, over what delimits them there: they are C strings then. Whole heads only;
 * nothing but spans can be read of it afterwards. */
void http_head_terminate(const struct http_head *h, char *bytes);

/* How the body is delimited. */
enum http_framing {
        HTTP_NO_BODY,
        HTTP_SIZED,       /* so many bytes; may be 0 */
        HTTP_CHUNKED,     /* see chunked.h */
        HTTP_UNTIL_CLOSE, /* responses only */
};
/*
 * length: of HTTP_SIZED. bodiless: the response to a HEAD request; responses with 1xx, 204 and 304 never have a body. Judges also what it
 * does not need (two lengths in a response to HEAD are refused). -1: *fault.
 */
_must_check_ int http_head_framing(const struct http_head *h, const char *bytes, bool bodiless, enum http_framing *ret, uint64_t *length,
                                   enum http_fault *fault);

/* The bytes of a token (RFC 9110, 5.6.2), and of a field's value: blank, visible or beyond ASCII. */
bool http_is_token(const char *s, size_t n);
bool http_is_value(const char *s, size_t n);
