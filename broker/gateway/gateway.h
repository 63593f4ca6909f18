/*
 * The gateway: endpoints that clients speak MCP to, and sessions to the servers behind them. Decides which server a request is for, starts
 * what sleeps, translates between eras, and gives every client answers to its own questions only. Used by bulkhead-broker.
 *
 * Endpoints: /servers/NAME/mcp for one server, its own names unchanged; /mcp for all of them, names prefixed.
 */
#pragma once

#include "broker/gateway/cache.h"
#include "broker/gateway/upstream.h"
#include "broker/http/front.h"
#include "common/link/channel.h"
#include "common/policy/policy.h"

struct gateway;

struct gateway_config {
        struct upstream_limits upstream;
        uint64_t call_timeout_ms;     /* without an answer or progress */
        uint64_t call_cap_ms;         /* in all */
        uint64_t start_ms;            /* how long a caller waits for a server that is being started */
        unsigned max_sessions;        /* of legacy clients */
        uint64_t session_idle_ms;     /* without a request or an open stream, then they end */
        unsigned max_waiting;         /* calls that wait for one server to come up */
        unsigned max_agent_instances; /* of one server that has an instance for every session; 0: as many as there may be */
        const char *ca_file;          /* PEM: the authorities whose certificates external servers may have; copied */
        struct tool_cache *cache;     /* borrowed; NULL: nothing is remembered over a restart */
};

/* What the gateway asks of the controller, the link's three words; and what it tells. serial: of one instance of a server that has many;
 * else 0. */
struct gateway_controller {
        /* lists: an instance that no session has, to look at what there is. */
        void (*start)(const char *name, unsigned serial, bool lists, void *user);
        void (*stop)(const char *name, unsigned serial, void *user);
        void (*renew)(const char *name, const char *instance, void *user);
        /* What the server offers otherwise than approved, now: n texts, at most CHANNEL_MAX_DIFFERS of them. Borrowed. */
        void (*differs)(const char *name, const char *const *what, size_t n, void *user);
        void *user;
};

_must_check_ int gateway_new(struct gateway **ret, sd_event *loop, const struct gateway_config *config,
                             const struct gateway_controller *controller, struct err **err);
struct gateway *gateway_free(struct gateway *g);
DEFINE_FREEP(struct gateway *, gateway_free)

/* -- the guard ------------------------------------------------------------------------------------------------------------------ */
/*
 * Who stands between agents and servers. An exchange that has an identity (exchange_identity()) is an agent's, and that identity its
 * principal: for it the guard is asked about everything that may be seen or done. Exchanges without one are the operator's; nobody is
 * asked.
 */
struct principal; /* the guard's; counted */

struct gateway_question {
        struct principal *who;
        enum policy_kind kind;
        const char *server;         /* "": no server has such a name */
        const char *name;           /* the server's own name of a tool or prompt, or a resource's URI; plain text */
        struct mcp_slice arguments; /* of tools and prompts, as sent; may be absent */
        void *request;              /* gateway_call(): its user; else NULL */
};
enum gateway_verdict {
        GATEWAY_PASS,    /* do it; *ticket (may be NULL) is settled when it is over, however it ends */
        GATEWAY_UNKNOWN, /* there is no such thing */
        GATEWAY_RESULT,  /* *answer is the result, JSON */
        GATEWAY_ERROR,   /* *answer is a sentence for the caller */
};
enum gateway_standing {
        GATEWAY_COUNTS,
        GATEWAY_EXPIRED, /* nothing more is begun, and streams end; calls that were let pass go on */
        GATEWAY_REVOKED, /* those end, too */
};
struct gateway_guard {
        struct principal *(*ref)(struct principal *who);
        void (*unref)(struct principal *who);
        /* What tells agents apart: sessions, cursors and states of one are no good for another. Borrowed. */
        const char *(*name)(const struct principal *who);
        /* Does what who came with still count? */
        enum gateway_standing (*standing)(const struct principal *who, void *user);
        /* In lists, notifications, and for questions of servers. name NULL: could anything of this kind and server be? */
        bool (*visible)(const struct principal *who, enum policy_kind kind, const char *server, const char *name, void *user);
        enum gateway_verdict (*decide)(const struct gateway_question *q, void **ticket, struct buf *answer, void *user);
        /* bytes: of the server's answer, 0 when there was none. tokens: as its _meta reports them (GATEWAY_META_TOKENS), or 0. */
        void (*settle)(void *ticket, size_t bytes, uint64_t tokens, bool failed, void *user);
        /* The server's approved tools, an array; absent: it is gone. Their names begin with the prefix. */
        void (*tools)(const struct channel_entry *server, const char *prefix, struct mcp_slice array, void *user);
        /* Its tools are as it listed them once, and it cannot be asked now, or was not yet; or that is over. */
        void (*stale)(const char *server, bool stale, void *user);
        /* Are tools of this server in the agent's tools/list? scope: names the session; NULL: the principal's own. */
        bool (*lists)(const struct principal *who, const char *scope, const char *server, void *user);
        /* Appends the elements of that list. */
        void (*list)(const struct principal *who, const char *scope, struct buf *out, void *user);
        /* The guard's own tools. GATEWAY_RESULT with *changed: tools/list of this scope is another now. */
        bool (*is_own)(const char *name);
        enum gateway_verdict (*own)(const struct gateway_question *q, const char *scope, struct buf *answer, bool *changed, void *user);
        void *user;
};
#define GATEWAY_META_TOKENS "io.bulkhead/tokens"
#define GATEWAY_CALL_TOOL   "harness_call_tool" /* of the guard's own; the gateway unwraps it: {"name": …, "arguments": {…}} */
/* Borrowed; before the first exchange with an identity. */
void gateway_set_guard(struct gateway *g, const struct gateway_guard *guard);

/* Ends what belongs to agents that do not count any more: after a change, and now and then, since tokens expire. */
void gateway_review(struct gateway *g);

/* -- calls of doors that do not speak MCP ---------------------------------------------------------------------------------------- */
struct gateway_request {
        struct principal *who;      /* referenced */
        struct mcp_slice name;      /* JSON string: "server:tool", or as lists have it. Copied. */
        struct mcp_slice arguments; /* JSON, checked. Copied. */
        /* Once: the result, or an error of the server (code), or of ours (code 0). */
        void (*done)(void *user, struct mcp_slice result, int64_t code, const char *message);
        void *user;
};
struct call;
/* May be done before it returns: then NULL. */
struct call *gateway_call(struct gateway *g, const struct gateway_request *request);
/* Nobody wants it any more; done() is not called. */
void gateway_call_cancel(struct call *c);
/* Is there room for a request of n bytes more? All callers of all doors share it. */
bool gateway_has_room(const struct gateway *g, size_t n);
/* Calls then(user) when the tools of all servers that who may see are known, or will not be soon. May be at once: then NULL. */
struct call *gateway_learn(struct gateway *g, struct principal *who, void (*then)(void *user), void *user);

/* -- from the link ----------------------------------------------------------------------------------------------------------- */
/* A server is there, or changed. Copied. */
void gateway_server(struct gateway *g, const struct channel_entry *entry);
void gateway_server_gone(struct gateway *g, const char *name);
/* A fresh stream of a stdio server, or of one of its instances; owned. */
void gateway_stream(struct gateway *g, const char *name, unsigned serial, const char *instance, int fd);
void gateway_refused(struct gateway *g, const char *name, unsigned serial, const char *why);
/* The controller went away: what runs is used on; nothing can be started. Everything is told again when it is back. */
void gateway_link(struct gateway *g, bool up);
/* It was away for so long that what it told does not count any more: every server is down, for this reason, until it is told again. */
void gateway_link_stale(struct gateway *g, const char *why);

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
