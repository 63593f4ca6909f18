/*
 * Server-sent events: reading a stream split at any byte, bounded; writing. Pure. Used by the broker and by the helper bulkhead-smoke-talk.
 * Source: WHATWG HTML, "Server-sent events", 9.2.6 (interpreting an event stream).
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

/* type: "message" unless the event names one. data: lines joined by LF, NUL-terminated, n bytes long. Borrowed. -1 stops the feed. */
typedef int (*sse_event_fn)(const char *type, const char *data, size_t n, void *user, struct err **err);

/* What a line says; SSE_NAME: not known yet. */
enum sse_field { SSE_NAME, SSE_EMPTY, SSE_DATA, SSE_TYPE, SSE_ID, SSE_RETRY, SSE_OTHER };

#define SSE_MAX_ID 512U /* bytes of an event's id; a longer one is none */

/* Zeroed, but for max. Memory: one event's data. */
struct sse_reader {
        size_t max; /* bytes of one event's data, line ends counted */
        struct buf data, type;
        struct buf id;                  /* of the last whole event that had one or came behind it: what Last-Event-ID says. Empty = none */
        uint64_t retry_ms;              /* what the stream asks to wait before connecting again; 0 = nothing said */
        struct buf next_id, next_retry; /* of this event and line, as far as they came */
        char name[12];                  /* of the line's field, as far as it came */
        unsigned name_n;
        enum sse_field field;
        bool colon, before_value; /* of this line */
        bool after_cr;            /* a CR ended a line: an LF right behind it belongs to it */
        bool started;             /* the first line's byte order mark is behind us */
};
void sse_reader_deinit(struct sse_reader *s);
/* -1: an event is too long, or event() said so; then the reader is of no more use. */
_must_check_ int sse_reader_feed(struct sse_reader *s, const char *bytes, size_t n, sse_event_fn event, void *user, struct err **err);

/*
 * Appends one event; id and type may be NULL and have no line breaks. Line breaks in text (JSON has them between values only) become
 * several data lines: the reader sees LF for each.
 */
void sse_add_event(struct buf *b, const char *type, const char *id, const char *text, size_t n);

/*
 * The older HTTP transport's "endpoint" event: the path and query to POST to. origin: "http://ADDRESS:PORT" of the server itself; what is
 * elsewhere is refused: a server does not choose whom we talk to. Owned; NULL: *err says what is wrong.
 * Source: MCP 2024-11-05, basic/transports, "HTTP with SSE".
 */
char *sse_endpoint(const char *data, const char *origin, struct err **err);
