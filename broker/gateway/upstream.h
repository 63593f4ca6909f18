/*
 * One session with one server, whatever transport and era it speaks: the handshake, request ids and progress tokens of our own, answers
 * matched to calls, deadlines and bounds. Knows nothing of clients. The transports (upstream_stdio.c, upstream_http.c) are behind one
 * table. Used by the gateway, one loop, never blocking.
 *
 * Source: MCP basic/lifecycle and basic/transports of each revision; design of ids: JSON-RPC 2.0, section 4.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/mcp/message.h"
#include "common/mcp/revision.h"

enum upstream_transport { UPSTREAM_STDIO, UPSTREAM_HTTP, UPSTREAM_SSE };

struct upstream_limits {
        size_t max_message;    /* bytes of one message, either way (gateway.max_message, 16 MiB) */
        size_t max_queued;     /* bytes that wait for a server that does not read; then its calls are refused */
        unsigned max_calls;    /* at once */
        unsigned max_noise;    /* lines in a row on standard output that are no messages, before the session counts as broken */
        uint64_t handshake_ms; /* until it must be ready */
        uint64_t probe_ms;     /* how long a stdio server may stay silent on server/discover before initialize is tried */
};

struct upstream;
struct upstream_call;
struct upstream_pool;

/* All may free the upstream, except where said. Messages are borrowed for the time of the call. */
struct upstream_events {
        /* The handshake is over: era, revision and info are known, requests may be made. Once. */
        void (*ready)(struct upstream *u, void *user);
        /* The session is over; every call has been finished before. Once, and nothing comes after it. The owner frees u. */
        void (*ended)(struct upstream *u, const struct err *why, void *user);
        /* A notification that belongs to no call: list_changed, resources/updated, logging, and progress or logs nobody can place. */
        void (*notification)(struct upstream *u, const struct mcp_message *m, void *user);
        /*
         * Legacy: the server asks (sampling, elicitation, roots, ping is answered here below already). call is the one on whose stream it
         * came; NULL: the transport cannot tell. Answer it with upstream_answer(); m->id must be copied for that.
         */
        void (*request)(struct upstream *u, struct upstream_call *call, const struct mcp_message *m, void *user);
        /* The server withdrew a request of its own (notifications/cancelled). May be NULL. */
        void (*withdrawn)(struct upstream *u, struct mcp_slice id, void *user);
};

struct upstream_config {
        const char *name; /* of the server, for messages; copied */
        struct upstream_limits limits;
        int fd;                 /* stdio: the attach stream, framed towards us, raw towards the server; owned from here on */
        bool raw;               /* stdio: no frames towards us (tests, plain pipes) */
        struct in_addr address; /* HTTP */
        uint16_t port;
        const char *path;      /* copied */
        const char *tls_host;  /* HTTP over TLS: whose certificate is wanted, a name or an IPv4 address; copied. NULL = plain */
        char *const *tls_pins; /* "sha256//BASE64": public keys that are trusted instead of certificates; copied. NULL = none */
        bool sse;              /* HTTP: the older transport, one GET stream and an endpoint */
        char *const *headers;  /* HTTP: sent with every request (credentials); copied */
        /* HTTP: whose connections are used and kept; NULL = its own, which closes without a word. Borrowed. */
        struct upstream_pool *pool;
        bool legacy_only; /* begin with initialize: this server took server/discover badly before (upstream_probe_failed()) */
        /* What we declare as a client, legacy and modern: {"sampling":{},"elicitation":{},"roots":{…}}; absent = {}. Copied. */
        struct mcp_slice capabilities;
};

/* Connections to HTTP servers, shared by the sessions of a loop. Freed after all of them. */
/* ca_file: PEM, the authorities whose certificates are good, read when one is needed; copied. NULL: none is. */
_must_check_ int upstream_pool_new(struct upstream_pool **ret, sd_event *loop, const char *ca_file, struct err **err);
struct upstream_pool *upstream_pool_free(struct upstream_pool *p);
DEFINE_FREEP(struct upstream_pool *, upstream_pool_free)

/* -1 only when the descriptor or address is unusable; then fd stays the caller's. The handshake begins at once. */
_must_check_ int upstream_stdio_new(struct upstream **ret, sd_event *loop, const struct upstream_config *config,
                                    const struct upstream_events *events, void *user, struct err **err);
_must_check_ int upstream_http_new(struct upstream **ret, sd_event *loop, const struct upstream_config *config,
                                   const struct upstream_events *events, void *user, struct err **err);
/* Finishes all calls (done() is called), closes the session (DELETE on legacy HTTP, best effort). Safe from any callback. */
struct upstream *upstream_free(struct upstream *u);
DEFINE_FREEP(struct upstream *, upstream_free)

bool upstream_is_ready(const struct upstream *u);
enum mcp_era upstream_era(const struct upstream *u);
enum mcp_revision upstream_revision(const struct upstream *u);
/* The result of initialize or server/discover, scanned: capabilities, server_info, instructions. Lives as long as u. */
const struct mcp_message *upstream_info(const struct upstream *u);
unsigned upstream_calls(const struct upstream *u); /* in flight */
/*
 * The session ended in its handshake, after server/discover was sent: some legacy servers exit on a request that is not initialize. The
 * owner may try the next one with legacy_only.
 */
bool upstream_probe_failed(const struct upstream *u);
/* Lines and messages that were thrown away: no messages, answers to nothing that was asked, progress of no call. */
uint64_t upstream_ignored(const struct upstream *u);
/* The last bytes of standard error (stdio), for messages: escaped, owned, at most 500 bytes. */
char *upstream_stderr_tail(const struct upstream *u);

struct upstream_request {
        enum mcp_method method;
        const char *method_name;         /* used instead, for methods we do not know */
        struct mcp_slice params;         /* as the server is to see them, but for the progress token; may be absent */
        struct mcp_slice progress_token; /* inside params: replaced by one of ours; absent = none was asked for */
        struct mcp_slice name;           /* HTTP, modern: what Mcp-Name mirrors, a JSON string (inside params or not) */
        char *const *headers;            /* HTTP, modern: "Mcp-Param-X: v" */
        uint64_t timeout_ms;             /* without an answer or progress; 0 = for ever (subscriptions/listen) */
        uint64_t cap_ms;                 /* in all, whatever progress comes; 0 = for ever */
        /*
         * A progress note (with the caller's own token back in it, as text of its own), a notification of this subscription (modern; the
         * subscriptionId in it is our id), or whatever else came on this call's own stream. May cancel the call. May be NULL.
         */
        void (*notification)(struct upstream_call *call, const struct mcp_message *m, void *user);
        /*
         * Exactly once, last, unless cancelled: the answer, or why there is none. Never called from inside upstream_request(). call is gone
         * afterwards. The answer's id is ours: use ->result or ->error.
         */
        void (*done)(struct upstream_call *call, const struct mcp_message *answer, const struct err *why, void *user);
        void *user;
};

/* Only on a ready upstream. Never NULL: what cannot be sent ends in done(). */
struct upstream_call *upstream_request(struct upstream *u, const struct upstream_request *request);
void *upstream_call_user(const struct upstream_call *call);
/*
 * The caller lost interest: the server is told (notifications/cancelled, or the stream is closed); done() is not called, and call is gone.
 * reason may be NULL.
 */
void upstream_call_cancel(struct upstream_call *call, const char *reason);
/*
 * The server waits for somebody else (it asked the client something): it has ms from now instead of timeout_ms, or its own timeout again
 * with 0. The cap holds.
 */
void upstream_call_extend(struct upstream_call *call, uint64_t ms);
/* notifications/roots/list_changed and the like. params may be absent. What cannot be sent is dropped. */
void upstream_notify(struct upstream *u, const char *method, struct mcp_slice params);
/* Answers a request of the server: exactly one of result and error (whole JSON objects) is there. */
void upstream_answer(struct upstream *u, struct mcp_slice id, struct mcp_slice result, struct mcp_slice error);
