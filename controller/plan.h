/*
 * The pure middle of the loop: from what should be and what is, the actions that are missing, server by server. No effects, no clock, no
 * randomness: everything it looks at is in its input. Used by the controller; tested without mocks.
 */
#pragma once

#include "common/address.h"
#include "controller/desired.h"
#include "controller/observe.h"

enum action_kind {
        ACTION_EGRESS,  /* put the instance's rules in force and read them back */
        ACTION_IMAGE,   /* pull by digest unless it is here; compare with the record */
        ACTION_SMOKE,   /* smoke test in quarantine, manifest compared with the record */
        ACTION_NETWORK, /* create its network */
        ACTION_CREATE,  /* create its container and inspect it against the spec */
        ACTION_VERIFY,  /* inspect an existing container against the spec before it starts */
        ACTION_STOP,    /* end a container that is started again: its session is lost */
        ACTION_START,
        ACTION_REMOVE, /* end and remove a container */
        ACTION_NETWORK_REMOVE,
        ACTION_EGRESS_REMOVE, /* take the rules of a bridge away */
};
const char *action_name(enum action_kind kind); /* "create" */

struct action {
        enum action_kind kind;
        char *object; /* what is shown: a container's, network's or image's name */
        char *id;     /* Engine id, or a bridge for ACTION_EGRESS_REMOVE; NULL where the action makes the object */
        char *reason;
};

enum server_state {
        SERVER_RUNNING,
        SERVER_STARTING,
        SERVER_STOPPED,
        SERVER_DISABLED,
        SERVER_WAITING,
        SERVER_REFUSED,
        SERVER_QUARANTINED,
        SERVER_BLOCKED,
        SERVER_ERROR,
        SERVER_REMOVED
};
const char *server_state_name(enum server_state s); /* "running" */

/* What the controller knows of a server beside the desired and the observed. */
struct plan_facts {
        bool image_ok;             /* image is here and is what the record says */
        const char *image_refused; /* image is here and is not what the record says: why */
        const char *smoked;        /* manifest hash of the smoke test of this very spec; NULL = not made */
        bool test_again;           /* `smoked` is from before this approval: if it does not fit, test once more before saying so */
        bool asked;                /* external servers: it answered the last time we asked what it offers, for this approval */
        bool ask;                  /* external servers: it is time to ask */
        const char *subnet;        /* for a new network; taken from the pool by the caller */
        bool egress_ok;            /* guard and policy as a whole are in force */
        const char *egress_error;
        bool rules_ok;        /* this instance's rules are in force */
        bool rules_there;     /* external servers: some rules of it are there, perhaps only as a former process left them */
        char *const *smoking; /* spec hashes that are in a smoke test now: their containers and networks are not orphans */
        bool called;          /* on-demand servers: somebody wants it to run */
        bool linked;          /* stdio servers: there is a broker, which holds the stream of what runs of them, or there is no session */
        const char *session;  /* id of the container whose stream it holds; NULL = of none */
        const char *hung;     /* HTTP servers: the instance that does not answer, as the broker says; NULL = none */
        bool session_fresh;   /* since the look began: what was seen of that container is from before it started */
};

struct plan_server {
        char *name;
        enum server_state state;
        char *why; /* for status; NULL when all is well */
        struct action *actions;
        size_t n_actions;
        char *container; /* name and id of the current instance; NULL when none */
        char *id;
        char *address;
        char *bridge;
        char *instance; /* 12 hex: this run of this container, or this approved place; NULL when it does not run */
        char *older;    /* id of a former instance that goes on until the wanted one runs; NULL when none */
        time_t started_at;
        char **drift;
        bool urgent;  /* something runs that must not: no backoff of a start holds up its end */
        bool crashed; /* the current instance ended by itself or by a foreign hand: count it for the backoff */
};

struct plan_input {
        const struct desired *desired;
        const struct desired_server *server; /* NULL: nothing declares it any more */
        const char *name;
        const struct observed *observed;
        struct plan_facts facts;
        time_t now;
};

/* One server. Owned. */
struct plan_server *plan_server(const struct plan_input *in);
struct plan_server *plan_server_free(struct plan_server *p);
DEFINE_FREEP(struct plan_server *, plan_server_free)
void action_deinit(struct action *a);
/* Does a server need a new network, and so an address? called: as in plan_facts. */
bool plan_needs_subnet(const struct desired_server *server, const struct observed *observed, bool called);
