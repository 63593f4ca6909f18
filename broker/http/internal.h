/*
 * Inside of broker/http/: a listener, its connections, and the exchange that is under way on each. Private to this folder.
 *
 * libmicrohttpd accepts, reads and parses requests and writes whole answers. Three things it cannot do are ours: deadlines (its only one
 * starts again with every byte), noticing that the client of a waiting request left, and event streams. A stream leaves libmicrohttpd: we
 * keep a duplicate of the socket and let it forget the connection (MHD_USE_TURBO: it closes without shutdown()). So an idle stream costs a
 * few hundred bytes instead of a connection's memory pool, an event goes out in one system call however long it is, and libmicrohttpd's
 * list of suspended connections, which it walks for each one that is resumed, holds only calls in flight.
 */
#pragma once

#include <microhttpd.h>
#include <sys/socket.h>

#include "broker/http/front.h"
#include "broker/http/guard.h"

/* -- deadlines (deadline.c) -------------------------------------------------------------------------------------------------- */
/* Things that all may last equally long, in the order in which they began: adding, removing and finding the oldest cost nothing. */
struct deadline {
        struct deadline *prev, *next;
        struct deadlines *list; /* NULL: not running */
        uint64_t begun_us;
};
struct deadlines {
        struct front *front;
        struct deadline *first, *last;
        uint64_t period_us;
        /* d is over and not in the list any more. May begin it again. */
        void (*over)(struct front *f, struct deadline *d);
};
/* Begins, or begins again. */
void deadline_begin(struct deadlines *list, struct deadline *d);
void deadline_end(struct deadline *d);
_must_check_ int deadlines_start(struct front *f, struct err **err);
void deadlines_stop(struct front *f);

/* -- addresses (peers.c) ----------------------------------------------------------------------------------------------------- */
#define PEER_BUCKETS 256U
struct peer {
        struct peer *next;
        unsigned char key[8]; /* an IPv4 address, or the first 64 bits of an IPv6 one: that much everybody has */
        unsigned n;
};
struct peers {
        struct peer *buckets[PEER_BUCKETS];
};
unsigned peers_count(const struct peers *p, const struct sockaddr *address);
struct peer *peers_add(struct peers *p, const struct sockaddr *address);
/* One less; peer may be NULL. */
void peers_remove(struct peers *p, struct peer *peer);

/* -- the listener (front.c) -------------------------------------------------------------------------------------------------- */
struct front {
        sd_event *loop;
        char *name;
        struct MHD_Daemon *daemon;
        sd_event_source *io;    /* libmicrohttpd's epoll descriptor */
        sd_event_source *rerun; /* there is something to do that no descriptor tells */
        sd_event_source *timer;
        uint64_t timer_us; /* for when it is set; UINT64_MAX: not set */
        uint16_t port;
        struct guard *guard;
        const struct front_authenticator *authenticator; /* NULL: the guard's token */
        struct front_limits limits;
        front_request_fn request;
        void *user;
        struct deadlines receiving, sending, idle, streaming, draining;
        struct peers peers;
        size_t buffered; /* bytes of all bodies that are here */
        size_t queued;   /* bytes that wait for the clients of streams, of all of them */
        struct conn *conns;
        struct exchange *streams;
        struct exchange *dirty; /* streams with something to do once the callbacks are over */
        struct drain *drains;
        unsigned open; /* connections, streams and draining sockets: what max_connections bounds */
        struct front_counts counts;
        bool running;  /* libmicrohttpd is at work: it must not be called again from inside */
        bool flushing; /* it was called by an answer: no request is handed over now, its callee may be in the middle of something */
        bool closing;
};
/* Soon, and not from inside: dirty streams are written, libmicrohttpd looks at its connections. */
void front_rerun(struct front *f);
/* Now, if it can be: what was answered goes out. Calls nobody; but connections come to their end. */
void front_flush(struct front *f);

/* -- one connection of libmicrohttpd's (connection.c) ------------------------------------------------------------------------ */
enum conn_state {
        CONN_NEW,       /* nothing was understood yet */
        CONN_IDLE,      /* between two requests */
        CONN_HEAD,      /* the request line was read */
        CONN_BODY,      /* the headers were read and are in order */
        CONN_REFUSED,   /* they are not: c->refusal is the answer */
        CONN_WAITING,   /* the exchange is the callee's */
        CONN_ANSWERING, /* libmicrohttpd writes the answer */
        CONN_GONE,      /* nothing more is to happen on it */
};
struct conn {
        struct conn *prev, *next;
        struct front *front;
        struct MHD_Connection *mhd;
        int fd; /* libmicrohttpd's */
        enum conn_state state;
        bool in_handler; /* the request function is running: what it answers needs no resuming */
        bool suspended;
        bool hung_up; /* the client has ended its side */
        bool drain;   /* the client may still be sending: the socket is drained before it is closed, or the answer would be lost */
        const struct refusal *refusal;
        char *challenge; /* of a REFUSE_IDENTITY */
        struct exchange *x;
        struct peer *peer;
        sd_event_source *hangup;
        struct deadline deadline;
        uint64_t progress; /* bytes received or acknowledged when the deadline began */
};
struct conn *conn_opened(struct front *f, struct MHD_Connection *mhd);
void conn_closed(struct conn *c);
/* libmicrohttpd is to look whether the client is still there. */
void conn_nudge(struct conn *c);
struct conn *conn_of(struct MHD_Connection *mhd);
void conn_receive_over(struct front *f, struct deadline *d);
void conn_send_over(struct front *f, struct deadline *d);
void conn_idle_over(struct front *f, struct deadline *d);
/* Hands the answer to libmicrohttpd, which sends it. response is taken over. c may be gone afterwards. */
void conn_answer(struct conn *c, unsigned status, struct MHD_Response *response);
/* libmicrohttpd is to forget this connection; nothing more is sent. c may be gone afterwards. */
void conn_end(struct conn *c);
/* Writes an answer past libmicrohttpd, where it does not take one any more, and ends the connection. */
void conn_refuse_late(struct conn *c, enum refusal_reason reason);

/* -- requests as libmicrohttpd tells them (request.c) ------------------------------------------------------------------------ */
void *request_line(void *front, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result request_handler(void *front, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                const char *data, size_t *n, void **context);
void request_completed(void *front, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code);

/* -- exchanges (exchange.c) -------------------------------------------------------------------------------------------------- */
#define MAX_HEADERS 64U
struct header {
        const char *name, *value; /* NUL-terminated */
        size_t name_n;
};
struct answer_header {
        struct answer_header *next;
        const char *value; /* behind the name, in the same memory */
        char name[];
};

struct exchange {
        struct front *front;
        struct conn *conn;     /* NULL once it is a stream */
        struct stream *stream; /* NULL before */
        const char *method, *path;
        bool authorized, http10;
        void *identity;
        struct buf body;
        size_t charged; /* to front->buffered */
        struct answer_header *answer_headers;
        void (*left)(struct exchange *x, void *user);
        void *left_user;
        size_t n_headers;
        struct header headers[]; /* their text, and the path's, is behind them: an exchange is one piece of memory */
};
/* Copies what libmicrohttpd knows of the request. */
struct exchange *exchange_new(struct conn *c, const char *url, const char *method, const char *version);
/* Tells nobody. */
void exchange_free(struct exchange *x);
/* Tells left(), then frees. */
void exchange_lost(struct exchange *x);

/* -- event streams (stream.c) ------------------------------------------------------------------------------------------------ */
/* A part of what a stream is to send. */
struct piece {
        struct piece *next;
        struct buf bytes;
};
struct stream {
        struct exchange *x;
        struct exchange *prev, *next; /* front->streams */
        struct exchange *next_dirty;
        bool dirty;
        bool ended;   /* no more events come: close when all is sent */
        bool failed;  /* the client left, or does not read: left() is due */
        bool stalled; /* nothing was sent since the last heartbeat, although something waits */
        int fd;
        uint32_t events; /* what io waits for */
        struct peer *peer;
        sd_event_source *io;
        struct deadline silence;
        struct piece *first, *last;
        size_t sent;   /* bytes of first */
        size_t queued; /* bytes not sent, of all pieces */
};
void stream_silence_over(struct front *f, struct deadline *d);
/* Writes the dirty streams; those that failed are told and freed. */
void streams_flush(struct front *f);
/* Without telling anybody; x->stream is NULL afterwards. */
void stream_free(struct exchange *x);

/* -- sockets that are only drained (drain.c) -------------------------------------------------------------------------------- */
struct drain {
        struct drain *prev, *next;
        struct front *front;
        int fd;
        size_t drained;
        struct peer *peer;
        sd_event_source *io;
        struct deadline deadline;
};
/*
 * Takes fd and the peer's count: no more is written, what still comes is thrown away, until the client closes or time or patience is over.
 * Closing with unread input would send a reset, which can overtake the answer.
 */
void drain_begin(struct front *f, int fd, struct peer *peer);
void drain_over(struct front *f, struct deadline *d);
void drains_free(struct front *f);
