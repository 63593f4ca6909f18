/*
 * What the files of upstream_http*.c and upstream_pool.c share: the pool of connections, one connection, one HTTP session, one HTTP request
 * with its answer. Nobody outside these files includes it.
 *
 * The client does what sessions with MCP servers need and nothing else: HTTP/1.1 to one numeric address, one request at a time on each
 * connection, no redirection, no proxy, no compression. Source: RFC 9112; MCP basic/transports.
 */
#pragma once

#include <netinet/in.h>
#include <sys/uio.h>

#include "broker/gateway/list.h"
#include "broker/gateway/upstream_internal.h"
#include "broker/gateway/upstream_tls.h"
#include "common/http/chunked.h"
#include "common/mcp/sse.h"

#define HTTP_MAX_HEADER  (64U << 10)    /* bytes of all headers of an answer, those of 1xx before it counted */
#define HTTP_MAX_NOTES   64U            /* notifications and answers on their way at once */
#define HTTP_MAX_LINGER  32U            /* streams that were not closed behind their answer */
#define HTTP_LINGER_MS   UINT64_C(1000) /* how long such a one may stay */
#define HTTP_NOTE_TICKS  10U            /* of these: how long a server may take to say that it got a notification */
#define HTTP_AGAIN_MS    100U           /* between two tries to reach a server that starts, and the least before a stream is resumed */
#define HTTP_RETRY_MS    1000U          /* before a stream is opened again, when the server named no time */
#define HTTP_RETRY_MAX   60000U
#define HTTP_MAX_BYES    64U            /* at once; sessions that end beside them end without a word */
#define HTTP_MAX_LOST    5U             /* connections of a handshake that were cut off without an answer */
#define HTTP_PING_MS     UINT64_C(5000) /* how long a server may take to show that it knows a session */
#define HTTP_MAX_SESSION 1024           /* bytes of Mcp-Session-Id */
#define HTTP_MAX_PARTIAL 16U            /* times max_message: of all answers that have come in part */
#define HTTP_MAX_SHARE   4U             /* of these, what one server may hold back: nothing that another one could miss */
#define HTTP_SMALL       (64U << 10)    /* so much of each is always taken */
/* Ticks of the pool, which are seconds: what is due may wait for one more. */
#define HTTP_IDLE_TICKS    3U /* a connection is kept: less than the five seconds after which servers on Node close theirs */
#define HTTP_CONNECT_TICKS 5U
#define HTTP_BYE_TICKS     2U

enum stream_kind {
        STREAM_CALL,   /* POST of a request */
        STREAM_NOTE,   /* POST of a notification or an answer */
        STREAM_SETTLE, /* POST of notifications/initialized */
        STREAM_EVENTS, /* GET */
        STREAM_RESUME, /* GET: the rest of a call's stream */
        STREAM_BYE,    /* DELETE; its session is gone */
};

enum stream_outcome {
        STREAM_WHOLE,       /* the answer is complete */
        STREAM_UNREACHABLE, /* there was no connection */
        STREAM_UNTRUSTED,   /* there was one, and who is at its end is not the server, or speaks no TLS */
        STREAM_LOST,        /* the connection ended before the answer began */
        STREAM_BROKEN,      /* the answer is no HTTP, ends too early, or breaks a limit */
};

/* The server at one address. */
struct http_peer {
        struct upstream_pool *pool;
        struct list in_pool;
        struct sockaddr_in address;
        struct tls_trust *trust; /* NULL: plain */
        struct list idle;        /* connections that nobody uses, longest idle first */
        unsigned n_idle;
        size_t partial; /* bytes of answers that are not complete */
        unsigned refs;  /* of sessions, goodbyes and connections */
};

struct http_connection {
        struct http_peer *peer;
        struct list in_list;        /* peer->idle, pool->connecting or pool->closed */
        struct http_stream *stream; /* NULL: idle */
        int fd;                     /* -1: closed */
        struct tls *tls;            /* NULL: plain, or not connected yet */
        unsigned since;             /* tick: idle, or connecting */
        bool connecting, idle;
        bool kept;       /* it was idle before */
        bool wants_out;  /* EPOLLOUT */
        bool unwritable; /* the server reads no more; its answer may be there all the same */

        /* the answer, as far as it came */
        bool in_body, persists;
        enum http_framing framing;
        uint64_t left; /* bytes of a sized body */
        struct http_chunked chunked;
        struct http_head *head; /* when it came in part only */
        struct buf in;          /* its bytes */
};

/* One HTTP request and its answer; again and again when a stream is resumed. */
struct http_stream {
        struct upstream_pool *pool;
        struct http_peer *peer; /* borrowed from the session, or owned */
        struct http *http;      /* NULL: of a session that is gone */
        struct list in_list;    /* http->streams or pool->byes */
        struct list due;        /* in pool->due */
        unsigned held;
        bool dead;
        enum stream_kind kind;
        struct upstream_call *call;         /* that waits for it; NULL = nobody does */
        struct http_connection *connection; /* NULL: between two tries */
        struct buf request;                 /* head and body, while they may be needed (again) */
        size_t request_size, sent;
        unsigned n_lost;
        unsigned since;  /* STREAM_BYE: tick */
        bool repeatable; /* doing it twice does no harm */
        bool repeated;   /* it was sent once more, because a kept connection was gone */
        sd_event_source *timer;

        /* the answer, as far as it came */
        size_t header_bytes;
        unsigned status; /* 0: no head yet */
        bool is_events, over_limit, over_header;
        bool over_share;        /* there was no room for it beside others */
        struct mcp_slice piece; /* all of the body so far, where it was read: behind the turn it is in `in` */
        struct buf in;
        size_t received; /* bytes of a body that is no event stream */
        struct sse_reader sse;
        size_t counted; /* of both, in pool->partial and peer->partial */
        bool finished;
        enum stream_outcome outcome;
        bool in_doubt;   /* finished, and acted on when h->ping has come back */
        unsigned linger; /* ticks of the session's timer, behind the answer; 0 = it does not */
        unsigned age;    /* ticks of the same, of a STREAM_NOTE */
        char *error;     /* why it is not whole */
};

/* Heads of requests: request line and fields, but for those of a single one. */
enum http_list { LIST_MODERN, LIST_INITIALIZE, LIST_LEGACY, LIST_EVENTS, LIST_BYE, N_LISTS };

struct http {
        struct upstream *upstream;
        struct upstream_pool *pool;
        struct upstream_pool *own_pool;
        struct http_peer *peer;
        char *authority; /* "10.0.0.2:8080" */
        char *origin;    /* "http://10.0.0.2:8080" */
        char *path;
        char *endpoint; /* the older transport: the path to POST to; NULL = not told yet */
        bool sse;
        char **extra; /* headers from the configuration */
        struct buf lists[N_LISTS];
        char *session;
        struct list streams;
        struct http_stream *events;
        struct upstream_call *ping; /* asks whether the server knows the session still; NULL: nobody doubts it */
        uint64_t events_delay;      /* before it is opened again, ms; grows while it fails */
        unsigned n_notes, n_linger;
        sd_event_source *linger;
        char *trouble;
};

struct upstream_pool {
        sd_event *loop;
        /*
         * All connections, behind one descriptor for the loop: sd-event asks all that is ready again before each callback, and with
         * hundreds of answers at once that would be most of the work.
         */
        int epoll;
        sd_event_source *io;
        sd_event_source *kick; /* streams are due */
        sd_event_source *timer;
        bool ticking;
        unsigned tick;
        struct list peers;
        struct list connecting;
        struct list closed; /* connections that events of this turn may still point to */
        struct list due;    /* streams that have something to deliver */
        struct list byes;
        unsigned n_connections, n_idle, n_byes;
        size_t partial;     /* bytes of answers that are not complete */
        struct buf scratch; /* of whoever makes a request */
        struct tls_authorities *authorities;
        unsigned held;
        bool dead;
};

/* upstream_pool.c */
/* Counted: peer_unref() gives it back. */
_must_check_ int pool_peer(struct http_peer **ret, struct upstream_pool *p, const struct upstream_config *config, struct err **err);
void peer_unref(struct http_peer *peer);
/* The connection that was used last; NULL: there is none. It may be gone all the same. */
struct http_connection *pool_take(struct http_peer *peer);
/* Keeps it for the next one, or closes it. */
void pool_give(struct http_connection *c);
void pool_add(struct http_connection *c);    /* a new one */
void pool_remove(struct http_connection *c); /* it is closed: frees it when nobody looks at it any more */
/* stream_deliver() is called for s, from the loop. */
void pool_due(struct http_stream *s);
void pool_tick(struct upstream_pool *p); /* there is something to wait for */
/* sd-event fails for want of memory, which ends us, or because the loop is over: then nothing comes of what was asked for. */
void pool_check(int r);

/* upstream_http_connection.c: the only place where sockets are read, written, connected and closed */
/* Sends s's request: parts (borrowed), or s->request when there are none. What goes wrong is delivered from the loop. */
void connection_start(struct http_stream *s, const struct iovec *parts, size_t n_parts);
/* Its stream, if it has one, is without a connection then. */
void connection_close(struct http_connection *c);
/* What epoll says of it. Runs callbacks. */
void connection_event(struct http_connection *c, uint32_t events);
/* It has been connecting for too long. */
void connection_timed_out(struct http_connection *c);

/* upstream_http_stream.c */
struct http_stream *stream_new(struct http *h, enum stream_kind kind);
/* A request without a body, to be sent with connection_start(). more: header lines, or NULL. */
void stream_request(struct http_stream *s, const struct buf *list, const char *more);
/* The same request, or the rest of its stream, after a while. */
void stream_again(struct http_stream *s, uint64_t delay_ms);
void stream_close(struct http_stream *s);
void stream_hold(struct http_stream *s);
/* s may be gone then, and its session. */
void stream_release(struct http_stream *s);
/* It belongs to nobody any more, and may end by itself, so that its connection can be used again. */
void stream_linger(struct http_stream *s);
/* Its session goes: the DELETE stays with the pool. */
void stream_leave(struct http_stream *s);
/* The answer's head. Runs callbacks: held. */
void stream_take_head(struct http_stream *s, const struct http_head *head, const char *bytes);
/* Bytes of its body, borrowed until stream_keep(). Runs callbacks: held. false: no more of them, s may be dead or s->over_limit. */
bool stream_take_body(struct http_stream *s, const char *bytes, size_t n);
/* What was borrowed is about to go. */
void stream_keep(struct http_stream *s);
/* Nothing more comes. error: owned, NULL when it is whole. */
void stream_over(struct http_stream *s, enum stream_outcome outcome, char *error);
/* What came is taken, if it is over. Runs callbacks. */
void stream_deliver(struct http_stream *s);

/* upstream_http_answer.c */
/* Of the answer to initialize. May end the session. */
void stream_take_session(struct http_stream *s, const struct http_head *head, const char *bytes);
/* An event of the stream. -1: no more of them. */
int stream_event(const char *type, const char *data, size_t n, void *stream, struct err **err);
/* The stream is over: s->status, s->outcome and the body say how. Runs callbacks; closes s or starts it again. */
void stream_ended(struct http_stream *s);
/* An event of more than max_message. Runs callbacks. */
void stream_too_long(struct http_stream *s, struct err *why);

/* upstream_http.c */
void http_open_events(struct http *h);
/* Made once, when the handshake has come so far. */
const struct buf *http_list(struct http *h, enum http_list which);
