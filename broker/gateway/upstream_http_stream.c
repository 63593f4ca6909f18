#include "broker/gateway/upstream_http.h"

static bool is_post(const struct http_stream *s)
{
        return s->kind == STREAM_CALL || s->kind == STREAM_NOTE || s->kind == STREAM_SETTLE;
}

/* -- lists -------------------------------------------------------------------------------------------------------------------- */

static void link_to(struct http_stream **head, struct http_stream *s)
{
        s->prev = NULL;
        s->next = *head;
        if (s->next)
                s->next->prev = s;
        *head = s;
}

static void unlink_from(struct http_stream **head, struct http_stream *s)
{
        if (s->prev)
                s->prev->next = s->next;
        else
                *head = s->next;
        if (s->next)
                s->next->prev = s->prev;
}

struct http_stream *stream_new(struct http *h, enum stream_kind kind)
{
        struct http_stream *s = NEW(struct http_stream);

        s->pool = h->pool;
        s->http = h;
        s->kind = kind;
        s->address = h->address;
        s->url = is_post(s) && h->sse ? h->endpoint : h->url;
        s->sse.max = h->upstream->limits.max_message + 1; /* its last line's end */
        link_to(&h->streams, s);
        h->n_notes += kind == STREAM_NOTE;
        return s;
}

static void free_own_headers(struct http_stream *s)
{
        for (struct curl_slist *p = s->own_headers; p && p != s->headers; p = p->next)
                free(p->data);
        free(s->own_headers);
        s->own_headers = NULL;
}

void stream_headers(struct http_stream *s, char **texts, size_t n, struct curl_slist *shared)
{
        free_own_headers(s);
        s->headers = shared;
        if (n == 0)
                return;
        s->own_headers = NEW_N(struct curl_slist, n);
        for (size_t i = 0; i < n; i++)
                s->own_headers[i] = (struct curl_slist){texts[i], i + 1 < n ? &s->own_headers[i + 1] : shared};
}

/* -- one try ------------------------------------------------------------------------------------------------------------------ */

static void set_method(struct http_stream *s)
{
        if (is_post(s)) {
                curl_easy_setopt(s->easy, CURLOPT_POST, 1L);
                curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body.data);
                curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.len);
        } else {
                curl_easy_setopt(s->easy, CURLOPT_HTTPGET, 1L);
        }
        curl_easy_setopt(s->easy, CURLOPT_CUSTOMREQUEST, s->kind == STREAM_BYE ? "DELETE" : NULL);
        curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, s->kind == STREAM_BYE ? (long)HTTP_BYE_MS : 0L);
        /* A stream may be open, and silent, for each of thousands of sessions. */
        curl_easy_setopt(s->easy, CURLOPT_BUFFERSIZE, s->kind == STREAM_EVENTS ? 1024L : 32768L);
}

void stream_start(struct http_stream *s)
{
        s->easy = pool_take(s->pool);
        s->n_sent = 0;
        s->refused = false;
        s->error[0] = '\0';
        set_method(s);
        curl_easy_setopt(s->easy, CURLOPT_URL, s->url);
        curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->own_headers ? s->own_headers : s->headers);
        curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->error);
        curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
        curl_easy_setopt(s->easy, CURLOPT_OPENSOCKETDATA, s);
        curl_easy_setopt(s->easy, CURLOPT_PREREQDATA, s);
        curl_easy_setopt(s->easy, CURLOPT_HEADERDATA, s);
        curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
        curl_loop_start(s->pool->curl, s->easy);
        if (s->pool->due)
                curl_loop_kick(s->pool->curl);
}

static void stream_stop(struct http_stream *s)
{
        pool_not_due(s->pool, s);
        if (!s->easy)
                return;
        curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, NULL);
        curl_loop_remove(s->pool->curl, s->easy);
        pool_give(s->pool, TAKE_PTR(s->easy));
}

void stream_count(struct http_stream *s)
{
        size_t n = s->in.len + s->sse.data.len;

        s->pool->partial += n - s->counted;
        s->counted = n;
}

/* What came of the answer is gone, but for the last event's id and what goes with it. */
static void forget_answer(struct http_stream *s)
{
        struct sse_reader fresh = {.max = s->sse.max, .retry_ms = s->sse.retry_ms, .id = s->sse.id};

        s->sse.id = (struct buf){0};
        sse_reader_deinit(&s->sse);
        s->sse = fresh;
        buf_deinit(&s->in);
        stream_count(s);
        s->header_bytes = 0;
        s->looked = s->is_events = s->over_limit = s->over_share = s->finished = false;
        s->status = 0;
}

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        stream_start(user);
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
        if (r < 0)
                abort(); /* out of memory */
}

/* -- the end ------------------------------------------------------------------------------------------------------------------ */

static void stream_free(struct http_stream *s)
{
        s->pool->partial -= s->counted;
        free_own_headers(s);
        curl_slist_free_all(s->bye_headers);
        sse_reader_deinit(&s->sse);
        buf_deinit(&s->in);
        buf_deinit(&s->body);
        free(s->own_url);
        free(s);
}

void stream_close(struct http_stream *s)
{
        struct http *h = s->http;

        if (s->dead)
                return;
        stream_stop(s); /* its answer stays until nobody reads in it */
        s->timer = sd_event_source_disable_unref(s->timer);
        if (s->call)
                s->call->stream = NULL;
        s->call = NULL;
        if (h) {
                unlink_from(&h->streams, s);
                h->n_notes -= s->kind == STREAM_NOTE;
                h->n_linger -= s->linger > 0;
                if (h->events == s)
                        h->events = NULL;
        } else {
                unlink_from(&s->pool->byes, s);
                s->pool->n_byes--;
        }
        s->dead = true;
        if (s->held == 0)
                stream_free(s);
}

void stream_leave(struct http_stream *s, struct curl_slist *headers)
{
        struct http *h = s->http;

        unlink_from(&h->streams, s);
        link_to(&s->pool->byes, s);
        s->pool->n_byes++;
        s->http = NULL;
        s->url = s->own_url = mem_strdup(h->url);
        s->bye_headers = headers;
        stream_headers(s, NULL, 0, headers);
        stream_start(s);
}

/* -- behind the answer -------------------------------------------------------------------------------------------------------- */

static void linger_arm(struct http *h);

static int on_linger(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct http *h = user;

        for (struct http_stream *s = h->streams, *next; s; s = next) {
                next = s->next;
                /* The tick that it came in does not count. */
                if (s->linger > 0 && s->linger++ >= 2)
                        stream_close(s);
        }
        if (h->n_linger > 0)
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
        if (r < 0)
                abort(); /* out of memory */
}

void stream_linger(struct http_stream *s)
{
        struct http *h = s->http;

        if (s->linger > 0)
                return;
        if (h->n_linger >= HTTP_MAX_LINGER || !s->easy) {
                stream_close(s);
                return;
        }
        s->linger = 1;
        h->n_linger++;
        linger_arm(h);
}

/* -- what came ---------------------------------------------------------------------------------------------------------------- */

/* A session's callbacks may begin other requests, in which curl may add to s->in: what is read is taken out of it first. */
static void feed(struct http_stream *s)
{
        struct buf taken = s->in;
        struct err *err = NULL;
        int r;

        s->in = (struct buf){0};
        r = sse_reader_feed(&s->sse, taken.data, taken.len, stream_event, s, &err);
        if (s->dead || r == 0) {
                err_free(err);
        } else if (err) {
                stream_too_long(s, err);
        }
        if (!s->dead && s->in.len == 0 && taken.cap <= UPSTREAM_KEEP) {
                taken.len = 0;
                s->in = taken;
                stream_count(s);
                return;
        }
        buf_deinit(&taken);
        stream_count(s);
}

void stream_deliver(struct http_stream *s)
{
        struct upstream *u;

        if (!s->http) {
                stream_close(s);
                return;
        }
        u = s->http->upstream;
        upstream_hold(u);
        s->held++;
        if (s->call && s->call->method == MCP_M_INITIALIZE)
                stream_take_session(s);
        if (!s->dead && s->is_events && s->in.len > 0)
                feed(s);
        if (!s->dead && s->finished)
                stream_ended(s);
        if (--s->held == 0 && s->dead)
                stream_free(s);
        (void)upstream_release(u);
}
