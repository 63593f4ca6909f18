/*
 * Knowing the tools of servers before somebody looks for them. A server that hangs keeps nobody waiting for long, and one that was waited
 * for in vain keeps the next ones not at all.
 */
#include "broker/gateway/internal.h"

static bool is_coming(struct server *s)
{
        uint64_t since = tools_loading(s);

        if (since && now_ms(s->g->loop) - since >= SOON_MS)
                tools_missed(s);
        return since && now_ms(s->g->loop) - since < SOON_MS;
}

/* needs() of a call stands in `needs_tools` while it waits. */
static bool must_wait(const struct call *c)
{
        for (size_t i = 0; i < c->g->n_servers; i++)
                if (is_coming(c->g->servers[i]) && c->needs_tools(c, c->g->servers[i]))
                        return true;
        return false;
}

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        learn_more(user);
        return 0;
}

void learn_more(struct gateway *g)
{
        struct list ready;
        struct call *c;

        list_init(&ready);
        LIST_FOREACH (c, &g->learners, struct call, in_queue)
                if (!must_wait(c)) {
                        list_del(&c->in_queue);
                        list_add(&ready, &c->in_queue);
                }
        while ((c = list_first(&ready, struct call, in_queue))) {
                list_del(&c->in_queue);
                c->learned(c);
        }
        if (!list_empty(&g->learners))
                timer_arm(&g->learn_timer, g->loop, SOON_MS / 10, on_timer, g);
}

void learn(struct call *c, bool (*needs)(const struct call *c, const struct server *s), void (*then)(struct call *c))
{
        struct gateway *g = c->g;

        c->needs_tools = needs;
        c->learned = then;
        for (size_t i = 0; i < g->n_servers; i++) {
                struct server *s = g->servers[i];

                /* One that sleeps is not woken for what is known of it. */
                bool sleeps = s->entry.readiness == READINESS_ASLEEP && !server_has_instances(s);

                if (needs(c, s) && !server_is_hopeless(s) && !tools_are_known(s) && !(s->told && sleeps))
                        tools_load(s);
        }
        if (!must_wait(c)) {
                then(c);
                return;
        }
        list_add(&g->learners, &c->in_queue);
        timer_arm(&g->learn_timer, g->loop, SOON_MS / 10, on_timer, g);
}
