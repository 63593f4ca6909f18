/*
 * Server-sent events: reading a stream split at any byte, bounded; writing. Pure. Used by the broker and by the helper bulkhead-smoke-talk.
 * Source: WHATWG HTML, "Server-sent events", 9.2.6 (interpreting an event stream).
 */
#pragma once

#include "common/err.h"
#include "common/mem.h"

/* type: "message" unless the event names one. data: lines joined by LF, NUL-terminated, n bytes long. Borrowed. -1 stops the feed. */
typedef int (*sse_event_fn)(const char *type, const char *data, size_t n, void *user, struct err **err);

struct sse_reader {
        struct buf line, data, type;
        bool after_cr; /* a CR ended a line: an LF right behind it belongs to it */
        bool started;
        size_t max; /* bytes of one line and of one event's data */
};
void sse_reader_deinit(struct sse_reader *s);
_must_check_ int sse_reader_feed(struct sse_reader *s, const char *bytes, size_t n, sse_event_fn event, void *user, struct err **err);

/* Appends one event; id and type may be NULL. Line breaks in text (JSON has them between values only) become several data lines. */
void sse_add_event(struct buf *b, const char *type, const char *id, const char *text, size_t n);
