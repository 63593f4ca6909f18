/*
 * What the gateway stands between, played by the test: exchanges that remember what they were answered, and servers that answer when the
 * test says so.
 */
#pragma once

#include "broker/gateway/gateway.h"
#include "tests/unit/test.h"

/* -- the front ----------------------------------------------------------------------------------------------------------------- */
struct exchange {
        char *method, *path;
        char *headers[32]; /* "Name: value" */
        size_t n_headers;
        struct buf body;
        void (*left)(struct exchange *x, void *user);
        void *user;
        void *identity; /* borrowed */
        char *out_headers[8];
        size_t n_out_headers;
        bool is_stream, over; /* over: answered or ended */
        unsigned status;
        char *answer;     /* body, "" when there is none */
        char *events[64]; /* data of each */
        size_t n_events;
};
/* header lines follow, NULL-terminated; body may be NULL. */
struct exchange *fake_exchange(const char *method, const char *path, const char *body, ...) __attribute__((sentinel));
/* The client goes away. */
void fake_leave(struct exchange *x);
void fake_exchange_free(struct exchange *x);
const char *fake_header(const struct exchange *x, const char *name); /* of the answer */
/* The last thing that was written: the answer, or the last event. */
const char *fake_last(const struct exchange *x);

/* -- servers --------------------------------------------------------------------------------------------------------------------- */
struct upstream_call {
        struct upstream *u;
        struct upstream_request request;
        char *method, *params, *token, *name, *headers;
        bool over, cancelled;
        uint64_t extended_ms;
        struct upstream_call *next;
};
struct upstream {
        const struct upstream_events *events;
        void *user;
        char *capabilities, *answered[16];
        size_t n_answered;
        bool is_http, ready, freed;
        enum mcp_era era;
        char *info_text;
        struct mcp_message info;
        struct upstream_call *calls, **last;
        size_t n_calls;
};
/* In the order in which they were made; the test does not free them. */
extern struct upstream *fake_upstreams[256];
extern size_t n_fake_upstreams;
void fakes_free(void);

void fake_ready(struct upstream *u, enum mcp_era era, const char *result);
void fake_end(struct upstream *u);
void fake_end_with(struct upstream *u, enum err_code code, const char *why);
/* The newest call that is not over, of that method (NULL: any); NULL when there is none. */
struct upstream_call *fake_call(struct upstream *u, const char *method);
void fake_result(struct upstream_call *c, const char *result);
void fake_error(struct upstream_call *c, const char *error);
void fake_fail(struct upstream_call *c, enum err_code code, const char *why);
/* A notification: on the call's stream, or nobody's (c == NULL). */
void fake_notify(struct upstream *u, struct upstream_call *c, const char *text);
void fake_request(struct upstream *u, struct upstream_call *c, const char *text);

/* -- all of it ---------------------------------------------------------------------------------------------------------------------- */
struct world {
        sd_event *loop;
        struct gateway *g;
        unsigned starts, stops, renews;
        unsigned started, stopped; /* serial of the last */
        bool started_lists;
        size_t n_differs; /* that the controller was told last, and the first of them */
        char *differs;
};
struct world *world_new(void);
void world_free(struct world *w);
/* A stdio server that is ready. capabilities: JSON. */
struct upstream *world_server(struct world *w, const char *name, const char *prefix, enum mcp_era era, const char *capabilities);
/* Runs the loop until ms have passed. */
void world_run(struct world *w, unsigned ms);
