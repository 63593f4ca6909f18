/*
 * What the files of upstream_http*.c and upstream_pool.c share: the pool of connections, one HTTP session, one HTTP request with its
 * answer. Nobody outside these files includes it.
 */
#pragma once

#include <netinet/in.h>

#include "broker/gateway/upstream_internal.h"
#include "common/curl_loop.h"
#include "common/mcp/sse.h"

#define HTTP_MAX_HEADER  (64U << 10)    /* bytes of all headers of an answer */
#define HTTP_MAX_NOTES   64U            /* notifications and answers on their way at once */
#define HTTP_MAX_LINGER  32U            /* streams that were not closed behind their answer */
#define HTTP_LINGER_MS   UINT64_C(1000) /* how long such a one may stay */
#define HTTP_AGAIN_MS    100U           /* between two tries to reach a server that starts, and the least before a stream is resumed */
#define HTTP_RETRY_MS    1000U          /* before a stream is opened again, when the server named no time */
#define HTTP_RETRY_MAX   60000U
#define HTTP_BYE_MS      2000U
#define HTTP_MAX_BYES    64U /* at once; sessions that end beside them end without a word */
#define HTTP_CONNECT_MS  5000U
#define HTTP_MAX_LOST    5U          /* connections of a handshake that were cut off without an answer */
#define HTTP_MAX_SESSION 1024        /* bytes of Mcp-Session-Id */
#define HTTP_MAX_PARTIAL 16U         /* times max_message: of all answers that have come in part */
#define HTTP_SMALL       (64U << 10) /* so much of each is always taken */

enum stream_kind {
        STREAM_CALL,   /* POST of a request */
        STREAM_NOTE,   /* POST of a notification or an answer */
        STREAM_SETTLE, /* POST of notifications/initialized */
        STREAM_EVENTS, /* GET */
        STREAM_RESUME, /* GET: the rest of a call's stream */
        STREAM_BYE,    /* DELETE; its session is gone */
};

/* One HTTP request and its answer; again and again when a stream is resumed. */
struct http_stream {
        struct upstream_pool *pool;
        struct http *http; /* NULL: of a session that is gone */
        struct http_stream *prev, *next;
        struct http_stream *next_due;
        bool is_due; /* in pool->due */
        unsigned held;
        bool dead;
        enum stream_kind kind;
        struct upstream_call *call; /* that waits for it; NULL = nobody does */
        CURL *easy;                 /* NULL: between two tries */
        const char *url;            /* borrowed from the session, or from own_url */
        char *own_url;
        struct sockaddr_in address;
        struct curl_slist *own_headers; /* an array, linked, its end leading to the session's list; texts are owned */
        struct curl_slist *headers;
        struct curl_slist *bye_headers; /* owned */
        struct buf body;
        unsigned n_sent, n_lost;
        bool repeatable; /* doing it twice does no harm */
        bool refused;    /* by on_prereq(): it would have been sent twice */
        sd_event_source *timer;

        /* the answer, as far as it came */
        size_t header_bytes;
        bool looked, is_events, over_limit;
        bool over_share; /* there was no room for it beside others */
        long status;
        struct buf in;
        struct sse_reader sse;
        size_t counted; /* of both, in pool->partial */
        bool finished;
        CURLcode code;
        unsigned linger; /* ticks of the session's timer; 0 = it does not */
        char error[CURL_ERROR_SIZE];
};

/* Header lists that all requests of a kind share. */
enum http_list { LIST_MODERN, LIST_INITIALIZE, LIST_LEGACY, LIST_EVENTS, N_LISTS };

struct http {
        struct upstream *upstream;
        struct upstream_pool *pool;
        struct upstream_pool *own_pool;
        struct sockaddr_in address;
        char *origin; /* "http://10.0.0.2:8080" */
        char *url;
        char *endpoint; /* the older transport: where to POST; NULL = not told yet */
        bool sse;
        char **extra; /* headers from the configuration */
        struct curl_slist *lists[N_LISTS];
        char *session;
        struct http_stream *streams;
        struct http_stream *events;
        uint64_t events_delay; /* before it is opened again, ms; grows while it fails */
        unsigned n_notes, n_linger;
        sd_event_source *linger;
        char trouble[CURL_ERROR_SIZE];
};

struct upstream_pool {
        sd_event *loop;
        struct curl_loop *curl;
        CURL *idle[32];
        size_t n_idle;
        struct http_stream *due, **due_end; /* have something to deliver */
        struct http_stream *byes;
        size_t partial; /* bytes of answers that are not complete */
        unsigned n_byes;
        unsigned held;
        bool dead;
        CURL *sweep; /* makes curl close what is too old */
        sd_event_source *sweep_timer;
        bool sweeping, used; /* the timer is set; since it was */
};

/* upstream_pool.c */
/* A handle with the options that never change. */
CURL *pool_take(struct upstream_pool *p);
void pool_give(struct upstream_pool *p, CURL *easy);
/* stream_deliver() is called for s, from the loop. */
void pool_due(struct upstream_pool *p, struct http_stream *s);
void pool_not_due(struct upstream_pool *p, struct http_stream *s);

/* upstream_http_stream.c */
struct http_stream *stream_new(struct http *h, enum stream_kind kind);
/* With own headers: n of them, texts owned from here on. Before stream_start(). */
void stream_headers(struct http_stream *s, char **texts, size_t n, struct curl_slist *shared);
void stream_start(struct http_stream *s);
/* The same request, or the rest of its stream, after a while. */
void stream_again(struct http_stream *s, uint64_t delay_ms);
void stream_close(struct http_stream *s);
/* pool->partial is as much as there is. */
void stream_count(struct http_stream *s);
/* What came is taken. Runs callbacks. */
void stream_deliver(struct http_stream *s);
/* It belongs to nobody any more, and may end by itself, so that its connection can be used again. */
void stream_linger(struct http_stream *s);
/* Its session goes: the DELETE stays with the pool. */
void stream_leave(struct http_stream *s, struct curl_slist *headers);

/* upstream_http_answer.c */
/* Of the answer to initialize. May end the session. */
void stream_take_session(struct http_stream *s);
/* An event of the stream. -1: no more of them. */
int stream_event(const char *type, const char *data, size_t n, void *stream, struct err **err);
/* The stream is over: s->status, s->code and s->in say how. Runs callbacks; closes s or starts it again. */
void stream_ended(struct http_stream *s);
/* An event of more than max_message. Runs callbacks. */
void stream_too_long(struct http_stream *s, struct err *why);

/* upstream_http.c */
void http_open_events(struct http *h);
struct curl_slist *http_list(struct http *h, enum http_list which);
/* Both text and what it becomes are single headers. */
void slist_add(struct curl_slist **list, const char *text);
