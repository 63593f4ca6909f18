/*
 * The gateway: endpoints that clients speak MCP to, and sessions to the servers behind them. Decides which server a request is for, starts
 * what sleeps, translates between eras, and gives every client answers to its own questions only. Used by bulkhead-broker.
 *
 * Endpoints: /servers/NAME/mcp for one server, its own names unchanged; /mcp for all of them, names prefixed.
 */
#pragma once

#include "broker/gateway/upstream.h"
#include "broker/http/front.h"
#include "common/link/channel.h"

struct gateway;

struct gateway_config {
        struct upstream_limits upstream;
        uint64_t call_timeout_ms; /* without an answer or progress */
        uint64_t call_cap_ms;     /* in all */
        uint64_t start_ms;        /* how long a caller waits for a server that is being started */
        unsigned max_sessions;    /* of legacy clients */
        uint64_t session_idle_ms; /* without a request or an open stream, then they end */
        unsigned max_waiting;     /* calls that wait for one server to come up */
};

/* What the gateway asks of the controller; the link's three words. */
struct gateway_controller {
        void (*start)(const char *name, void *user);
        void (*stop)(const char *name, void *user);
        void (*renew)(const char *name, const char *instance, void *user);
        void *user;
};

_must_check_ int gateway_new(struct gateway **ret, sd_event *loop, const struct gateway_config *config,
                             const struct gateway_controller *controller, struct err **err);
struct gateway *gateway_free(struct gateway *g);
DEFINE_FREEP(struct gateway *, gateway_free)

/* -- from the link ----------------------------------------------------------------------------------------------------------- */
/* A server is there, or changed. Copied. */
void gateway_server(struct gateway *g, const struct channel_entry *entry);
void gateway_server_gone(struct gateway *g, const char *name);
/* A fresh stream of a stdio server; owned. */
void gateway_stream(struct gateway *g, const char *name, const char *instance, int fd);
void gateway_refused(struct gateway *g, const char *name, const char *why);
/* The controller went away: what runs is used on; nothing can be started. Everything is told again when it is back. */
void gateway_link(struct gateway *g, bool up);

/* -- from the front ---------------------------------------------------------------------------------------------------------- */
/* A front_request_fn: takes every exchange whose path is one of its own; answers 404 to the rest. */
void gateway_exchange(struct exchange *x, void *gateway);

struct gateway_counts {
        uint64_t calls, failed, timeouts, starts;
        unsigned servers, servers_up, sessions, calls_in_flight, upstreams;
};
void gateway_counts(const struct gateway *g, struct gateway_counts *ret);
/* Prometheus text, a line set per server; appended. */
void gateway_metrics(const struct gateway *g, struct buf *out);
