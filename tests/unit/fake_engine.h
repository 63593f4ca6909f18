/*
 * A unix-socket server with scripted answers, for what a real Engine will not give: garbage, half answers, other versions, hanging. Each
 * connection has a thread; a test's handler is called there for every request but /version, and says what goes out, byte by byte if it
 * likes. Used by the tests of common/engine/. What the real Engine does is tested with the real one (tests/integration/engine_real.c).
 */
#pragma once

#include "common/mem.h"

struct fake_engine;

struct fake_request {
        const char *method;
        const char *path; /* with its query */
        const char *body;
        unsigned n; /* how many came before it, /version not counted */
        void *user;
        /* private */
        struct fake_engine *engine;
        int fd;
        bool close;
};
/* Returns when the request is dealt with; the connection is kept unless fake_close() was called. */
typedef void (*fake_handler)(struct fake_request *r);

struct fake_engine *fake_engine_new(fake_handler handler, void *user);
struct fake_engine *fake_engine_free(struct fake_engine *f);
static inline void fake_engine_freep(struct fake_engine **f)
{
        fake_engine_free(*f);
}
const char *fake_engine_path(const struct fake_engine *f);
/* JSON that /version answers with, copied; default: Docker 20.10, API 1.41. "" leaves /version to the handler. */
void fake_engine_set_version(struct fake_engine *f, const char *json);
/* How many requests' "METHOD /path?query" contained the text. */
unsigned fake_engine_count(struct fake_engine *f, const char *text);
/* Connections accepted so far. */
unsigned fake_engine_connections(struct fake_engine *f);
/* Ends every open connection and answers no new ones (the socket stays) until called with false: an Engine that is down. */
void fake_engine_down(struct fake_engine *f, bool down);

/* A busy Engine: takes a connection only so often, and its queue holds one. */
void fake_engine_busy(struct fake_engine *f, unsigned ms);

/* An answer with Content-Length; json NULL = none. status: "200 OK". */
void fake_reply(struct fake_request *r, const char *status, const char *json);
/* Bytes as they are. */
void fake_send(struct fake_request *r, const void *data, size_t n);
void fake_sends(struct fake_request *r, const char *text);
/* The head of a chunked 200, a chunk, the end. */
void fake_stream(struct fake_request *r);
void fake_chunk(struct fake_request *r, const char *data);
void fake_stream_end(struct fake_request *r);
void fake_close(struct fake_request *r);
/* Says nothing until the client (or the test's end) closes the connection. */
void fake_hang(struct fake_request *r);
void fake_pause_ms(unsigned ms);
