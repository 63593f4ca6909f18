/*
 * What the files of the gateway share. Who owns what:
 *
 *   gateway ─┬─ servers (catalogue, by name) ─┬ legs (one session with the server each; shared, or one per client session)
 *            │                                └ instances (of a server that has one for every session), a leg each
 *            ├─ sessions (legacy clients) ── calls in flight, asks, subscriptions
 *            ├─ listens (modern clients' notification streams)
 *            └─ held calls (modern clients' calls that wait for their next round)
 *
 * A call is one request in flight. It is linked into its reply (the HTTP exchange it is answered on), its session, its leg, or a queue;
 * whoever ends it calls call_free(), which unlinks it everywhere.
 */
#pragma once

#include <sodium.h>

#include "broker/gateway/gateway.h"
#include "broker/gateway/list.h"
#include "common/mcp/headers.h"
#include "common/mcp/message.h"
#include "common/mcp/revision.h"
#include "common/mcp/sse.h"

#define MAX_CALLS_SESSION 128U /* a legacy client's calls go on when it leaves: this bounds them */
#define MAX_ASKS_SESSION  64U
#define MAX_BATCH         64U
#define MAX_ROUNDS        16U /* of questions within one call */
#define MAX_SUBSCRIPTIONS 256U
#define MAX_SUBS_SERVER   4096U /* resources of one server that anybody is told the changes of */
#define MAX_URI           8192U /* bytes of one of those, as written */
#define ROUTE_SLOTS       4096U
#define N_CHANGES         3U    /* lists: tools, prompts, resources */
#define N_LATE            4U    /* those, and templates */
#define SOON_MS           2000U /* who asks for a list of many servers does not wait longer for one of them */
#define MAX_MERGES        8U    /* lists of all servers at once, of one legacy session: its parts are not counted among its calls */
#define MAX_HELD          1024U
#define MAX_TEXTS         8U /* times max_message: of requests that are under way, of all clients together; see gateway_charge() */
#define SMALL_TEXT        (16U << 10)
#define MAX_KEPT          (32U << 20) /* bytes of what servers said and no client has fetched yet */
#define HELD_MS           (10U * 60U * 1000U)
#define BACKOFF_MIN_MS    250U
#define BACKOFF_MAX_MS    (60U * 1000U)
#define SERVER_GONE       "it is not in the catalogue any more"

enum capability_bit { CAP_SAMPLING = 1, CAP_ELICITATION = 2, CAP_ELICITATION_URL = 4, CAP_ROOTS = 8 };
/* Severity of logging; LEVEL_NONE: nothing is sent. */
enum level { LEVEL_DEBUG, LEVEL_INFO, LEVEL_NOTICE, LEVEL_WARNING, LEVEL_ERROR, LEVEL_CRITICAL, LEVEL_ALERT, LEVEL_EMERGENCY, LEVEL_NONE };

struct call;
struct session;
struct merge;
struct tools;

struct gateway {
        sd_event *loop;
        struct upstream_pool *pool; /* of connections to HTTP servers */
        struct gateway_config config;
        struct gateway_controller controller;
        const struct gateway_guard *guard; /* NULL: there are no agents */
        bool link_up, freeing;
        struct server **servers; /* by name */
        size_t n_servers;
        struct list *buckets; /* of sessions, by id */
        struct list idle;     /* sessions, the longest unused first */
        unsigned n_sessions;
        struct list listens, held, downs, calls, learners;
        unsigned n_held, n_calls;
        sd_event_source *idle_timer, *held_timer, *down_timer, *learn_timer, *differs_timer;
        size_t charged, kept;
        uint64_t next_ask, n_serials;
        unsigned last_serial; /* of an instance */
        struct route {
                uint64_t hash;
                struct server *server;
        } * routes;                        /* ROUTE_SLOTS, or NULL */
        uint8_t key[crypto_auth_KEYBYTES]; /* of cursors and request states; dies with us */
        uint8_t hash_key[crypto_shorthash_KEYBYTES];
        struct gateway_counts counts;
};

/* -- server.c: one server of the catalogue ------------------------------------------------------------------------------------ */
struct server {
        struct gateway *g;
        struct channel_entry entry;
        char *prefix;   /* of names, where servers share an endpoint */
        char *last_why; /* why the last session never came about; NULL: it did */
        bool denied;    /* and that it will not be otherwise soon: nobody waits for the next try */
        struct leg *shared;
        struct list legs;
        struct list instances;
        unsigned n_instances;
        struct list waiting; /* calls, in the order of their deadlines */
        unsigned n_waiting;
        sd_event_source *wait_timer, *retry_timer, *idle_timer;
        uint64_t backoff_ms, used_ms;
        bool asked;         /* for a start */
        bool gone;          /* from the catalogue: what fails now is not to be tried again */
        bool legacy_only;   /* it ended on server/discover */
        bool known;         /* it was up once: */
        unsigned lacks;     /* kinds of things that it does not have */
        unsigned announces; /* kinds whose lists it says it tells changes of */
        struct tools *tools;
        bool told;  /* the guard knows its tools */
        bool stale; /* … and that they are as they once were */
        size_t n_pins;
        struct difference *differences; /* pins.c, sorted */
        size_t n_differences;
        bool differs_full, differs_untold, differs_anew;
        uint64_t differs_logged_ms;
        struct list subs;
        unsigned n_subs;
        struct change {
                uint64_t told_ms, pause_ms;
                bool pending;
        } changes[N_CHANGES]; /* of lists: what was told when, and what is still to be told */
        sd_event_source *change_timer;
        struct late *late[N_LATE]; /* late.c */
        unsigned awaited;          /* a set of them: a list is under way that nobody waits for any more */
        uint64_t calls, failed, timeouts, starts;
        unsigned in_flight;
        /* hung.c: when it answered last; when it was pinged, since when it cannot be spoken to (0: not so); when it may be renewed again */
        uint64_t answered_ms, pinged_ms, unreached_ms, renew_at_ms, renew_pause_ms;
};
enum server_kind { KIND_TOOLS = 1, KIND_PROMPTS = 2, KIND_RESOURCES = 4, KIND_COMPLETIONS = 8, KIND_LOGGING = 16 };
enum server_kind server_kind(const char *capability);
struct server *server_find(struct gateway *g, const char *name, size_t n);
struct server *server_free(struct server *s);
void server_update(struct gateway *g, const struct channel_entry *entry);
/* As if it had been told to be down; instances of sessions end, too. */
void server_down(struct server *s, const char *why);
void server_stream(struct server *s, unsigned serial, const char *instance, int fd);
void server_refused(struct server *s, unsigned serial, const char *why);
/* The session with it that c's client's requests go over, or NULL while there is none that is ready. */
struct leg *server_leg(struct server *s, const struct call *c);
void server_leg_ready(struct leg *l);
void server_leg_ended(struct leg *l, const struct err *why);
void server_used(struct server *s);
/* Nothing is to be had from it soon, so that a list should not wait for it. */
bool server_is_hopeless(const struct server *s);
bool server_has_tool(const struct server *s, struct mcp_slice name);

/* -- wait.c ------------------------------------------------------------------------------------------------------------------------ */
/* Calls then(c) with c->leg set, now or when the server is there; or fails c. */
void server_want(struct server *s, struct call *c, void (*then)(struct call *c));
/* Gets a session under way, if there is something to be done for it. */
void wait_wake(struct server *s);
/* A session is ready: what waits for it goes on. */
void wait_over(struct server *s);
void wait_failed(struct server *s, enum err_code code, const char *why);
/* c waits no more; wait_fail_taken() says so to all that were taken. */
void wait_take(struct call *c, struct list *taken);
void wait_fail_taken(struct server *s, struct list *taken, enum err_code code, const char *why);
/* Those that wait for a session of their own. */
void wait_failed_session(struct server *s, const struct session *session, const char *why);
/* Fails one call, in the name of its server. */
void wait_fail(struct call *c, enum err_code code, const char *why);

/* -- hung.c ----------------------------------------------------------------------------------------------------------------------- */
/* A call of it got no answer in time: is it still there? */
void hung_look(struct server *s);
/* The shared session ended before it was ready. */
void hung_unreached(struct server *s, const struct err *why);

/* -- instance.c: an instance of a server for every session ------------------------------------------------------------------------ */
struct instance {
        struct list in_server, in_session;
        struct server *server;
        struct session *session; /* whose it is; NULL: */
        uint64_t principal;      /* of modern clients */
        bool own;                /* the gateway's, for lists */
        unsigned serial;         /* that the controller knows it by; 0: it does not */
        struct leg *leg;         /* NULL: it is being started */
        bool again;              /* it was started anew, because it ended on server/discover */
        char *lost;              /* why it ended, which its session has not been told yet */
        uint64_t used_ms;
        sd_event_source *timer;
};
bool server_has_instances(const struct server *s);
/* As server_leg(). */
struct leg *instance_leg(const struct server *s, const struct call *c);
/* Of a legacy session, or of a modern principal (session NULL). NULL: there is none. */
struct instance *instance_of_client(const struct server *s, const struct session *session, uint64_t principal);
/* One that is ready: lists come from there. */
bool instance_client_has_one(const struct server *s, const struct call *c);
/* The one of c's client is gone, and c was failed to say so. */
bool instance_was_lost(struct server *s, struct call *c);
/* Its client's would be more than one agent may have, and c was failed to say so. */
bool instance_is_one_too_many(struct server *s, struct call *c);
/* c waits for its client's: it is on its way from now on. */
void instance_wake(struct server *s, struct call *c);
void instance_ready(struct instance *i);
void instance_used(struct instance *i);
/* Frees l. */
void instance_leg_ended(struct leg *l, const char *why);
void instance_stream(struct server *s, unsigned serial, const char *instance, int fd);
void instance_refused(struct server *s, unsigned serial, const char *why);
/* The controller went away: what is being started will not come. */
void instances_unlinked(struct server *s);
/* The controller is told. */
struct instance *instance_free(struct instance *i);
void instances_free(struct server *s);

/* -- leg.c: one session with a server ------------------------------------------------------------------------------------------ */
struct leg {
        struct list in_server, in_session;
        struct server *server;
        struct session *owner;        /* NULL: shared, or of an instance that no session has */
        struct instance *of_instance; /* or NULL */
        struct upstream *u;
        char *instance;
        bool ready;
        bool instructs; /* its instructions are the approved ones */
        enum mcp_era era;
        struct list calls, asks;
        struct upstream_call *listen; /* modern: our own subscription */
        sd_event_source *listen_timer, *subscribing_timer;
        uint64_t listened_ms;
        bool listen_counts;      /* the server has acknowledged it */
        struct list subscribing; /* calls that are answered when it has */
        enum level level;        /* legacy: what the server was told last */
        /* Of whom the server may still be at work, although nobody waits: ask.c. */
        uint64_t left_client, left_ms;
        uint64_t ready_ms;
};
/* i: whose stream it is; NULL: the server's. */
_must_check_ int leg_new_stdio(struct server *s, struct instance *i, const char *instance, int fd, struct err **err);
_must_check_ int leg_new_http(struct server *s, struct session *owner, struct err **err);
struct leg *leg_free(struct leg *l);
/* The member of the server's capabilities, or an absent slice. */
struct mcp_slice leg_capability(const struct leg *l, const char *name);

/* -- reply.c: the HTTP exchange that answers go to -------------------------------------------------------------------------------- */
struct reply {
        struct exchange *x; /* NULL: the client left */
        enum mcp_era era;
        bool streaming, batch, starting;
        struct list calls;
        struct buf items;
};
struct reply *reply_new(struct exchange *x, enum mcp_era era);
/* One message before the answer. */
void reply_event(struct reply *r, const char *text, size_t n);
/* c is answered with message (taken over; empty: without an answer) and leaves the reply. May free the reply. */
void reply_final(struct call *c, unsigned status, struct buf *message);
/* c's exchange, for good: c has no reply any more. NULL: the client left. */
struct exchange *reply_take(struct call *c);
/* Nothing more is added to a batch: answers it, when all is there. */
void reply_started(struct reply *r);
void reply_error(struct exchange *x, unsigned status, struct mcp_slice id, int code, const char *message);
void message_result(struct buf *out, struct mcp_slice id, struct mcp_slice result);
/* data: JSON, may be absent. */
void message_error(struct buf *out, struct mcp_slice id, int64_t code, const char *message, struct mcp_slice data);
struct mcp_slice slice_of_buf(const struct buf *b);

/* -- relay.c: one request in flight ------------------------------------------------------------------------------------------ */
struct call {
        struct list in_gateway, in_reply, in_session, in_leg, in_queue;
        struct gateway *g;
        struct server *server; /* NULL: not decided, or several */
        struct leg *leg;
        struct upstream_call *up;
        struct session *session; /* of a legacy client */
        struct reply *reply;
        struct buf text;   /* m points into it */
        size_t charged;    /* to the gateway */
        struct buf params; /* as the server gets them, when they differ from m.params */
        struct mcp_message m;
        enum mcp_method method;
        enum mcp_era era;
        uint64_t principal;              /* of a modern client: a hash of what it proves itself with */
        struct principal *who;           /* an agent; NULL: the operator, or nobody */
        void *ticket;                    /* the guard's, of what it let pass */
        size_t answered;                 /* bytes of the server's answer */
        uint64_t tokens;                 /* as servers reported them */
        bool decided, unwrapped, failed; /* by the guard; from harness_call_tool; no answer of the server */
        bool part, late;                 /* of a merged list; that list went out without it */
        bool aggregate, tools_seen, own; /* own: the gateway's, for no client */
        bool listing;                    /* looks at what there is: any instance will do */
        char *name;                      /* aggregate: the server's own name of what is asked for, as JSON */
        char *tried;                     /* aggregate: the last server that was asked; the next one is behind it, by name */
        unsigned rounds;
        uint8_t lacked;       /* capability_bit: what a legacy server asked for and the client cannot do */
        uint64_t deadline_ms; /* while it waits for the server */
        uint64_t timeout_ms;  /* instead of the configured one; 0: that one */
        void (*then)(struct call *c);
        /* Instead of relaying the answer; c is to be freed or answered by it. */
        void (*finish)(struct call *c, const struct mcp_message *answer, const struct err *why);
        void *user;        /* of an outside call: what the guard is told it is for */
        void *finish_user; /* of an outside call */
        /* While it waits in g->learners. */
        bool (*needs_tools)(const struct call *c, const struct server *s);
        void (*learned)(struct call *c);
        struct merge *merge;
        struct list asks; /* questions of the server that this call's client has not answered */
        struct down *down;
        struct held *held;
        char **headers; /* Mcp-Param-*, for the server */
};
struct call *call_new(struct gateway *g, struct reply *r, struct session *session, enum mcp_era era);
/* The request as it came; text is taken over. */
void call_take(struct call *c, struct buf *text, const struct mcp_message *m);
/* c keeps n more bytes of its client's. false: all clients keep too much already. Short ones always fit: their number is bounded. */
bool call_charge(struct call *c, size_t n);
/* Unlinks and frees; what is under way at the server is cancelled. */
struct call *call_free(struct call *c);
void call_send(struct call *c);
/* The same with these params (inside c->params or the message). */
void call_request(struct call *c, struct mcp_slice params);
void call_answer(struct call *c, struct mcp_slice result);
void call_error(struct call *c, int64_t code, const char *message, struct mcp_slice data);
void call_fail(struct call *c, const struct err *why);
/* Everything about who it is for is known: sends it to c->server. */
void call_dispatch(struct call *c);
/* Is a log line of that level to be shown to c's client? */
bool call_wants_log(const struct call *c, struct mcp_slice level);
/* The client wants no answer any more. */
void call_cancel(struct call *c, const char *reason);
/* The answer of c's server, as its client is to see it. */
void call_relay(struct call *c, const struct mcp_message *answer, const struct err *why);

/* -- route.c, legacy.c, modern.c: from an exchange to a call ---------------------------------------------------------------------- */
/* One request whose era's rules are kept. c->server is the endpoint's, NULL for all servers. */
void route_call(struct call *c);
/* Which server listed a resource's URI (a JSON string): remembered for some thousands, none is safe to be. */
void route_learn(struct gateway *g, struct mcp_slice uri, struct server *s);
struct server *route_find(struct gateway *g, struct mcp_slice uri);
void route_forget(struct gateway *g, const struct server *s);
/* Among all servers, would a call of s's own name (a JSON string), with its prefix, come to s? */
bool route_leads_to(const struct server *s, struct mcp_slice name);
/* A modern client's tools/call, whose server is known: its Mcp-Param headers are checked first. */
void modern_tool_call(struct call *c);
/* There is no such thing: answers c, in the same words whatever the reason. */
void route_unknown(struct call *c);
/* The next server that may know what c asks for; an answer "unknown" of one leads to the next. */
void route_try(struct call *c);
/* Each takes x over. text is taken over; m points into it. fault: what mcp_message_scan() found. */
void legacy_post(struct gateway *g, struct server *endpoint, struct exchange *x, struct buf *text, const struct mcp_message *m, int fault,
                 const struct err *why);
void legacy_get(struct gateway *g, struct server *endpoint, struct exchange *x);
void legacy_delete(struct gateway *g, struct server *endpoint, struct exchange *x);
void modern_post(struct gateway *g, struct server *endpoint, struct exchange *x, struct buf *text, const struct mcp_message *m);
/* Of what a modern client proves itself with. */
uint64_t principal_hash(const struct gateway *g, const char *text);

/* -- guard.c, own.c, learn.c: what agents may see and do ---------------------------------------------------------------------------- */
/* Who is behind x; NULL: the operator. Borrowed. */
struct principal *guard_who(const struct gateway *g, const struct exchange *x);
struct principal *guard_ref(const struct gateway *g, struct principal *who);
void guard_unref(const struct gateway *g, struct principal *who);
bool guard_same(const struct gateway *g, const struct principal *a, const struct principal *b);
/* "" for the operator. */
const char *guard_name(const struct gateway *g, const struct principal *who);
/* name: JSON string; absent: anything of that kind. The operator sees everything. */
bool guard_sees(const struct gateway *g, const struct principal *who, enum policy_kind kind, const struct server *s, struct mcp_slice name);
/* For a question of a server. needed: capability bits. */
bool guard_may_ask(const struct gateway *g, const struct principal *who, const struct server *s, unsigned needed);
/* Does a change of that list of this server's concern who? scope: as for the guard's lists. */
bool guard_cares(const struct gateway *g, const struct principal *who, const char *scope, const struct server *s, enum server_kind kind);
enum policy_kind guard_kind(const struct call *c);
/* The server's name of what c asks for, JSON. */
struct mcp_slice guard_target(const struct call *c);
/* The decision about c, once. s NULL: no server has it. false: c was answered; unknown() is how one says that it is not there. */
bool guard_admits(struct call *c, const struct server *s, void (*unknown)(struct call *c));
/* What the guard says in place of a server. */
void guard_answer(struct call *c, enum gateway_verdict verdict, const struct buf *text);
/* May c's agent be asked all that this result, "input required", asks? */
bool guard_may_be_asked(const struct call *c, struct mcp_slice result);
/* A server's answer to c, which the guard will be told of. */
void guard_count(struct call *c, const struct mcp_message *answer);
void guard_settle(struct call *c);
/* Settles what was decided, and forgets it: c goes to another server. */
void guard_again(struct call *c);
/* tools/call of an agent, with a name of the guard's own. */
bool own_is(const struct call *c);
void own_call(struct call *c);
void own_list(struct call *c);
/* harness_call_tool becomes the call that it carries. false: c was answered. */
bool own_unwrap(struct call *c);
/* Calls then(c) when the tools of the servers that needs() names are known, or will not be soon. */
void learn(struct call *c, bool (*needs)(const struct call *c, const struct server *s), void (*then)(struct call *c));
/* Somebody's tools are known, or will not be. */
void learn_more(struct gateway *g);

/* -- session.c: legacy clients ----------------------------------------------------------------------------------------------- */
struct session {
        struct list in_bucket, in_idle;
        struct gateway *g;
        struct server *server; /* NULL: all of them */
        struct principal *who; /* NULL: the operator */
        char id[33];
        uint8_t revision, capabilities, level;
        uint16_t n_calls, n_asks, n_subs, n_merges;
        uint64_t serial; /* never that of another one */
        struct exchange *stream;
        struct list calls, asks, legs, instances, subs;
        uint64_t used_ms;
};
struct session *session_new(struct gateway *g, struct server *server, struct principal *who);
struct session *session_find(struct gateway *g, const char *id);
struct session *session_free(struct session *s);
void session_used(struct session *s);
/* On its own stream; false when it has none. */
bool session_event(struct session *s, const char *text, size_t n);

/* -- ask.c: questions of servers to clients ------------------------------------------------------------------------------------- */
struct ask {
        struct list in_session, in_leg, in_call;
        struct session *session; /* legacy client that was asked; NULL: a modern one */
        struct leg *leg;         /* who waits for the answer; NULL: a modern server, whose call is retried */
        struct call *call;
        uint64_t id;   /* ours */
        char *id_text; /* the server's id, or the key in inputRequests; JSON */
        char *request; /* modern client: {"method":…,"params":…} */
        size_t kept;   /* its bytes, while they count */
};
/* The server was not done with c, a client's call, when it ended. */
void leg_abandoned(struct call *c);
/* The call of the only client that has something under way on l, its session in *ret; both NULL: none, or several. */
struct call *leg_only_client(struct leg *l, struct session **ret);
/* id: the server's id or key, copied. s: the legacy client. l: NULL for a modern server. */
struct ask *ask_new(struct gateway *g, struct call *c, struct session *s, struct leg *l, struct mcp_slice id);
/* As a request on the legacy client's stream; false: it has none. */
bool ask_send(struct ask *a, struct mcp_slice method, struct mcp_slice params);
void ask_request(struct leg *l, struct call *c, const struct mcp_message *m);
void ask_withdrawn(struct leg *l, struct mcp_slice id);
void ask_answered(struct session *s, const struct mcp_message *m);
/* Answers the legacy server: one of the two is there. Frees a. */
void ask_deliver(struct ask *a, struct mcp_slice result, struct mcp_slice error);
struct ask *ask_free(struct ask *a);
unsigned capability_bits(struct mcp_slice capabilities);
/* Which bits a request of a server needs; 0: a method we do not know. */
unsigned capability_needed(const struct mcp_message *m);

/* -- down.c: a modern server's input_required, for a legacy client ------------------------------------------------------------------ */
/* Asks c's client what answer wants, then sends c again. */
struct down;
void down_begin(struct call *c, const struct mcp_message *answer);
void down_answered(struct ask *a, const struct mcp_message *m);
void down_free(struct call *c);

/* -- seal.c: what clients keep for us ------------------------------------------------------------------------------------------------ */
enum seal_kind { SEAL_CURSOR, SEAL_STATE };
/* A JSON string that c's principal alone can bring back: a cursor for the same list, a state for the same request. Owned. */
char *seal_make(const struct call *c, enum seal_kind kind, const char *plain, size_t n);
/* What was sealed, NUL-terminated; owned. NULL: not one of ours, or somebody else's. */
char *seal_open(const struct call *c, enum seal_kind kind, struct mcp_slice text);
/* An agent's: appends the result with its requestState sealed. false: there is none to be sealed. */
bool state_seal(struct buf *out, const struct call *c, struct mcp_slice result);
/* The way back: c carries the server's own state again. false: it is none of this agent's. */
bool state_open(struct call *c);
#define STATE_IS_BAD "requestState is not valid (any more): call without it"

/* -- held.c: a legacy server's requests, for a modern client ------------------------------------------------------------------------- */
void held_ask(struct ask *a);
/* c carries a requestState for a legacy server. */
void held_resume(struct call *c);
bool held_is_ours(struct mcp_slice state);
/* The server's answer came while nobody was there. true: kept. */
bool held_keep(struct call *c, struct buf *message);
void held_free(struct call *c);

/* -- lists.c, tools.c ----------------------------------------------------------------------------------------------------- */
void merge_start(struct call *c);
/* Appends the elements of array that who may see. prefix: see there. */
void items_add(struct buf *out, struct server *s, enum mcp_method method, struct mcp_slice array, const char *prefix,
               struct principal *who);
void merge_free(struct call *c);
/* late.c: sub is a part of a merged list, which does not wait for it any more. May free it. */
void late_await(struct call *sub);
void late_over(const struct call *sub);
/* Somebody's is under way. */
bool late_pending(const struct server *s, enum mcp_method list);
/* A part that came in time: the newest of what is kept, if anything is. */
void late_refresh(struct call *sub, const struct mcp_message *answer);
/* The last one that is known, an array, and its cursor (JSON, NULL = none). Absent: none is known. Borrowed. */
struct mcp_slice late_list(struct server *s, enum mcp_method list, const char **next);
void late_forget(struct server *s);
/* Appends the result of a list as c's client is to see it: without what was not approved. false: as it is. */
bool list_filter(struct buf *out, struct call *c, const struct mcp_message *answer);
const char *list_member(enum mcp_method m); /* "tools" */
/* Calls then(c) when the names and header parameters of the server's tools are known, or cannot be. */
void tools_ensure(struct server *s, struct call *c, void (*then)(struct call *c));
/* Asks for them, if they are not known; nobody waits. */
void tools_load(struct server *s);
/* They are being asked for, since when (ms); 0: not now. */
uint64_t tools_loading(const struct server *s);
bool tools_are_known(const struct server *s);
/* Somebody goes on without them: when they come, they are news. */
void tools_missed(struct server *s);
void tools_changed(struct server *s);
/* A session begins. */
void tools_begin(struct server *s);
/* In this session they were read, or it was tried. */
bool tools_read(const struct server *s);
/* Tells the guard, who knows only what was approved. */
void tools_tell(struct server *s);
/* Takes what was remembered of a server that nobody has asked yet. */
void tools_recall(struct server *s);
/* Tells the guard whether what it knows is what the server would say now. */
void tools_judge_stale(struct server *s);
void tools_free(struct server *s);
/* The array of the last list, also when it may have changed since; absent: never read. */
struct mcp_slice tools_text(const struct server *s);
bool tools_know(struct server *s, struct mcp_slice name);
/* May it be called, as far as the approval binds what it is? *unsure: the list is not known now. */
bool tools_approved(struct server *s, struct mcp_slice name, bool *unsure);
/* Is it one that clients must reject, by basic/transports/streamable-http, "Schema Extension"? */
bool tools_broken(struct server *s, struct mcp_slice name);
const struct mcp_params *tools_params(struct server *s, struct mcp_slice name);

/* -- pins.c: what was approved of what a server lists ------------------------------------------------------------------------------ */
/* Elements of a list on its way to clients. false: it is not the approved one, and is left out. */
bool pins_admit(struct server *s, enum mcp_method list, struct mcp_slice item);
/* After a client's list: what it showed may be looked into. May free what is known of the server's tools. */
void pins_listed(struct server *s);
/* The same for one of the gateway's own list of tools, which is what calls are judged by. */
bool pins_tool(struct server *s, struct mcp_slice item);
bool pins_instructions(struct server *s, struct mcp_slice text);
/* May c, which asks for a prompt or a resource, not go to s? */
bool pins_withhold(const struct server *s, const struct call *c);
/* Before the tools are read anew; when the session or the approval is another one. */
void pins_forget_tools(struct server *s);
void pins_forget(struct server *s);
void pins_free(struct server *s);
/* The controller is there again, and knows of nothing. */
void pins_tell_all(struct gateway *g);

/* -- subs.c: what servers tell without being asked, and who hears it -------------------------------------------------------------- */
/* c, a resources/subscribe, before it goes to its server. true: it was answered. */
bool subs_subscribe(struct call *c);
void subs_subscribed(struct call *c);
void subs_unsubscribe(struct call *c);
void subs_session_free(struct session *s);
void subs_server_free(struct server *s);
void subs_leg_ready(struct leg *l);
/* A resource that the server is to tell the changes of. listen or session: who wants to know. false: that is one too many, or too long. */
struct listen;
bool subs_join(struct server *s, struct mcp_slice uri, struct session *session, struct listen *listen);
void subs_leave_all(struct list *subscribers);
/* Appends the member resourceSubscriptions, if there are any that l's clients want. */
void subs_uris(const struct leg *l, struct buf *out);
void subs_notification(struct leg *l, const struct mcp_message *m);
/* changes.c: a server says that a list changed; or it is there anew, and all may have. Other methods mean nothing. */
void changes_tell(struct leg *l, struct mcp_slice method);
void changes_all(struct server *s);
/* The gateway found out that it is another one than it said. */
void changes_list(struct server *s, enum mcp_method list);
/* A request of the gateway itself, over a session that is ready, whose answer nobody waits for. */
void own_request(struct leg *l, enum mcp_method method, const char *params);

/* -- listen.c: modern clients' subscriptions/listen, and ours to modern servers ------------------------------------------------------ */
struct listen {
        struct list in_gateway;
        struct gateway *g;
        struct server *server; /* NULL: all */
        struct principal *who; /* NULL: the operator */
        uint64_t principal;    /* as of its call */
        struct exchange *x;
        char *id;
        bool tools, prompts, resources;
        struct list subs;
};
void listen_start(struct call *c);
void listen_event(struct listen *l, const struct mcp_message *m);
/* Those of agents that do not count any more. */
void listens_review(struct gateway *g);
/* Those of one server, or all (NULL). */
void listens_free(struct gateway *g, const struct server *s);
/* Tells a modern server anew what it is to report. */
void leg_listen(struct leg *l);
/* The same for what changed: soon, and once for many changes. */
void leg_listen_anew(struct leg *l);
/* c subscribed: answered when the server has acknowledged what it was told last, or after two seconds. May be gone afterwards. */
void leg_answer_subscribed(struct leg *l, struct call *c);
/* No more of it; what waits for it is answered. */
void leg_listen_over(struct leg *l);

/* -- level.c, capability.c --------------------------------------------------------------------------------------------------------- */
void level_request(struct call *c);
void level_leg_ready(struct leg *l);
/* A modern client wants these lines of a legacy server. */
void level_at_least(struct leg *l, enum level level);
enum level level_find(struct mcp_slice s); /* LEVEL_NONE: none */
const char *level_name(enum level l);
void initialize_start(struct call *c);
void discover_start(struct call *c);
/* What we say of a client to a server. */
const char *capability_text(unsigned bits);
extern const char gateway_client_info[];

/* -- gateway.c: one-shot timers, made when they are first needed -------------------------------------------------------------------- */
void timer_arm(sd_event_source **source, sd_event *loop, uint64_t ms, sd_event_time_handler_t handler, void *user);
void timer_off(sd_event_source *source);

static inline uint64_t now_ms(sd_event *loop)
{
        uint64_t t = 0;

        (void)sd_event_now(loop, CLOCK_MONOTONIC, &t);
        return t / 1000;
}
