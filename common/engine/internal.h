/*
 * What the files of common/engine/ share: the engine object, one call, and the hooks with which pulls, removals, event streams and attaches
 * are built out of calls. Nobody outside this folder includes it.
 *
 * Rule that keeps it safe: curl's callbacks only store bytes and flags. Everything that may run the owner's code (done, progress, events)
 * runs after curl returned, so that it may start and cancel calls as it likes.
 */
#pragma once

#include "common/curl_loop.h"
#include "common/engine/engine.h"

/* Transfers at a time; more wait in line. The Engine gains nothing beyond 8, and each costs a buffer of 16 KiB. */
#define ENGINE_PARALLEL    12
#define ENGINE_HEADER_MAX  (64U << 10)
#define ENGINE_MESSAGE_MAX 1024 /* bytes of an Engine's message that go into ours */
#define ENGINE_TIMEOUT_MS  30000
#define ENGINE_NO_TIMEOUT  UINT64_MAX

enum call_state {
        CALL_WAITING, /* in line, for a slot or for the version */
        CALL_RUNNING,
        CALL_PAUSED, /* its next try has a timer */
};

struct engine {
        sd_event *loop;
        char *socket_path;
        struct curl_loop *curl;
        sd_event_source *kick;     /* looks at the line on the loop's next turn */
        struct engine_call *calls; /* all, oldest first */
        struct engine_call *last;
        unsigned n_running; /* those that count against ENGINE_PARALLEL */
        unsigned n_sockets; /* open ones */
        uint64_t serial;
        bool negotiated; /* minor holds for the Engine we are connected to */
        struct engine_call *version_call;
        unsigned minor;
        char *version;
        bool podman;
        unsigned held; /* the owner may free us from inside a callback: wait until we are out of it */
        bool dead;
};

struct attach;

struct engine_call {
        struct engine *engine;
        struct engine_call *prev, *next;
        uint64_t serial;
        enum call_state state;
        bool unversioned;    /* the version call itself */
        bool no_slot;        /* lasts long by nature (events, pulls): does not count against ENGINE_PARALLEL */
        bool rejected;       /* the Engine refused our version once: another refusal is final */
        unsigned n_connects; /* tries that found the socket's queue full */
        unsigned held;       /* as in struct engine */
        bool dead;

        const char *method;
        char *what;   /* "POST /containers/create", for messages */
        char *target; /* path?query */
        char *body;
        size_t max_answer;
        uint64_t timeout_ms;

        CURL *easy;
        struct curl_slist *headers;
        struct buf answer; /* a sink's undelivered bytes, or the whole answer */
        size_t header_bytes;
        int http_status; /* of the answer as far as it came, 0 = none */
        bool over_limit;
        bool opened; /* 2xx headers are complete; told below */
        bool opened_told;
        char curl_error[CURL_ERROR_SIZE];

        struct err *failure; /* from call_fail_later() */
        sd_event_source *deadline;
        sd_event_source *again;

        /* Looks at an answer before the owner does. true: the call goes on (call_again() was called). It may replace what it gets. */
        bool (*step)(struct engine_call *c, int *status, json_object **body, struct err **err);
        /* Takes the bytes of a 2xx answer as they come; -1 ends the call with *err. */
        int (*sink)(struct engine_call *c, const char *data, size_t n, struct err **err);
        /* 2xx headers came. */
        void (*on_open)(struct engine_call *c);
        void *context; /* of the three above */
        void (*context_free)(void *context);
        struct attach *attach; /* speaks on a socket of its own instead */

        engine_done_fn done;
        void *user;
};

/* call.c */
struct engine_call *call_new(struct engine *e, const struct engine_request *request, engine_done_fn done, void *user);
/* Puts the call in line (it runs from the loop, not from here). */
void call_enqueue(struct engine_call *c);
/* Same call, another request; after delay_ms. The deadline stays. */
void call_again(struct engine_call *c, const char *method, const char *path, const char *query, json_object *body, uint64_t delay_ms);
/* Same call, same request, once more. */
void call_pause(struct engine_call *c, uint64_t delay_ms);
/* The call ends with err (owned), from the loop: for what is wrong before anything was sent. */
void call_fail_later(struct engine_call *c, struct err *err);
/* Ends the call. err (owned, may be NULL) and body (owned) are used up. */
void call_finish(struct engine_call *c, int status, json_object *body, struct err *err);
void call_hold(struct engine_call *c);
/* false: the call was cancelled meanwhile and is gone. */
bool call_release(struct engine_call *c);

/* transfer.c: a call's HTTP exchange with curl */
void transfer_start(struct engine_call *c);
void transfer_stop(struct engine_call *c);
void transfer_done(struct engine_call *c, CURLcode code);
/* Hands stored bytes and the opened flag to the call's hooks; false: the call ended. */
bool transfer_deliver(struct engine_call *c);

/* client.c */
void engine_kick(struct engine *e);
void engine_hold(struct engine *e);
/* false: the owner freed the engine meanwhile; it is gone. */
bool engine_release(struct engine *e);

/* version.c */
void version_start(struct engine *e);

/* answer.c: pure */
/* What an HTTP status and body mean. 0: *body (may be NULL) is theirs; -1: the status as an error with the Engine's message. */
_must_check_ int answer_parse(json_object **body, int status, const char *what, const char *data, size_t n, struct err **err);
/*
 * json_parse() for what an Engine sends: integers beyond 2^53 (timeNano of every event; limits that somebody set to the maximum) become
 * strings of their digits instead of an error.
 */
_must_check_ int answer_json(json_object **ret, const char *what, const char *data, size_t n, struct err **err);
/* Does an error's text contain one of the NULL-terminated parts, whatever the case? */
bool answer_says(const struct err *err, const char *const *parts);

/* attach.c */
void attach_start(struct engine_call *c);
void attach_free(struct attach *a);
/* The call is over: its error, if any, goes to the attach's own callback. */
void attach_finish(struct attach *a, struct err *err);
