/*
 * The HTTP side of the broker: listeners inside the sd-event loop, limits, Host and Origin, bearer token, and exchanges:
 * one HTTP request and its answer, whole or as an event stream. Knows nothing of MCP. Used by the broker's main and by the gateway.
 *
 * Source: RFC 9110, 9112 (read by common/http/); MCP basic/transports, "Security Warning" (Host and Origin); RFC 6750 (bearer).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/mem.h"

struct front;
struct exchange;

/*
 * Who may speak to a front whose callers are many: instead of the one token. Called with headers in order, Host and Origin right.
 */
struct front_authenticator {
        /* credential: of the only Authorization header that is a Bearer's, n bytes; NULL: none, several, another scheme, or one in the URL
         * as well. The caller's identity (owned by the exchange from then on), or NULL: 401. */
        void *(*identify)(const char *credential, size_t n, void *user);
        void (*release)(void *identity);
        bool (*is_open)(const char *path); /* paths that need no token; may be NULL */
        const char *metadata;              /* path of what a 401 names (RFC 9728, 5.1), at the host that the client spoke to; borrowed */
        void *user;
};

struct front_limits {
        size_t max_body;          /* bytes; more is 413 */
        size_t max_header;        /* bytes of all headers; more is 431 */
        unsigned max_connections; /* of the listener */
        unsigned max_per_address;
        uint64_t header_timeout_ms; /* to send all headers, and the whole body at a floor of bytes per second: slow clients are dropped */
        uint64_t idle_timeout_ms;   /* a kept connection without a request */
        uint64_t heartbeat_ms;      /* between two comments on a silent event stream */
        size_t max_queued;          /* bytes that wait for a client that does not read its stream; then it is dropped */
};

struct front_config {
        const char *name;           /* for messages and metrics: "gateway" */
        const char *address;        /* "127.0.0.1" */
        uint16_t port;              /* 0 = any (tests); front_port() tells */
        int listen_fd;              /* already bound and listening (socket activation), or -1 */
        char *const *allowed_hosts; /* beside localhost, 127.0.0.1, [::1] with our port: names a Host or Origin may have; may be NULL */
        const char *token_sha256;   /* hex of the only bearer token that is let in, compared in constant time; NULL = no token needed */
        const char *open_path;      /* one more path that needs no token, beside /healthz and /readyz; borrowed; NULL: none */
        const struct front_authenticator *authenticator; /* instead of token_sha256; borrowed; NULL: none */
        struct front_limits limits;
};

/*
 * A request whose headers and whole body are here, Host, Origin and token being right (what is not right was answered already). From here
 * on the exchange is the callee's: it must be answered (exchange_answer, or exchange_stream … exchange_end), now or later. Paths are
 * without query; percent-encoded ones are refused with 400 before.
 */
typedef void (*front_request_fn)(struct exchange *x, void *user);
/* Called for paths that need no token (/healthz, /readyz) too: exchange_authorized() tells. */
_must_check_ int front_new(struct front **ret, sd_event *loop, const struct front_config *config, front_request_fn request, void *user,
                           struct err **err);
/* Open exchanges are cut off (their left() is called first). */
struct front *front_free(struct front *f);
DEFINE_FREEP(struct front *, front_free)
uint16_t front_port(const struct front *f);
/* Another token from now on (SIGHUP); NULL: none is needed. What was let in stays in. */
_must_check_ int front_set_token(struct front *f, const char *token_sha256, struct err **err);
/* Counts for /metrics. */
struct front_counts {
        uint64_t connections, requests, refused, dropped_slow;
        unsigned open_connections, open_exchanges, open_streams;
};
void front_counts(const struct front *f, struct front_counts *ret);

const char *exchange_method(const struct exchange *x); /* "POST" */
const char *exchange_path(const struct exchange *x);
const char *
exchange_header(const struct exchange *x,
                const char *name); /* NULL = absent; first one; case-insensitive. Borrowed, as method and path, while x is there */
/* How often it was sent: security-relevant headers must not come twice. */
unsigned exchange_header_count(const struct exchange *x, const char *name);
const char *exchange_body(const struct exchange *x,
                          size_t *n); /* NUL-terminated behind n. Borrowed until exchange_take_body() or the end */
/* Hands the body's memory over to the caller (*ret is deinitialised by it); for a call that outlives the parsing. */
void exchange_take_body(struct exchange *x, struct buf *ret);
bool exchange_authorized(const struct exchange *x);
/* Who the front's authenticator says it is; NULL: this front has none, or the path needs no token. Borrowed. */
void *exchange_identity(const struct exchange *x);

/* Told once when the client left before the answer was complete, or the front goes away. x is gone afterwards. NULL takes it back. */
void exchange_on_left(struct exchange *x, void (*left)(struct exchange *x, void *user), void *user);

/* A header of the answer; before answering. Both copied. One with characters that no header may have is left out. */
void exchange_add_header(struct exchange *x, const char *name, const char *value);
/*
 * The whole answer. body is taken over (may be NULL or empty). x is gone afterwards, and left() is not called. It is written at once; what
 * the socket does not take waits for the client, in memory that all such clients share: the worst of them may lose its answer.
 */
void exchange_answer(struct exchange *x, unsigned status, const char *content_type, struct buf *body);
/*
 * Begins an event stream: 200, text/event-stream, no caching. Then exchange_send() until exchange_end(). Its end is also the connection's
 * (Connection: close). What is begun, sent and ended from one callback goes out in one piece.
 */
void exchange_stream(struct exchange *x);
/*
 * One event's bytes, as sse_add_event() writes them. Taken over. A client that has not read max_queued bytes of earlier ones is dropped
 * (left() is called, not from inside).
 */
void exchange_send(struct exchange *x, struct buf *event);
/* What was sent goes out, then the stream ends. x is gone afterwards, and left() is not called. */
void exchange_end(struct exchange *x);
bool exchange_is_stream(const struct exchange *x);
