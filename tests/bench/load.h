/*
 * The load client in pieces: calls of a tool, many at once, each answer held against what was asked. Private to tests/bench/load_client.
 */
#pragma once

#include "common/mcp/message.h"
#include "common/mcp/sse.h"

struct load_options {
        unsigned slots;       /* calls in flight */
        unsigned calls;       /* of each slot */
        unsigned warmup;      /* of each slot, before those that count */
        size_t payload;       /* bytes of filler in the text that is sent */
        size_t result;        /* not 0: the tool gets {"bytes": result} and gives so much text */
        const char *argument; /* the name of the text: "text" */
        const char *tool;     /* "echo" */
        bool modern;
        bool framed;        /* what comes has the Engine's attach frames around it */
        const char *header; /* HTTP: one more, "Authorization: …" */
        const char *host;   /* an address; with a path: HTTP */
        unsigned port;
        const char *path;      /* without a host: a socket's */
        const char *container; /* at an Engine's socket: what to attach to */
        char **command;        /* lines: a server to spawn */
};

static inline bool load_is_http(const struct load_options *o)
{
        return o->host && o->path;
}

struct slot {
        uint64_t id, sent_ns;
        bool open;
        unsigned done; /* calls of this phase */
};

struct load;

/* One stream: HTTP has one a slot, lines have one for all. */
struct stream {
        struct load *load;
        int in, out;  /* the same for sockets */
        bool blocked; /* out would block: what is left waits in `rest` */
        struct buf rest;
        struct buf got;
        size_t seen; /* of got, already looked at */
        unsigned first_slot, n_slots;
        int step; /* of the handshake */
        /* HTTP */
        char *session;
        struct buf head; /* of every request, up to its length */
        int head_step;   /* that it was made for */
        struct sse_reader events;
        size_t left; /* bytes of the body, or of the chunk */
        enum { HTTP_HEAD, HTTP_BODY, HTTP_CHUNK_SIZE, HTTP_CHUNK, HTTP_TRAILER } at;
        bool is_events, is_last; /* is_last: the empty chunk came */
        int status;
        struct buf body;
        size_t frame; /* lines: bytes left of the attach frame */
};

struct load {
        struct load_options o;
        int epoll;
        struct stream *streams;
        size_t n_streams;
        struct slot *slots;
        struct buf filler;
        unsigned ready; /* streams whose handshake is over */
        unsigned idle;  /* slots that have done their part of the phase */
        bool counting;  /* the warm-up is over */
        uint64_t next_id;
        uint64_t begin_ns, end_ns;
        uint32_t *took; /* nanoseconds of every call that counts */
        size_t n_took;
        bool over;
};

uint64_t load_now(void);
_noreturn_ void load_die(const char *fmt, ...) _printf_(1, 2);

/* -- load_calls.c: what is said, and whether the answers are right ------------------------------------------------------------- */
/* A stream is connected: the handshake begins. */
void load_begin(struct stream *s);
/* A message came. */
void load_message(struct stream *s, const char *text, size_t n);
/* HTTP: an answer is complete, so the next request may go. */
void load_answered(struct stream *s);

/* -- load_http.c, load_line.c: how it is said ---------------------------------------------------------------------------------- */
/* method and name: for the headers of the modern era. */
void http_send(struct stream *s, const char *method, const char *name, const struct buf *message);
void http_take(struct stream *s);
/* Ends the session, so that the server need not keep it until it has been idle long enough. Waits for its answer. */
void http_goodbye(struct stream *s);
void line_send(struct stream *s, const struct buf *message);
void line_take(struct stream *s);
void stream_write(struct stream *s, const void *data, size_t n);
