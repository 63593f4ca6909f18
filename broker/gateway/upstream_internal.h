/*
 * What the files of upstream_*.c share: the session object, its calls, and the table behind which a transport stands. Nobody outside these
 * files includes it.
 *
 * Rules that keep it safe: the owner's callbacks run from the loop only, never from inside a function that the owner called (done() in
 * upstream_free() is the one exception), and whoever runs one holds the session (upstream_hold()) and looks at upstream_alive() afterwards.
 */
#pragma once

#include "broker/gateway/upstream.h"

/* Our name and version, as the server sees them. */
#define UPSTREAM_CLIENT "{\"name\":\"bulkhead\",\"version\":\"" PACKAGE_VERSION "\"}"
/* Buffers that a large message left behind are given back above this. */
#define UPSTREAM_KEEP (64U << 10)

/* One message towards the server. The parts are borrowed, and joined they are the message; raw line breaks in it are white space. */
struct outgoing {
        struct upstream_call *call; /* of a request; NULL: a notification or an answer */
        const char *method;         /* NULL: an answer */
        struct mcp_slice name;      /* see struct upstream_request */
        char *const *headers;
        struct mcp_slice parts[7];
        size_t n_parts;
        size_t n;       /* bytes in all */
        char head[256]; /* what parts point into */
        size_t n_head;
};

struct upstream_ops {
        /* Sends m or queues it. -1: it cannot be sent, and nothing of it was. Runs no callback. */
        int (*send)(struct upstream *u, const struct outgoing *m, struct err **err);
        /* Legacy: tells the server that the handshake is over, then calls upstream_settled(). */
        void (*settle)(struct upstream *u);
        /* The call is over, whatever the reason: nothing more of it is to be delivered. May be NULL. */
        void (*forget)(struct upstream *u, struct upstream_call *c);
        /* Before the end that upstream_end_later() asked for: takes what the server sent before. Runs callbacks. May be NULL. */
        void (*drain)(struct upstream *u);
        /* The session is over: nothing may come from the loop any more. Once. */
        void (*close)(struct upstream *u);
        /* After close(), when nobody is inside any more: the memory. */
        void (*destroy)(struct upstream *u);
        /* What stands in the way of the handshake, for messages. Borrowed; NULL = nothing known. May be NULL. */
        const char *(*trouble)(const struct upstream *u);
        char *(*last_words)(const struct upstream *u); /* owned; NULL when there can be none. May be NULL */
        bool closes_to_cancel;                         /* modern: a call's own stream is closed, and no notification sent */
        bool may_be_silent;                            /* no answer to the probe is an answer */
};

enum upstream_state {
        UPSTREAM_STARTING, /* handshake */
        UPSTREAM_READY,
        UPSTREAM_ENDED,
};

struct upstream {
        sd_event *loop;
        char *name;
        struct upstream_limits limits;
        struct upstream_events events;
        void *user;
        const struct upstream_ops *ops;
        void *transport; /* of ops */
        enum upstream_state state;
        unsigned held;
        bool dead; /* the owner freed it: destroyed when nobody holds it */
        bool failed_in_probe;

        /* upstream_handshake.c */
        char *capabilities;
        bool legacy_only, probed, retried;
        enum mcp_era era;
        enum mcp_revision revision;
        struct upstream_call *discover, *initialize;
        sd_event_source *handshake_timer;
        uint64_t handshake_until; /* microseconds of CLOCK_MONOTONIC */
        struct buf info_text;
        struct mcp_message info;

        /* upstream_call.c */
        struct upstream_call *calls;  /* that wait for an answer, newest first */
        struct upstream_call *doomed; /* that are going to fail, from the loop */
        struct upstream_call **table; /* by id; n_slots is a power of two */
        size_t n_slots;
        unsigned n_calls;
        uint64_t last_id;
        sd_event_source *deadline;
        uint64_t deadline_at; /* when it will ring; 0 = not at all */
        sd_event_source *kick;
        struct err *failure; /* the session ends with it, from the loop */

        /* upstream_message.c */
        unsigned noise;     /* in a row */
        unsigned abandoned; /* calls whose answer may still come */
        uint64_t ignored;
        struct buf note; /* a progress note with the caller's token */
};

struct upstream_call {
        struct upstream *upstream;
        struct upstream_call *prev, *next; /* in upstream->calls or ->doomed */
        struct upstream_call *next_in_slot;
        uint64_t id;
        enum mcp_method method;
        uint64_t timeout_ms, cap_ms;
        uint64_t due, cap; /* microseconds of CLOCK_MONOTONIC; UINT64_MAX = never */
        struct err *failure;
        bool is_doomed;
        bool unsaid;          /* the server does not know of it, or is not to be told that it is over */
        void *stream;         /* of the transport */
        unsigned http_status; /* of the answer, 0 = none */
        void (*notification)(struct upstream_call *call, const struct mcp_message *m, void *user);
        void (*done)(struct upstream_call *call, const struct mcp_message *answer, const struct err *why, void *user);
        void *user;
        size_t n_token; /* 0 = no progress was asked for */
        char text[];    /* the caller's token, then the method's name, NUL-terminated */
};

/* upstream.c */
_must_check_ int upstream_new(struct upstream **ret, sd_event *loop, const struct upstream_config *config,
                              const struct upstream_events *events, void *user, struct err **err);
void upstream_hold(struct upstream *u);
/* false: it is gone. */
bool upstream_release(struct upstream *u);
static inline bool upstream_alive(const struct upstream *u)
{
        return !u->dead && u->state != UPSTREAM_ENDED;
}
/* Ends the session: every call fails with why (owned), then the owner is told. From the loop only, held. */
void upstream_end(struct upstream *u, struct err *why);
/* The same, from wherever: on the loop's next turn. */
void upstream_end_later(struct upstream *u, struct err *why);
void upstream_kick(struct upstream *u);

/* upstream_call.c */
uint64_t upstream_now(const struct upstream *u);
/* Without the checks of upstream_request(). */
struct upstream_call *call_start(struct upstream *u, const struct upstream_request *request);
struct upstream_call *call_find(const struct upstream *u, uint64_t id);
const char *call_method(const struct upstream_call *c);
/* Ends the call: done(). One of the two is NULL. From the loop only, held. */
void call_finish(struct upstream_call *c, const struct mcp_message *answer, const struct err *why);
/* It will fail with why (owned), from the loop. */
void call_doom(struct upstream_call *c, struct err *why);
void call_finish_doomed(struct upstream *u);
/* There was progress: its time starts anew. */
void call_extend(struct upstream_call *c);
/* Frees without done(); what the server needs to know has been told. */
void call_discard(struct upstream_call *c);
void calls_deinit(struct upstream *u);
_must_check_ int calls_init(struct upstream *u, struct err **err);
/* Whole JSON values; params may be absent. */
void outgoing_note(struct outgoing *o, const char *method, struct mcp_slice params);

/* upstream_message.c */
/*
 * Takes text from the server: one message, or what should be one. on: whose stream it came on, NULL = nobody's. Runs callbacks: held.
 */
void upstream_receive(struct upstream *u, struct upstream_call *on, const char *text, size_t n);
/* The call whose id, or progress token, this is as written; NULL = none. */
struct upstream_call *upstream_own_call(const struct upstream *u, struct mcp_slice id);
/* Something that is neither a message nor an answer; too much of it in a row ends the session. */
void upstream_noise(struct upstream *u);

/* upstream_handshake.c */
_must_check_ int handshake_start(struct upstream *u, struct err **err); /* its clock */
void handshake_go(struct upstream *u);                                  /* its first message */
/* An error without an id came: it can only be about what the handshake asked. false: there is no handshake. */
bool handshake_take_error(struct upstream *u, const struct mcp_message *m);
/* The server knows that the handshake is over. Runs callbacks: held. */
void upstream_settled(struct upstream *u);
void handshake_deinit(struct upstream *u);
