#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/gateway/upstream_http.h"

#define MAX_CONNECTIONS 16384U /* with those that are kept: a stream may be open for each of thousands of sessions */
#define MAX_IDLE        256U   /* to one server */
#define MAX_EVENTS      32     /* of connections, before others have their turn */
#define TICK_US         UINT64_C(1000000)
#define TICK_SLACK_US   UINT64_C(100000)

void pool_check(int r)
{
        if (r < 0 && r != -ESTALE)
                abort();
}

static void pool_hold(struct upstream_pool *p)
{
        p->held++;
}

static void pool_release(struct upstream_pool *p);

/* -- servers ------------------------------------------------------------------------------------------------------------------- */

int pool_peer(struct http_peer **ret, struct upstream_pool *p, const struct upstream_config *config, struct err **err)
{
        const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = config->address, .sin_port = htons(config->port)};
        struct http_peer *peer;

        LIST_FOREACH (peer, &p->peers, struct http_peer, in_pool)
                if (peer->address.sin_addr.s_addr == address.sin_addr.s_addr && peer->address.sin_port == address.sin_port &&
                    tls_trust_is(peer->trust, config->tls_host, config->tls_pins)) {
                        peer->refs++;
                        *ret = peer;
                        return 0;
                }
        peer = NEW(struct http_peer);
        *peer = (struct http_peer){.pool = p, .address = address, .refs = 1};
        if (config->tls_host && tls_trust_new(&peer->trust, config->tls_host, config->tls_pins, p->authorities, err) < 0) {
                free(peer);
                return -1;
        }
        list_init(&peer->idle);
        list_add(&p->peers, &peer->in_pool);
        *ret = peer;
        return 0;
}

void peer_unref(struct http_peer *peer)
{
        if (!peer || --peer->refs > 0)
                return;
        list_del(&peer->in_pool);
        tls_trust_free(peer->trust);
        free(peer);
}

/* -- connections --------------------------------------------------------------------------------------------------------------- */

void pool_add(struct http_connection *c)
{
        struct upstream_pool *p = c->peer->pool;

        c->peer->refs++;
        p->n_connections++;
        c->since = p->tick;
        list_add(&p->connecting, &c->in_list);
        pool_tick(p);
}

static void leave_idle(struct http_connection *c)
{
        list_del(&c->in_list);
        c->idle = false;
        c->peer->n_idle--;
        c->peer->pool->n_idle--;
}

void pool_remove(struct http_connection *c)
{
        struct http_peer *peer = c->peer;
        struct upstream_pool *p = peer->pool;

        if (c->idle)
                leave_idle(c);
        list_del(&c->in_list);
        c->stream = NULL;
        c->peer = NULL;
        p->n_connections--;
        peer_unref(peer);
        if (p->held)
                list_add(&p->closed, &c->in_list);
        else
                free(c);
}

struct http_connection *pool_take(struct http_peer *peer)
{
        struct http_connection *c;

        if (list_empty(&peer->idle))
                return NULL;
        c = list_entry(peer->idle.prev, struct http_connection, in_list);
        leave_idle(c);
        return c;
}

void pool_give(struct http_connection *c)
{
        struct http_peer *peer = c->peer;
        struct upstream_pool *p = peer->pool;

        c->kept = c->idle = true;
        c->since = p->tick;
        list_add(&peer->idle, &c->in_list);
        peer->n_idle++;
        p->n_idle++;
        if (peer->n_idle > MAX_IDLE || p->n_connections > MAX_CONNECTIONS)
                connection_close(c);
        else
                pool_tick(p);
}

/* -- time ---------------------------------------------------------------------------------------------------------------------- */

static void close_idle(struct upstream_pool *p)
{
        struct http_connection *c;
        struct http_peer *peer;

        LIST_FOREACH (peer, &p->peers, struct http_peer, in_pool) {
                peer->refs++;
                while ((c = list_first(&peer->idle, struct http_connection, in_list)) && p->tick - c->since >= HTTP_IDLE_TICKS)
                        connection_close(c);
                peer_unref(peer);
        }
}

static int on_tick(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct upstream_pool *p = user;
        struct http_connection *c;
        struct http_stream *s;

        pool_hold(p);
        p->ticking = false;
        p->tick++;
        close_idle(p);
        LIST_FOREACH (c, &p->connecting, struct http_connection, in_list)
                if (p->tick - c->since > HTTP_CONNECT_TICKS)
                        connection_timed_out(c);
        LIST_FOREACH (s, &p->byes, struct http_stream, in_list)
                if (p->tick - s->since > HTTP_BYE_TICKS)
                        stream_close(s);
        if (p->n_idle > 0 || !list_empty(&p->connecting) || !list_empty(&p->byes))
                pool_tick(p);
        pool_release(p);
        return 0;
}

void pool_tick(struct upstream_pool *p)
{
        if (p->ticking)
                return;
        p->ticking = true;
        pool_check(sd_event_source_set_time_relative(p->timer, TICK_US));
        pool_check(sd_event_source_set_enabled(p->timer, SD_EVENT_ONESHOT));
}

/* -- turns --------------------------------------------------------------------------------------------------------------------- */

static int on_io(_unused_ sd_event_source *source, int fd, _unused_ uint32_t revents, void *user)
{
        struct upstream_pool *p = user;
        struct epoll_event events[MAX_EVENTS];
        int n = epoll_wait(fd, events, MAX_EVENTS, 0);

        pool_hold(p);
        for (int i = 0; i < n && !p->dead; i++) {
                struct http_connection *c = events[i].data.ptr;
                if (c->fd >= 0)
                        connection_event(c, events[i].events);
        }
        pool_release(p);
        return 0;
}

void pool_due(struct http_stream *s)
{
        if (list_linked(&s->due))
                return;
        list_add(&s->pool->due, &s->due);
        pool_check(sd_event_source_set_enabled(s->pool->kick, SD_EVENT_ONESHOT));
}

static int on_kick(_unused_ sd_event_source *source, void *user)
{
        struct upstream_pool *p = user;
        struct http_stream *s;

        pool_hold(p);
        while (!p->dead && (s = list_first(&p->due, struct http_stream, due))) {
                list_del(&s->due);
                stream_deliver(s);
        }
        pool_release(p);
        return 0;
}

/* -- the pool ------------------------------------------------------------------------------------------------------------------ */

static void free_closed(struct upstream_pool *p)
{
        struct http_connection *c;

        while ((c = list_first(&p->closed, struct http_connection, in_list))) {
                list_del(&c->in_list);
                free(c);
        }
}

static void pool_destroy(struct upstream_pool *p)
{
        struct http_stream *s;
        struct http_peer *peer;

        while ((s = list_first(&p->byes, struct http_stream, in_list)))
                stream_close(s);
        LIST_FOREACH (peer, &p->peers, struct http_peer, in_pool) {
                peer->refs++;
                while (!list_empty(&peer->idle))
                        connection_close(list_first(&peer->idle, struct http_connection, in_list));
                peer_unref(peer);
        }
        free_closed(p);
        sd_event_source_disable_unref(p->io);
        sd_event_source_disable_unref(p->timer);
        sd_event_source_disable_unref(p->kick);
        if (p->epoll >= 0)
                close(p->epoll);
        sd_event_unref(p->loop);
        buf_deinit(&p->scratch);
        tls_authorities_free(p->authorities);
        free(p);
}

static void pool_release(struct upstream_pool *p)
{
        if (--p->held > 0)
                return;
        free_closed(p);
        if (p->dead)
                pool_destroy(p);
}

static int set_up_sources(struct upstream_pool *p, struct err **err)
{
        int r;

        p->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (p->epoll < 0)
                return err_sys(err, errno, "event loop for HTTP");
        r = sd_event_add_io(p->loop, &p->io, p->epoll, EPOLLIN, on_io, p);
        if (r >= 0)
                r = sd_event_add_time(p->loop, &p->timer, CLOCK_MONOTONIC, 0, TICK_SLACK_US, on_tick, p);
        if (r >= 0)
                r = sd_event_source_set_enabled(p->timer, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(p->loop, &p->kick, on_kick, p);
        if (r >= 0)
                r = sd_event_source_set_enabled(p->kick, SD_EVENT_OFF);
        return r < 0 ? err_sys(err, r, "event loop for HTTP") : 0;
}

int upstream_pool_new(struct upstream_pool **ret, sd_event *loop, const char *ca_file, struct err **err)
{
        _cleanup_(upstream_pool_freep) struct upstream_pool *p = NEW(struct upstream_pool);

        p->loop = sd_event_ref(loop);
        p->epoll = -1;
        p->authorities = ca_file ? tls_authorities_new(ca_file) : NULL;
        list_init(&p->peers);
        list_init(&p->connecting);
        list_init(&p->closed);
        list_init(&p->due);
        list_init(&p->byes);
        if (set_up_sources(p, err) < 0)
                return -1;
        *ret = TAKE_PTR(p);
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
