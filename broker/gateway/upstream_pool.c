#include <errno.h>
#include <sys/socket.h>

#include "broker/gateway/upstream_http.h"

#define MAX_CONNECTIONS 16384U /* kept, those in use counted: a stream may be open for each of thousands of sessions */
#define MAX_IDLE_S      3L
#define SWEEP_US        ((MAX_IDLE_S + 1) * UINT64_C(1000000))

/* -- curl's callbacks: they store, nothing else ------------------------------------------------------------------------------ */

/* Nobody but the server itself is connected to, whatever curl was made to believe. */
static curl_socket_t on_open(void *user, _unused_ curlsocktype purpose, struct curl_sockaddr *a)
{
        const struct http_stream *s = user;
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&a->addr;

        if (a->family != AF_INET || in->sin_addr.s_addr != s->address.sin_addr.s_addr || in->sin_port != s->address.sin_port)
                return CURL_SOCKET_BAD;
        return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/*
 * curl repeats a request by itself, POST included, when a kept connection dies before the first byte of the answer. The server may have
 * done it by then: a tool is never called twice for one call.
 */
static int on_prereq(void *user, _unused_ char *primary, _unused_ char *local, _unused_ int primary_port, _unused_ int local_port)
{
        struct http_stream *s = user;

        if (s->n_sent++ == 0 || s->repeatable)
                return CURL_PREREQFUNC_OK;
        s->refused = true;
        return CURL_PREREQFUNC_ABORT;
}

static size_t on_header(_unused_ char *bytes, size_t size, size_t n, void *user)
{
        struct http_stream *s = user;

        s->header_bytes += n * size;
        s->over_limit |= s->header_bytes > HTTP_MAX_HEADER;
        return s->over_limit ? 0 : n * size;
}

static void look(struct http_stream *s)
{
        const char *type = NULL;

        s->looked = true;
        curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &s->status);
        curl_easy_getinfo(s->easy, CURLINFO_CONTENT_TYPE, &type);
        s->is_events = s->status == 200 && type && strncasecmp(type, "text/event-stream", 17) == 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
        struct http_stream *s = user;
        size_t max = s->http ? s->http->upstream->limits.max_message : HTTP_MAX_HEADER;

        n *= size;
        if (!s->looked)
                look(s);
        /* Events are measured by their reader: what is here is what came since the last turn, of any number of them. */
        if (!s->is_events && (n > max || s->in.len > max - n)) {
                s->over_limit = true;
                return 0;
        }
        buf_add(&s->in, bytes, n);
        stream_count(s);
        if (s->counted > HTTP_SMALL && s->pool->partial > HTTP_MAX_PARTIAL * max) {
                s->over_limit = s->over_share = true;
                return 0;
        }
        if (s->is_events)
                pool_due(s->pool, s);
        return n;
}

/* -- handles ------------------------------------------------------------------------------------------------------------------ */

static CURL *handle_new(void)
{
        CURL *easy = curl_easy_init();

        if (!easy)
                abort();
        curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
        curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
        curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        curl_easy_setopt(easy, CURLOPT_IPRESOLVE, (long)CURL_IPRESOLVE_V4);
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(easy, CURLOPT_USERAGENT, "bulkhead");
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_MS);
        curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, MAX_IDLE_S); /* before the server closes it, at the moment we use it */
        curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);       /* a stream can be silent for hours */
        curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
        curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_prereq);
        curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
        return easy;
}

CURL *pool_take(struct upstream_pool *p)
{
        return p->n_idle > 0 ? p->idle[--p->n_idle] : handle_new();
}

void pool_give(struct upstream_pool *p, CURL *easy)
{
        if (p->n_idle < ELEMENTSOF(p->idle))
                p->idle[p->n_idle++] = easy;
        else
                curl_easy_cleanup(easy);
}

/* -- connections that nobody uses any more ---------------------------------------------------------------------------------- */

static curl_socket_t open_none(_unused_ void *user, _unused_ curlsocktype purpose, _unused_ struct curl_sockaddr *a)
{
        return CURL_SOCKET_BAD;
}

/*
 * curl closes kept connections that are too old when it makes another one, and not before: without a request they would stay, also when
 * their servers are gone. So one is made that leads nowhere.
 */
static int on_sweep(sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct upstream_pool *p = user;
        int r;

        if (!p->sweep) {
                p->sweep = handle_new();
                curl_easy_setopt(p->sweep, CURLOPT_URL, "http://127.0.0.1/");
                curl_easy_setopt(p->sweep, CURLOPT_OPENSOCKETFUNCTION, open_none);
                curl_loop_add(p->curl, p->sweep);
        }
        p->sweeping = p->used;
        p->used = false;
        if (!p->sweeping)
                return 0;
        r = sd_event_source_set_time_relative(source, SWEEP_US);
        return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void sweep_later(struct upstream_pool *p)
{
        p->used = true;
        if (p->sweeping)
                return;
        p->sweeping = true;
        if (!p->sweep_timer)
                (void)sd_event_add_time_relative(p->loop, &p->sweep_timer, CLOCK_MONOTONIC, SWEEP_US, UINT64_C(1000000), on_sweep, p);
        else if (sd_event_source_set_time_relative(p->sweep_timer, SWEEP_US) >= 0)
                (void)sd_event_source_set_enabled(p->sweep_timer, SD_EVENT_ONESHOT);
}

static void sweep_over(struct upstream_pool *p)
{
        if (!p->sweep)
                return;
        curl_loop_remove(p->curl, p->sweep);
        curl_easy_cleanup(TAKE_PTR(p->sweep));
}

/* -- turns -------------------------------------------------------------------------------------------------------------------- */

void pool_due(struct upstream_pool *p, struct http_stream *s)
{
        if (s->is_due)
                return;
        s->is_due = true;
        s->next_due = NULL;
        *p->due_end = s;
        p->due_end = &s->next_due;
}

void pool_not_due(struct upstream_pool *p, struct http_stream *s)
{
        struct http_stream **at = &p->due;

        if (!s->is_due)
                return;
        while (*at != s)
                at = &(*at)->next_due;
        *at = s->next_due;
        if (p->due_end == &s->next_due)
                p->due_end = at;
        s->is_due = false;
}

static void pool_destroy(struct upstream_pool *p)
{
        while (p->byes)
                stream_close(p->byes);
        while (p->n_idle > 0)
                curl_easy_cleanup(p->idle[--p->n_idle]);
        sweep_over(p);
        sd_event_source_disable_unref(p->sweep_timer);
        curl_loop_free(p->curl);
        sd_event_unref(p->loop);
        free(p);
}

static void on_turn(void *user)
{
        struct upstream_pool *p = user;
        struct http_stream *s = NULL;
        CURL *easy;
        CURLcode code;

        p->held++;
        while (curl_loop_next(p->curl, &easy, &code)) {
                if (easy == p->sweep) {
                        sweep_over(p);
                        continue;
                }
                sweep_later(p);
                curl_easy_getinfo(easy, CURLINFO_PRIVATE, &s);
                if (!s->looked)
                        look(s);
                s->finished = true;
                s->code = code;
                pool_due(p, s);
        }
        while (!p->dead && (s = p->due)) {
                pool_not_due(p, s);
                stream_deliver(s);
        }
        if (--p->held == 0 && p->dead)
                pool_destroy(p);
}

int upstream_pool_new(struct upstream_pool **ret, sd_event *loop, struct err **err)
{
        struct upstream_pool *p = NEW(struct upstream_pool);

        p->due_end = &p->due;
        if (curl_loop_new(&p->curl, loop, MAX_CONNECTIONS, on_turn, p, err) < 0) {
                free(p);
                return -1;
        }
        p->loop = sd_event_ref(loop);
        *ret = p;
        return 0;
}

struct upstream_pool *upstream_pool_free(struct upstream_pool *p)
{
        if (!p)
                return NULL;
        p->dead = true;
        if (p->held == 0)
                pool_destroy(p);
        return NULL;
}
