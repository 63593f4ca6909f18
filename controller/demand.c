#include "controller/demand.h"

#include <inttypes.h>
#include <unistd.h>

#include "common/log.h"
#include "controller/controller.h"

/* A server that does not come up is not wanted for ever: so long after the last call for it. */
#define PATIENCE_MS 60000U

bool bucket_take(struct bucket *b, uint64_t now_ms)
{
        uint64_t back = b->used ? (now_ms - b->at_ms) / DEMAND_REFILL_MS : 0;

        if (back >= b->used) {
                *b = (struct bucket){.at_ms = now_ms};
        } else {
                b->used -= (unsigned)back;
                b->at_ms += back * DEMAND_REFILL_MS;
        }
        if (b->used >= DEMAND_BURST)
                return false;
        b->used++;
        return true;
}

char *admission_refuses(const struct admission *a, uint64_t memory)
{
        if (a->instances >= a->max_instances)
                return mem_printf("%u on-demand servers run already (gateway.max_instances): try again later", a->instances);
        if (memory > a->max_memory || a->memory > a->max_memory - memory)
                return mem_printf("there is no memory for it: the limits of all servers come to %" PRIu64 " MiB, its own is %" PRIu64
                                  " MiB, and %" PRIu64 " MiB may be given away (gateway.max_memory): try again later",
                                  a->memory >> 20, memory >> 20, a->max_memory >> 20);
        return NULL;
}

static uint64_t memory_to_give(const struct conf *conf)
{
        long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

        if (conf->gateway_max_memory)
                return conf->gateway_max_memory;
        return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size / 4 * 3 : UINT64_MAX;
}

struct admission demand_admission(struct controller *c)
{
        struct admission a = {.max_instances = c->conf->gateway_max_instances, .max_memory = memory_to_give(c->conf)};

        for (size_t i = 0; c->desired && i < c->desired->n; i++) {
                const struct desired_server *s = &c->desired->servers[i];
                const struct key *key = key_find(c, s->name);
                bool called = key && key->demand.called, on_demand = s->entry->lifecycle == LIFECYCLE_ON_DEMAND;

                if (!s->may_run || s->entry->source == SOURCE_URL || (on_demand && !called))
                        continue;
                a.instances += on_demand;
                a.memory += s->entry->memory;
        }
        return a;
}

int demand_call(struct key *key, const struct desired_server *s, struct err **err)
{
        struct controller *c = key->c;
        uint64_t now = controller_now_ms();

        if (s->entry->lifecycle != LIFECYCLE_ON_DEMAND)
                return err_set(err, ERR_DENIED, "it is no on-demand server: the controller keeps it running by itself");
        key->demand.asked_ms = now;
        if (key->demand.called)
                return 0;
        if (!bucket_take(&key->demand.starts, now))
                return err_set(err, ERR_LIMIT, "it was started %u times in a row, and once every %u s from now on: try again later",
                               DEMAND_BURST, DEMAND_REFILL_MS / 1000);
        struct admission a = demand_admission(c);
        _cleanup_free_ char *why = admission_refuses(&a, s->entry->memory);
        if (why)
                return err_set(err, ERR_LIMIT, "%s", why);
        key->demand.called = true;
        log_info("an on-demand server is called", "server", key->name);
        return 0;
}

void demand_end(struct key *key, const char *reason)
{
        if (!key->demand.called)
                return;
        key->demand.called = false;
        log_info("an on-demand server is let go", "server", key->name, "because", reason);
}

static bool runs_now(const struct observed *o, const char *server)
{
        for (size_t i = 0; i < o->n_containers; i++)
                if (o->containers[i].current && str_eq(o->containers[i].server, server) && str_eq(o->containers[i].state, "running"))
                        return true;
        return false;
}

static bool is_up(const struct key *key)
{
        return key->busy || !key->plan || key->plan->state == SERVER_RUNNING;
}

/* Until when somebody stands behind it; UINT64_MAX = as long as the broker wants it. */
static uint64_t wanted_until(const struct key *key, const struct desired_server *s)
{
        uint64_t alone = broker_alone_since_ms(key->c);

        if (alone)
                return MAX(alone, key->demand.asked_ms) + s->entry->idle_timeout_ms;
        if (is_up(key))
                return UINT64_MAX;
        return key->demand.asked_ms + MAX(key->c->conf->gateway_start_timeout_ms, (uint64_t)PATIENCE_MS);
}

void demand_review(struct controller *c, const struct observed *observed)
{
        uint64_t now = controller_now_ms(), next = UINT64_MAX;

        for (size_t i = 0; i < c->desired->n; i++) {
                const struct desired_server *s = &c->desired->servers[i];

                if (s->entry->lifecycle != LIFECYCLE_ON_DEMAND)
                        continue;
                struct key *key = key_get(c, s->name);
                if (!key->demand.known && runs_now(observed, s->name)) {
                        key->demand.called = true;
                        key->demand.asked_ms = now;
                }
                key->demand.known = true;
                if (!key->demand.called)
                        continue;
                /* The broker knows of it that it is up, and would say when it is not needed. */
                if (is_up(key) && !broker_alone_since_ms(c))
                        key->demand.asked_ms = now;
                uint64_t until = wanted_until(key, s);
                if (!s->may_run && !s->may_stay)
                        demand_end(key, "its approval ended");
                else if (until <= now)
                        demand_end(key, broker_alone_since_ms(c) ? "no broker is linked" : "it does not come up, and nobody asks again");
                else
                        next = MIN(next, until);
        }
        if (next != UINT64_MAX)
                pass_request(c, next - now + 1, false);
}
