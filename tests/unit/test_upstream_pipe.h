/*
 * A scripted stdio server for tests of upstream sessions: the other end of the stream, on the loop of the test. Frames towards us, lines
 * towards it, as the Engine's attach has them.
 */
#pragma once

#include "tests/unit/test_upstream.h"

#define UNKNOWN "{\"code\":-32601,\"message\":\"Method not found\"}"

struct server {
        struct rig *rig;
        int fd;
        sd_event_source *io;
        struct buf in, out;
        size_t out_at;
        size_t step; /* bytes per write; 0 = as many as go */
        bool gone;
        struct buf log; /* every line that came */
        void (*script)(struct server *s, const char *line, long id);
        const char *discover, *initialize; /* results; NULL = UNKNOWN, "" = silence */
        const char *discover_error;
        long n_calls; /* requests behind the handshake */
        long last_id; /* of the last one */
};

/* Connects r to it and begins the session; r->config says how. */
void server_start(struct rig *r, struct server *s);
/* The same, until the session is ready. */
void server_ready(struct rig *r, struct server *s);
void server_deinit(struct server *s);
#define _cleanup_server_ _cleanup_(server_deinit)

/* Reads from now on; server_start() begins that. */
void server_watch(struct server *s);

/* Standard output (1) or standard error (2). */
void server_frame(struct server *s, int stream, const char *data, size_t n);
/* One line of standard output. */
void server_say(struct server *s, const char *text);
void server_result(struct server *s, long id, const char *result);
/* What waits in s->out goes out, as far as it will. */
void server_flush(struct server *s);
/* It exits. */
void server_leave(struct server *s);
/* A script that leaves calls to the test: s->n_calls, s->last_id. */
void server_silent(struct server *s, const char *line, long id);
/* A script that exits. */
void server_exit(struct server *s, const char *line, long id);
