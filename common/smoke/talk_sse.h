/*
 * Server-sent events, split at any byte, bounded. Pure. Used by the helper bulkhead-smoke-talk for HTTP answers.
 * Source: WHATWG HTML, "Server-sent events", 9.2.6 (interpreting an event stream).
 */
#pragma once

#include "common/err.h"
#include "common/mem.h"

/* type: "message" unless the event names one. data: lines joined by LF, NUL-terminated, n bytes long. Borrowed. -1 stops the feed. */
typedef int (*talk_event_fn)(const char *type, const char *data, size_t n, void *user, struct err **err);

struct talk_sse {
        struct buf line, data, type;
        bool after_cr; /* a CR ended a line: an LF right behind it belongs to it */
        bool started;
        size_t max; /* bytes of one line and of one event's data */
};
void talk_sse_deinit(struct talk_sse *s);
_must_check_ int talk_sse_feed(struct talk_sse *s, const char *bytes, size_t n, talk_event_fn event, void *user, struct err **err);
