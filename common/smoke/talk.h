/*
 * The conversation of a smoke test: which era the server speaks, everything it offers, one harmless call if the entry asks for it.
 * Runs in the helper bulkhead-smoke-talk only, blocking, with one deadline over all; the transports are behind struct talk_io.
 *
 * Source: MCP specification 2026-07-28 (server/discover, basic/versioning) and 2025-11-25 (basic/lifecycle).
 */
#pragma once

#include "common/json.h"
#include "common/smoke/talk_manifest.h"

#define TALK_MODERN          "2026-07-28"
#define TALK_LEGACY          "2025-11-25" /* the newest revision with a handshake: what we offer */
#define TALK_STDERR_TAIL     4096U
#define TALK_MAX_AUTHORITIES (4U << 20)
#define TALK_MAX_NOISE       200U /* lines on standard output that are no messages */

enum talk_transport { TALK_STDIO, TALK_HTTP, TALK_SSE };

struct talk_config {
        enum talk_transport transport;
        char *address; /* HTTP: dotted IPv4 of the container, for the Host header; who is really connected to is the parent's business */
        uint16_t port;
        char *path;
        char *tls_host;    /* HTTP over TLS: whose certificate is wanted; NULL = plain */
        char **tls_pins;   /* "sha256//BASE64" of public keys that are trusted instead; NULL = none */
        char *authorities; /* HTTP over TLS without pins: PEM, those who may vouch for the host */
        size_t n_authorities;
        char **headers;      /* HTTP: "Name: value", sent with every request; NULL = none */
        json_object *call;   /* {"tool", "arguments"} or NULL */
        uint64_t timeout_ms; /* of everything */
        uint64_t probe_ms;   /* how long a stdio server may stay silent on server/discover */
        uint64_t settle_ms;  /* how long we listen for list changes after the last list */
        bool external;       /* HTTP: it was not started for this test, so one that does not listen now is not waited for */
        bool output;         /* HTTP: descriptor 4 is the attach stream, to be drained */
        size_t max_bytes;    /* everything the server may write, both streams together; also of one message */
};
/* From the request on the helper's standard input. */
_must_check_ int talk_config_parse(struct talk_config *ret, const char *text, size_t n, struct err **err);
void talk_config_deinit(struct talk_config *c);

struct talk_outgoing {
        json_object *message; /* borrowed */
        const char *method;   /* NULL: this is an answer to the server */
        const char *name;     /* of the tool called, or NULL */
        const char *protocol; /* agreed or offered revision, NULL before */
        char *const *params;  /* further headers for HTTP (talk_param_headers()), or NULL; borrowed */
        bool modern, request;
};
/* "Mcp-Param-NAME: value" for every argument that the tool's inputSchema marks so; owned, NULL = none. */
char **talk_param_headers(json_object *schema, json_object *arguments);

/* A way to the server. */
struct talk_io {
        /* Queues or sends. -1: the way is broken. */
        int (*send)(void *self, const struct talk_outgoing *m, struct err **err);
        /*
         * Waits until `until` (CLOCK_MONOTONIC ms) for one message: 0 *text (owned), *n, *status of 400 and above when an HTTP error
         * carried it. 1 time is up. 2 the request was turned down without a message (HTTP; *status says how). -1 the way is broken or a
         * bound was reached.
         */
        int (*receive)(void *self, char **text, size_t *n, long *status, uint64_t until, struct err **err);
        void *self;
};

struct talk_result {
        bool passed;
        char *why; /* not passed; foreign text in it escaped */
        char *protocol;
        char *manifest;
        char **tools;
};
void talk_result_deinit(struct talk_result *r);
/* Never fails: what went wrong is in the result. */
void talk_run(struct talk_result *ret, const struct talk_config *config, const struct talk_io *io);

uint64_t talk_now_ms(void);

/* -- transports ----------------------------------------------------------------------------------------------------------- */
struct talk_stdio;
/* fd: the attach stream, framed towards us, raw towards the server; stays the caller's. */
struct talk_stdio *talk_stdio_new(int fd, size_t max_bytes, struct talk_io *io);
struct talk_stdio *talk_stdio_free(struct talk_stdio *t);
DEFINE_FREEP(struct talk_stdio *, talk_stdio_free)
/* For a server that speaks HTTP: reads what is there and keeps only the tail of standard error. 1 = the server has ended. */
_must_check_ int talk_stdio_drain(struct talk_stdio *t, struct err **err);
/* The last TALK_STDERR_TAIL bytes of standard error, owned, raw. */
char *talk_stdio_stderr(const struct talk_stdio *t, size_t *n);

struct talk_http;
/* fd: where connections are asked for (talk_connection_get()); stays the caller's. output: what the server writes beside, on output_fd;
 * NULL = unknown. */
_must_check_ int talk_http_new(struct talk_http **ret, int fd, struct talk_stdio *output, int output_fd, const struct talk_config *config,
                               struct talk_io *io, struct err **err);
struct talk_http *talk_http_free(struct talk_http *t);
DEFINE_FREEP(struct talk_http *, talk_http_free)

/*
 * One byte asks, one message answers: TALK_CONNECTED with the descriptor, or another byte without.
 * The parent connects, so that the helper needs no socket() and cannot choose whom to reach.
 */
#define TALK_MAX_CONNECTIONS 32U
#define TALK_ASK             'c'
#define TALK_CONNECTED       '+'
#define TALK_REFUSED         '-' /* nobody listens (yet): ask again, the parent has waited a little */
#define TALK_EXHAUSTED       '!'
/* 0: *ret is a connected descriptor. 1: refused. -1: no more, or the parent is gone. Waits until `until`. */
_must_check_ int talk_connection_get(int *ret, int fd, uint64_t until, struct err **err);

/* -- confinement ---------------------------------------------------------------------------------------------------------- */
/* From here on: no socket, open, exec, fork, ptrace; what is already open can be used, and memory. */
_must_check_ int talk_confine(struct err **err);
/* Tries what must fail; returns the number of things that did not, each named on standard error. fd: an unconnected UDP socket made before.
 */
int talk_confine_check(int fd);
