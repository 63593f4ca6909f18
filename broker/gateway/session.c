#include "broker/gateway/internal.h"

#define N_BUCKETS     4096U
#define MAX_LOOKED_AT 256U

static struct list *bucket_of(struct gateway *g, const char *id)
{
        uint64_t hash;

        if (!g->buckets) {
                g->buckets = NEW_N(struct list, N_BUCKETS);
                for (size_t i = 0; i < N_BUCKETS; i++)
                        list_init(&g->buckets[i]);
        }
        crypto_shorthash((unsigned char *)&hash, (const unsigned char *)id, strlen(id), g->hash_key);
        return &g->buckets[hash % N_BUCKETS];
}

static bool session_is_idle(const struct session *s)
{
        return !s->stream && s->n_calls == 0;
}

static int on_idle(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct gateway *g = user;
        uint64_t ms = now_ms(g->loop), limit = g->config.session_idle_ms;
        struct session *s;

        LIST_FOREACH (s, &g->idle, struct session, in_idle) {
                if (ms - s->used_ms < limit) {
                        timer_arm(&g->idle_timer, g->loop, limit - (ms - s->used_ms), on_idle, g);
                        return 0;
                }
                if (session_is_idle(s))
                        session_free(s);
                else
                        session_used(s); /* goes to the end, and is looked at again */
        }
        if (!list_empty(&g->idle))
                timer_arm(&g->idle_timer, g->loop, limit, on_idle, g);
        return 0;
}

void session_used(struct session *s)
{
        bool first = list_empty(&s->g->idle);

        s->used_ms = now_ms(s->g->loop);
        list_del(&s->in_idle);
        list_add(&s->g->idle, &s->in_idle);
        if (first)
                timer_arm(&s->g->idle_timer, s->g->loop, s->g->config.session_idle_ms, on_idle, s->g);
}

/*
 * Room for one more: of those that were silent for longest, the first in which nothing is under way goes. Others are in use, and go to the
 * end, so that whoever comes next does not look at them again.
 */
static bool make_room(struct gateway *g)
{
        if (g->n_sessions < g->config.max_sessions)
                return true;
        for (unsigned i = 0; i < MAX_LOOKED_AT && !list_empty(&g->idle); i++) {
                struct session *s = list_first(&g->idle, struct session, in_idle);

                if (session_is_idle(s)) {
                        session_free(s);
                        return true;
                }
                session_used(s);
        }
        return false;
}

/* When half of all are taken, an agent that has many gives up its own, and nobody else's: the one that was silent for longest. */
static bool make_room_among_own(struct gateway *g, const struct principal *who)
{
        struct session *s, *oldest = NULL;
        unsigned own = 0;

        if (!who || g->n_sessions < g->config.max_sessions / 2)
                return true;
        LIST_FOREACH (s, &g->idle, struct session, in_idle) {
                if (!guard_same(g, s->who, who))
                        continue;
                own++;
                if (!oldest && session_is_idle(s))
                        oldest = s;
        }
        if (own < g->config.max_sessions / 8)
                return true;
        if (oldest)
                session_free(oldest);
        return oldest != NULL;
}

struct session *session_new(struct gateway *g, struct server *server, struct principal *who)
{
        unsigned char raw[16];
        struct session *s;

        if (!make_room_among_own(g, who) || !make_room(g))
                return NULL;
        s = NEW(struct session);
        s->g = g;
        s->server = server;
        s->who = guard_ref(g, who);
        s->level = LEVEL_NONE;
        s->serial = ++g->n_serials;
        randombytes_buf(raw, sizeof(raw));
        hex_encode(s->id, raw, sizeof(raw));
        list_init(&s->calls);
        list_init(&s->asks);
        list_init(&s->legs);
        list_init(&s->instances);
        list_init(&s->subs);
        list_add(bucket_of(g, s->id), &s->in_bucket);
        g->n_sessions++;
        session_used(s);
        return s;
}

struct session *session_find(struct gateway *g, const char *id)
{
        struct session *s;

        if (strlen(id) != sizeof(s->id) - 1)
                return NULL;
        LIST_FOREACH (s, bucket_of(g, id), struct session, in_bucket)
                if (sodium_memcmp(s->id, id, sizeof(s->id)) == 0)
                        return s;
        return NULL;
}

struct session *session_free(struct session *s)
{
        struct call *c;

        while ((c = list_first(&s->calls, struct call, in_session)))
                call_cancel(c, "the client's session ended");
        while (!list_empty(&s->asks))
                ask_free(list_first(&s->asks, struct ask, in_session));
        while (!list_empty(&s->instances))
                instance_free(list_first(&s->instances, struct instance, in_session));
        while (!list_empty(&s->legs))
                leg_free(list_first(&s->legs, struct leg, in_session));
        subs_session_free(s);
        if (s->stream) {
                exchange_on_left(s->stream, NULL, NULL);
                exchange_end(TAKE_PTR(s->stream));
        }
        list_del(&s->in_bucket);
        list_del(&s->in_idle);
        s->g->n_sessions--;
        guard_unref(s->g, s->who);
        free(s);
        return NULL;
}

bool session_event(struct session *s, const char *text, size_t n)
{
        struct buf event = {0};

        if (!s->stream)
                return false;
        sse_add_event(&event, NULL, NULL, text, n);
        exchange_send(s->stream, &event);
        return true;
}
