#include <strings.h>

#include "broker/gateway/upstream_http.h"

static void linger_arm(struct http *h);

struct http_stream *stream_new(struct http *h, enum stream_kind kind)
{
        struct http_stream *s = NEW(struct http_stream);

        s->pool = h->pool;
        s->peer = h->peer;
        s->http = h;
        s->kind = kind;
        s->sse.max = h->upstream->limits.max_message + 1; /* its last line's end */
        list_add(&h->streams, &s->in_list);
        if (kind == STREAM_NOTE) {
                h->n_notes++;
                linger_arm(h);
        }
        return s;
}

void stream_request(struct http_stream *s, const struct buf *list, const char *more)
{
        s->request.len = 0;
        buf_add(&s->request, list->data, list->len);
        if (more)
                buf_adds(&s->request, more);
        buf_adds(&s->request, "\r\n");
}

/* -- one try ------------------------------------------------------------------------------------------------------------------ */

static void stream_stop(struct http_stream *s)
{
        list_del(&s->due);
        if (s->connection)
                connection_close(s->connection);
}

/* n bytes are here of the answer; the sums are as much as there is. */
static void count(struct http_stream *s, size_t n)
{
        s->pool->partial += n - s->counted;
        s->peer->partial += n - s->counted;
        s->counted = n;
}

static void count_all(struct http_stream *s)
{
        count(s, s->in.len + s->sse.data.len);
}

/* What came of the answer is gone, but for the last event's id and what goes with it. */
static void forget_answer(struct http_stream *s)
{
        struct sse_reader fresh = {.max = s->sse.max, .retry_ms = s->sse.retry_ms, .id = s->sse.id};

        s->sse.id = (struct buf){0};
        sse_reader_deinit(&s->sse);
        s->sse = fresh;
        buf_deinit(&s->in);
        count(s, 0);
        s->piece = (struct mcp_slice){0};
        s->header_bytes = s->received = 0;
        s->status = 0;
        s->is_events = s->over_limit = s->over_header = s->over_share = s->finished = s->repeated = false;
        free(TAKE_PTR(s->error));
}

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        connection_start(user, NULL, 0);
        return 0;
}

void stream_again(struct http_stream *s, uint64_t delay_ms)
{
        int r;

        stream_stop(s);
        forget_answer(s);
        if (!s->timer) {
                r = sd_event_add_time_relative(s->pool->loop, &s->timer, CLOCK_MONOTONIC, delay_ms * 1000, 1000, on_timer, s);
        } else {
                r = sd_event_source_set_time_relative(s->timer, delay_ms * 1000);
                if (r >= 0)
                        r = sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT);
        }
        pool_check(r);
}

/* -- the end ------------------------------------------------------------------------------------------------------------------ */

static void stream_free(struct http_stream *s)
{
        sse_reader_deinit(&s->sse);
        buf_deinit(&s->in);
        buf_deinit(&s->request);
        free(s->error);
        free(s);
}

void stream_close(struct http_stream *s)
{
        struct http *h = s->http;

        if (s->dead)
                return;
        stream_stop(s); /* its answer stays until nobody reads in it */
        count(s, 0);
        s->timer = sd_event_source_disable_unref(s->timer);
        if (s->call)
                s->call->stream = NULL;
        s->call = NULL;
        list_del(&s->in_list);
        if (h) {
                h->n_notes -= s->kind == STREAM_NOTE;
                h->n_linger -= s->linger > 0;
                if (h->events == s)
                        h->events = NULL;
        } else {
                s->pool->n_byes--;
                peer_unref(s->peer);
        }
        s->dead = true;
        if (s->held == 0)
                stream_free(s);
}

void stream_leave(struct http_stream *s)
{
        list_del(&s->in_list);
        list_add(&s->pool->byes, &s->in_list);
        s->pool->n_byes++;
        s->http = NULL;
        s->peer->refs++;
        s->since = s->pool->tick;
        pool_tick(s->pool);
        connection_start(s, NULL, 0);
}

void stream_hold(struct http_stream *s)
{
        if (s->http)
                upstream_hold(s->http->upstream);
        s->held++;
}

void stream_release(struct http_stream *s)
{
        struct upstream *u = s->http ? s->http->upstream : NULL;

        if (--s->held == 0 && s->dead)
                stream_free(s);
        if (u)
                (void)upstream_release(u);
}

/* -- what may not take long: what comes behind an answer, and what has none --------------------------------------------------------- */

static int on_linger(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct http *h = user;
        struct http_stream *s;

        LIST_FOREACH (s, &h->streams, struct http_stream, in_list) {
                /* The tick that it came in does not count. */
                if ((s->linger > 0 && s->linger++ >= 2) || (s->kind == STREAM_NOTE && s->age++ >= HTTP_NOTE_TICKS))
                        stream_close(s);
        }
        if (h->n_linger + h->n_notes > 0)
                linger_arm(h);
        return 0;
}

static void linger_arm(struct http *h)
{
        int r = 0, on = SD_EVENT_OFF;

        if (!h->linger) {
                r = sd_event_add_time_relative(h->pool->loop, &h->linger, CLOCK_MONOTONIC, HTTP_LINGER_MS * 1000, 100000, on_linger, h);
        } else if (sd_event_source_get_enabled(h->linger, &on) >= 0 && on == SD_EVENT_OFF) {
                r = sd_event_source_set_time_relative(h->linger, HTTP_LINGER_MS * 1000);
                if (r >= 0)
                        r = sd_event_source_set_enabled(h->linger, SD_EVENT_ONESHOT);
        }
        pool_check(r);
}

void stream_linger(struct http_stream *s)
{
        struct http *h = s->http;

        if (s->linger > 0)
                return;
        if (h->n_linger >= HTTP_MAX_LINGER || !s->connection) {
                stream_close(s);
                return;
        }
        s->linger = 1;
        h->n_linger++;
        linger_arm(h);
}

/* -- what came ---------------------------------------------------------------------------------------------------------------- */

void stream_take_head(struct http_stream *s, const struct http_head *head, const char *bytes)
{
        static const char events[] = "text/event-stream";
        const struct http_field *type = http_head_known(head, HTTP_CONTENT_TYPE);

        s->status = head->status;
        s->is_events = s->http && s->status == 200 && type && type->value.n >= sizeof(events) - 1 &&
                       strncasecmp(bytes + type->value.at, events, sizeof(events) - 1) == 0;
        if (s->call && s->call->method == MCP_M_INITIALIZE)
                stream_take_session(s, head, bytes);
}

/* A session's callbacks may begin other requests, or end everything. */
static bool feed(struct http_stream *s, const char *bytes, size_t n)
{
        struct err *err = NULL;
        int r = sse_reader_feed(&s->sse, bytes, n, stream_event, s, &err);

        if (r < 0 && err && !s->dead)
                stream_too_long(s, TAKE_PTR(err));
        err_free(err);
        return r == 0 && !s->dead;
}

/* Does what has been kept of it fit beside others? */
static bool fits(struct http_stream *s, size_t max)
{
        count_all(s);
        if (s->counted <= HTTP_SMALL || (s->peer->partial <= HTTP_MAX_SHARE * max && s->pool->partial <= HTTP_MAX_PARTIAL * max))
                return true;
        s->over_limit = s->over_share = true;
        return false;
}

void stream_keep(struct http_stream *s)
{
        struct mcp_slice piece = s->piece;

        s->piece = (struct mcp_slice){0};
        if (piece.n == 0 || s->dead || (s->finished && !s->in_doubt))
                return;
        buf_add(&s->in, piece.at, piece.n);
        count_all(s);
}

bool stream_take_body(struct http_stream *s, const char *bytes, size_t n)
{
        size_t max = s->http ? s->http->upstream->limits.max_message : HTTP_MAX_HEADER;

        if (s->is_events)
                return feed(s, bytes, n) && fits(s, max);
        s->received += n;
        if (s->received > max) {
                s->over_limit = true;
                return false;
        }
        if (!s->call)
                return true; /* nobody reads it */
        if (s->received == n) {
                s->piece = (struct mcp_slice){bytes, n};
                return true;
        }
        stream_keep(s);
        buf_add(&s->in, bytes, n);
        return fits(s, max);
}

void stream_over(struct http_stream *s, enum stream_outcome outcome, char *error)
{
        s->finished = true;
        s->outcome = outcome;
        free(s->error);
        s->error = error;
}

void stream_deliver(struct http_stream *s)
{
        if (s->dead || !s->finished)
                return;
        if (!s->http) {
                stream_close(s);
                return;
        }
        stream_hold(s);
        stream_ended(s);
        stream_release(s);
}
