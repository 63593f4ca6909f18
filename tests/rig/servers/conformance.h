/*
 * The rig's full MCP server: everything that the public conformance suite asks of a server, in both protocol eras, over stdio and
 * streamable HTTP, whole or split over several processes. Stands on its own (nothing of common/mcp), so that it cannot share a mistake
 * with what it tests. A thread for every request, because tools wait: for time, or for the client's answers. Private to mcp_conformance;
 * test code, never installed.
 *
 * Threads share no JSON value that is being written to or counted: what crosses is text, or is handed over under the lock.
 */
#pragma once

#include <pthread.h>
#include <sodium.h>

#include "common/json.h"

#define MODERN        "2026-07-28"
#define NEWEST_LEGACY "2025-11-25"
#define META(name)    "io.modelcontextprotocol/" name

#define PARSE_ERROR         (-32700)
#define INVALID_REQUEST     (-32600)
#define METHOD_NOT_FOUND    (-32601)
#define INVALID_PARAMS      (-32602)
#define RESOURCE_NOT_FOUND  (-32002)
#define HEADER_MISMATCH     (-32020)
#define MISSING_CAPABILITY  (-32021)
#define UNSUPPORTED_VERSION (-32022)

struct server {
        bool legacy, modern;
        bool stdio;
        unsigned part, parts; /* 1 of 1: everything */
        unsigned page;        /* entries of one page of a list; 0: all */
        /*
         * What a gateway puts before each part's names of tools and prompts, by part; NULL: nothing. A part has the names that begin with
         * its own more than with another's, without it: so that the gateway makes the names of the suite out of them.
         */
        char **prefixes;
        unsigned char key[crypto_auth_KEYBYTES];
        pthread_mutex_t lock;
        pthread_cond_t changed; /* whatever somebody may wait for */
        struct session *sessions;
        struct listener *listeners;
        struct call *calls;
        bool more_tools, more_prompts; /* flipped by tools that change the lists */
        unsigned questions;            /* numbers them */
        unsigned cancelled;            /* waits that ended because the client did not want them any more */
};

/* A legacy client's. Lives until the process ends once made: only `ended` tells that it is over. */
struct session {
        struct session *next;
        char id[33];
        bool ended;
        const char *revision;
        json_object *capabilities; /* of the client; read only */
        int log_level;
        char **watched; /* resources */
        struct question *questions;
};

/* Something that change notifications are told to: a modern subscription, a legacy GET stream, a legacy stdio session. */
enum change { CHANGE_TOOLS, CHANGE_PROMPTS, CHANGE_RESOURCE };
struct listener {
        struct listener *next;
        struct session *session; /* legacy; NULL: modern, then id and filter count */
        char *id;                /* as JSON */
        bool tools, prompts;
        char **watched;
        char **waiting; /* texts to be sent */
};

/* One request under way, and how to speak to whoever made it. On the stack of its thread. */
struct call {
        struct call *next;
        struct server *server;
        struct session *session; /* legacy */
        bool modern;
        bool opens;               /* this was initialize: session is new */
        json_object *id, *params; /* borrowed */
        bool cancelled;
        /* Sends a message ahead of the answer; false: nobody is there any more. */
        bool (*send)(struct call *c, const char *text);
        /* May be NULL: is the client still there? */
        bool (*alive)(struct call *c);
        void *transport;
        /* Why there is no result. */
        int64_t error;
        const char *message;
        json_object *data;
        /* Questions to the client: answers of earlier rounds, and which round this is. */
        json_object *earlier;
        unsigned round;
        json_object *asked; /* modern: the result that asks */
};

/* -- conformance_serve.c ------------------------------------------------------------------------------------------------------ */
/* HTTP only; all may be NULL. */
struct headers {
        const char *version, *session, *method, *name;
        const char *text; /* all of them, for Mcp-Param-… */
};
/*
 * The answer to one message (owned), NULL when there is none. c has server, send, alive and transport. h: NULL on stdio.
 * *status: for HTTP.
 */
char *serve(struct call *c, const char *text, size_t n, const struct headers *h, int *status);
/* A header of the text by name, without white space around it; owned. */
char *header_value(const char *headers, const char *name);

/* -- conformance_session.c ---------------------------------------------------------------------------------------------------- */
struct session *session_new(struct server *s, json_object *params);
struct session *session_find(struct server *s, const char *id); /* id NULL: the newest, on stdio the only one. NULL: unknown or ended */
void session_end(struct server *s, struct session *session);
/* A response of the client; takes m over. */
void session_answered(struct server *s, struct session *session, json_object *m);
/* Asks the client all of `asks` ({key: request}) at once: {key: result}, owned; NULL: *why it was not answered. */
json_object *session_ask(struct call *c, json_object *asks, const char **why);
void call_begin(struct call *c);
void call_end(struct call *c);
void call_cancel(struct server *s, json_object *id);
/* Waits; false when the call was cancelled before its time. */
bool call_sleep(struct call *c, unsigned ms);
void announce(struct server *s, enum change what, const char *uri);
/* Passes on what is announced until the call is over. l->next is the server's. */
void listen_until_end(struct call *c, struct listener *l);

/* -- conformance_ask.c -------------------------------------------------------------------------------------------------------- */
enum { ASK_STATELESS = 1 }; /* modern: without requestState */
/*
 * The client's answers to these questions, {key: result}; owned. NULL: the caller returns NULL too; what is to be sent instead lies in c.
 * In the modern era a call is run again from its start once the answers are there, and earlier rounds are answered from requestState.
 */
json_object *ask(struct call *c, const char *asks, int flags);
/* Checks and takes what an earlier round left in requestState. -1: c->error. */
int ask_begin(struct call *c, const char *what);
void ask_end(struct call *c);
bool client_can(struct call *c, const char *capability);
/* Returns NULL. data is taken over. */
json_object *refuse(struct call *c, int64_t code, const char *message, json_object *data);

/* -- conformance_tools.c, conformance_offer.c --------------------------------------------------------------------------------- */
json_object *text_result(const char *text, bool failed);
json_object *parse(const char *text);  /* own literals only */
const char *json_text(json_object *o); /* borrowed, until o changes */
void log_line(struct call *c, int level, const char *text);
int level_find(const char *name); /* 0 debug … 7 emergency; -1 */

struct tool {
        const char *name, *description, *schema;
        const char *content; /* the whole result; or: */
        json_object *(*run)(struct call *c, json_object *arguments);
};
extern const struct tool tools[];
extern const size_t n_tools;
/* Entry i of a table, called name: what this part calls it, or NULL when another part has it. */
const char *offered(const struct server *s, size_t i, const char *name);
json_object *offer_capabilities(const struct server *s);
json_object *offer_list(struct call *c, const char *method);
json_object *offer_prompt(struct call *c);
json_object *offer_resource(struct call *c);
json_object *offer_completion(struct call *c);
/* -1: c->error */
int offer_has_resource(struct call *c, const char *uri);

/* -- conformance_http.c ------------------------------------------------------------------------------------------------------- */
int serve_http(struct server *s, unsigned port);
