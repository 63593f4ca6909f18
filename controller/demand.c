#include "controller/demand.h"

#include <inttypes.h>
#include <unistd.h>

#include "common/log.h"
#include "controller/controller.h"

/* A server that does not come up is not wanted for ever: so long after the last call for it. */
#define PATIENCE_MS 60000U

const struct bucket_rate demand_starts = {.burst = 10, .refill_ms = 6000};
const struct bucket_rate demand_instance_starts = {.burst = 32, .refill_ms = 1000};

bool bucket_take(struct bucket *b, const struct bucket_rate *rate, uint64_t now_ms)
{
        uint64_t back = b->used ? (now_ms - b->at_ms) / rate->refill_ms : 0;

        if (back >= b->used) {
                *b = (struct bucket){.at_ms = now_ms};
        } else {
                b->used -= (unsigned)back;
                b->at_ms += back * rate->refill_ms;
        }
        if (b->used >= rate->burst)
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
                bool called = key && key->demand.called, on_demand = desired_on_demand(s);

                if (!s->may_run || s->entry->source == SOURCE_URL || (on_demand && !called))
                        continue;
                a.instances += on_demand;
                a.memory += s->entry->memory;
        }
        return a;
}

static int may_start(struct key *server, const struct desired_server *s, const struct bucket_rate *rate, struct err **err)
{
        if (!bucket_take(&server->demand.starts, rate, controller_now_ms()))
                return err_set(err, ERR_LIMIT, "it was started %u times in a row, and once every %u s from now on: try again later",
                               rate->burst, rate->refill_ms / 1000);
        struct admission a = demand_admission(server->c);
        _cleanup_free_ char *why = admission_refuses(&a, s->entry->memory);
        return why ? err_set(err, ERR_LIMIT, "%s", why) : 0;
}

int demand_call(struct key *key, const struct desired_server *s, struct err **err)
{
        if (registry_entry_has_instances(s->entry))
                return err_set(err, ERR_DENIED, "it has an instance for every session, and none for all");
        if (s->entry->lifecycle != LIFECYCLE_ON_DEMAND)
                return err_set(err, ERR_DENIED, "it is no on-demand server: the controller keeps it running by itself");
        key->demand.asked_ms = controller_now_ms();
        if (key->demand.called)
                return 0;
        if (may_start(key, s, &demand_starts, err) < 0)
                return -1;
        key->demand.called = true;
        log_info("an on-demand server is called", "server", key->name);
        return 0;
}

/* -- places for instances ---------------------------------------------------------------------------------------------------- */

static struct key *place_of(struct controller *c, const struct desired_server *s, unsigned place)
{
        _cleanup_free_ char *number = mem_printf("%u", place), *name = desired_place_name(s->name, number);

        return desired_find(c->desired, name) ? key_get(c, name) : NULL;
}

struct key *demand_find(struct controller *c, const struct desired_server *s, unsigned serial)
{
        struct key *key;

        for (unsigned i = 1; (key = place_of(c, s, i)); i++)
                if (key->demand.called && key->demand.serial == serial)
                        return key;
        return NULL;
}

/* Best one where nothing is left of the session before. */
static struct key *free_place(struct controller *c, const struct desired_server *s)
{
        struct key *key, *other = NULL;

        for (unsigned i = 1; i < desired_places(c->conf) && (key = place_of(c, s, i)); i++) {
                bool clean = !key->busy && !key->stopping && !(key->plan && key->plan->n_actions);

                if (!key->demand.called && clean)
                        return key;
                if (!key->demand.called && !other)
                        other = key;
        }
        return other;
}

bool demand_has_place(struct controller *c, const struct desired_server *s)
{
        return free_place(c, s) != NULL;
}

int demand_call_instance(struct key **ret, struct key *server, const struct desired_server *s, unsigned serial, bool lists,
                         struct err **err)
{
        struct controller *c = server->c;
        struct key *key = demand_find(c, s, serial);

        if (!registry_entry_has_instances(s->entry))
                return err_set(err, ERR_DENIED, "it has one instance for all sessions");
        if (key)
                return err_set(err, ERR_DENIED, "it has an instance of that number");
        key = lists ? place_of(c, s, desired_places(c->conf)) : free_place(c, s);
        if (key && key->demand.called)
                return err_set(err, ERR_DENIED, "it has an instance for lists");
        if (!key)
                return err_set(err, ERR_LIMIT, "%u sessions have an instance of it (gateway.max_server_instances): try again later",
                               c->conf->gateway_max_server_instances);
        if (may_start(server, s, &demand_instance_starts, err) < 0)
                return -1;
        key->demand.called = true;
        key->demand.serial = serial;
        key->demand.asked_ms = controller_now_ms();
        key->failures = 0;
        key->retry_at_ms = 0;
        mem_replace(&key->error, NULL);
        log_info("a session gets an instance", "server", s->name, "instance", key->name);
        *ret = key;
        return 0;
}

static bool runs(const struct observed *o, const char *id)
{
        for (size_t i = 0; i < o->n_containers; i++)
                if (str_eq(o->containers[i].id, id))
                        return str_eq(o->containers[i].state, "running");
        return false;
}

/* Why an instance is needed no more, or NULL. */
static const char *place_is_over(const struct key *key, const struct desired_server *s, const struct observed *observed)
{
        if (broker_alone_since_ms(key->c))
                return "no broker is linked";
        if (!s->may_run && !s->may_stay)
                return "its approval ended";
        if (!key->busy && key->session.container && key->session.since_us < key->c->pass_began_us &&
            !runs(observed, key->session.container))
                return "it ended";
        return NULL;
}

void demand_end(struct key *key, const char *reason)
{
        if (!key->demand.called)
                return;
        key->demand.called = false;
        if (key->demand.serial) {
                key->demand.serial = 0;
                key->exit_counted = true;
                session_end(&key->session);
        }
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

                if (!desired_on_demand(s))
                        continue;
                struct key *key = key_get(c, s->name);
                const char *over = s->place && key->demand.called ? place_is_over(key, s, observed) : NULL;
                if (over) {
                        demand_end(key, over);
                        continue;
                }
                /* A session of which nobody holds the stream cannot be taken up: what was a place is not kept. */
                if (!s->place && !registry_entry_has_instances(s->entry) && !key->demand.known && runs_now(observed, s->name)) {
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
