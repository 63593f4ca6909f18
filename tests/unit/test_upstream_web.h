/*
 * A scripted HTTP server for test_upstream_http.c, on the loop of the test: connections that stay, requests with bodies, answers whole or
 * as event streams, and whatever a server should not do.
 */
#pragma once

#include "tests/unit/test_upstream.h"

#define LEGACY INIT("2025-11-25")

struct web;

struct web_conn {
        struct web *web;
        struct web_conn *next;
        int fd;
        sd_event_source *io;
        struct buf in, out;
        size_t out_at;
        bool gone;    /* the client left, or web_cut() */
        bool closing; /* when everything is written */
        unsigned n_requests;
};

struct web_request {
        struct web_conn *conn;
        char *method, *path, *headers, *body;
        long id;         /* of the message; 0 = it has none */
        const char *rpc; /* its method, or "" */
};

struct web {
        struct rig *rig;
        int fd;
        uint16_t port;
        sd_event_source *io;
        struct web_conn *conns; /* newest first, those that are gone as well */
        unsigned n_conns, n_open, n_requests;
        size_t step;    /* bytes per write; 0 = as many as go */
        struct buf log; /* "METHOD path rpc-method\n" of every request */
        void (*script)(struct web *w, struct web_request *q);
        void (*early)(struct web_conn *c); /* a request has begun; no more of it is read then. NULL: it is waited for */
        /* For scripts. */
        const char *discover;    /* result; NULL = HTTP 404 */
        const char *initialize;  /* result */
        const char *session;     /* Mcp-Session-Id given by initialize; NULL = none */
        bool events;             /* GET opens a stream */
        bool as_events;          /* answers are event streams */
        struct web_conn *stream; /* the open GET stream */
        struct web_conn *held;   /* of the last tools/call that a script did not answer */
        char *held_headers, *held_body;
        long held_id;
        char *last_event_id; /* of the last GET */
        uint64_t get_at;
};

void web_start(struct web *w, struct rig *r);
void web_stop(struct web *w);
#define _cleanup_web_ _cleanup_(web_stop)
/* Listens on w->port again, or for the first time on a free port without accepting anything: a server that is down. */
void web_reserve(struct web *w, struct rig *r);
void web_listen(struct web *w);

/* The value of a request's header, owned; NULL = absent. */
char *web_header(const char *headers, const char *name);

void web_put(struct web_conn *c, const char *bytes, size_t n);
/* status: "200 OK". extra: more header lines, each with its end, or NULL. */
void web_reply(struct web_conn *c, const char *status, const char *type, const char *extra, const char *body);
void web_result(struct web_conn *c, long id, const char *result);
void web_stream(struct web_conn *c);
void web_event(struct web_conn *c, const char *lines);
void web_message(struct web_conn *c, const char *json);
void web_end(struct web_conn *c);
void web_cut(struct web_conn *c);

/* Answers what it is asked as the fields say; tools/call is answered with {"ok":true}. */
void web_decent(struct web *w, struct web_request *q);
/* The same, but tools/call is left to the test in w->held. */
void web_hold(struct web *w, struct web_request *q);
/* The same, but it does not know the session any more when a tool is called. */
void web_forget(struct web *w, struct web_request *q);

/* Begins a session of r with it (started if it was not yet), with a pool of r's own. */
void web_session(struct rig *r, struct web *w);
/* The same, until the session is ready. */
void web_session_ready(struct rig *r, struct web *w);
/* Until w->held is there. */
void web_wait_held(struct rig *r, struct web *w);
