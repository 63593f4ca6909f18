/*
 * Inside of broker/http/: a listener, its connections, and the exchange that is under way on each. Private to this folder.
 *
 * A connection is one descriptor in the loop's epoll from its beginning to its end, edge-triggered for all that can happen to it, so that
 * no request costs a system call but those that read it and write its answer, and a client that leaves is noticed at once. Between two
 * requests it has no memory but struct conn: requests are read into a buffer of the front's, and what is kept of them is copied. It is
 * freed by the loop only, never from inside what others call.
 */
#pragma once

#include <sys/socket.h>
#include <time.h>

#include "broker/http/front.h"
#include "broker/http/guard.h"
#include "common/http/chunked.h"

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

/* -- what waits to be written (output.c) ------------------------------------------------------------------------------------- */
struct piece {
        struct piece *next;
        struct buf bytes;
};
/* Zeroed to begin with. */
struct output {
        struct piece *first, *last;
        size_t sent;   /* bytes of first */
        size_t queued; /* bytes not sent, of all pieces */
};
#define OUTPUT_COPY_BELOW (16U << 10) /* bytes: shorter texts are put behind each other, longer ones go out from where they are */
void output_text(struct output *o, const void *text, size_t n);
/* Takes what is in bytes, of which the first `sent` were sent. */
void output_whole(struct output *o, struct buf *bytes, size_t sent);
/* 0: all is written; 1: the socket takes no more now; -1: it takes nothing any more. */
int output_write(struct output *o, int fd);
void output_clear(struct output *o);

/* -- the listener (front.c) -------------------------------------------------------------------------------------------------- */
#define INPUT_SIZE  (16U << 10) /* bytes read at once, where it is not known whose they are */
#define MAX_AT_ONCE 8U          /* times max_body: bodies of all requests that are here; answers that all clients have not read */
#define MAX_QUEUES  8U          /* times max_queued: of all streams together */

struct front {
        sd_event *loop;
        char *name;
        int fd; /* listens */
        sd_event_source *listener;
        sd_event_source *rerun; /* there is something to do that no descriptor tells */
        sd_event_source *timer;
        uint64_t timer_us; /* for when it is set; UINT64_MAX: not set */
        uint16_t port;
        struct guard *guard;
        const struct front_authenticator *authenticator; /* NULL: the guard's token */
        const char *open_path;                           /* or NULL */
        struct front_limits limits;
        front_request_fn request;
        void *user;
        struct deadlines receiving, sending, idle, streaming, draining, resting;
        struct deadline rest; /* of the listener, when no more descriptors are to be had */
        struct peers peers;
        size_t buffered; /* bytes of all bodies that are here */
        size_t unsent;   /* bytes of whole answers that wait for their clients */
        size_t queued;   /* bytes of streams that wait for theirs */
        struct conn *conns;
        struct conn *dirty, **dirty_end; /* something is to be done once the callbacks are over */
        unsigned open;                   /* all connections: what max_connections bounds */
        unsigned n_half;                 /* connections with a head of which a part is here */
        struct front_counts counts;
        bool closing;   /* no request is begun any more */
        time_t date_of; /* the second that date says */
        char date[40];
        struct buf answer;      /* the head of the one that was written last */
        size_t usual_n;         /* bytes at its beginning that another one has as well; 0: none */
        struct http_head head;  /* of the request that is being read; one that comes in parts has its own */
        char input[INPUT_SIZE]; /* what was read last */
};
/* "Wed, 25 Nov 2026 10:00:00 GMT" */
const char *front_date(struct front *f);
/* The listener has rested. */
void front_rested(struct front *f, struct deadline *d);

/* -- connections (connection.c) ---------------------------------------------------------------------------------------------- */
enum conn_state {
        CONN_READING,   /* a request is awaited, or its head is not whole */
        CONN_BODY,      /* the head is in order, the body not whole */
        CONN_WAITING,   /* the exchange is the callee's */
        CONN_SENDING,   /* an answer waits for the client to read */
        CONN_STREAMING, /* it is an event stream now */
        CONN_DRAINING,  /* no more is written, and what comes is thrown away */
        CONN_GONE,      /* closed; freed as soon as nobody is at work on it */
};
struct conn {
        struct conn *prev, *next;
        struct conn *next_dirty;
        struct front *front;
        int fd;
        enum conn_state state;
        bool dirty;
        bool busy;                    /* conn_read() is at work: it goes on by itself */
        bool readable;                /* there may be something to read */
        bool hung_up;                 /* the client has ended its side */
        bool http10, head_only, keep; /* of the request under way: its version, HEAD, the connection lives on afterwards */
        bool unread;                  /* the client may be sending what nobody will read: a reset would overtake the answer */
        bool ended;                   /* streams: no more events come, close when all is sent */
        bool failed;                  /* streams: the client left, or does not read: left() is due */
        bool stalled;                 /* streams: nothing was sent since the last heartbeat, although something waits */
        struct peer *peer;
        sd_event_source *io;
        struct deadline deadline;
        uint64_t received, progress; /* bytes of all requests; received or acknowledged when the deadline began */
        struct http_head *head;      /* of a request that came in parts; it begins where `in` does */
        struct buf in;               /* read, and not used yet */
        struct output out;
        struct exchange *x;
};
void conn_accepted(struct front *f, int fd, const struct sockaddr *address);
/* On the loop's next turn conn_work() is called. */
void conn_mark(struct conn *c);
/* Does what is to be done in its state. From the loop only: c may be gone afterwards. */
void conn_work(struct conn *c);
void conn_free(struct conn *c);
void conn_set_state(struct conn *c, enum conn_state state);
/* Closes at once. Tells nobody: the exchange, if any, must have been taken off. */
void conn_end(struct conn *c);
/* Closes when the client has read what was sent. */
void conn_close(struct conn *c);
/* What waits goes out: as output_write(). */
int conn_write(struct conn *c);
/* The client left, or is dropped: left() is called. */
void conn_lose(struct conn *c);
void conn_receive_over(struct front *f, struct deadline *d);
void conn_send_over(struct front *f, struct deadline *d);
void conn_idle_over(struct front *f, struct deadline *d);
void conn_drain_over(struct front *f, struct deadline *d);

/* -- reading requests (input.c) ---------------------------------------------------------------------------------------------- */
/* Until there is nothing more to read, or a request waits for its answer. */
void conn_read(struct conn *c);
/* What came of a head that is not whole is of no more use. */
void conn_forget_half(struct conn *c);

/* -- answers (answer.c) ------------------------------------------------------------------------------------------------------ */
/* A whole answer. headers: whole lines. body: taken over. */
void conn_answer(struct conn *c, unsigned status, const char *content_type, const struct buf *headers, struct buf *body);
/* Answers a request that the callee never sees, and frees its exchange. The connection ends, unless c->keep. */
void conn_refuse(struct conn *c, enum refusal_reason reason);
/* The client reads on: what waits goes out, or the next request is awaited. */
void conn_send_on(struct conn *c);

/* -- judging requests (request.c) -------------------------------------------------------------------------------------------- */
/* The head is whole: is it in order? 0: yes, -1: *reason. x->framing and x->body_left are filled; *delimited: they can be relied on. */
_must_check_ int request_judge(struct exchange *x, bool *delimited, enum refusal_reason *reason);
enum refusal_reason request_fault(enum http_fault fault);

/* -- exchanges (exchange.c) -------------------------------------------------------------------------------------------------- */
struct exchange {
        struct front *front;
        struct conn *conn; /* NULL in left() */
        const char *method, *path;
        const char *query; /* NULL: none */
        bool authorized, is_stream;
        enum http_framing framing;
        struct http_chunked chunked;
        uint64_t body_left; /* of HTTP_SIZED */
        void *identity;
        struct buf body;
        size_t charged;     /* to front->buffered */
        struct buf headers; /* of the answer */
        void (*left)(struct exchange *x, void *user);
        void *left_user;
        char *text;            /* the head, terminated everywhere: behind the struct, in the same memory */
        struct http_head head; /* cut off behind its fields */
};
/* bytes: of the head. */
struct exchange *exchange_new(struct conn *c, const struct http_head *head, const char *bytes);
/* NULL: absent. */
const char *exchange_known(const struct exchange *x, enum http_known known);
/* Tells nobody. */
void exchange_free(struct exchange *x);

/* -- event streams (stream.c) ------------------------------------------------------------------------------------------------ */
void stream_work(struct conn *c);
void stream_silence_over(struct front *f, struct deadline *d);
