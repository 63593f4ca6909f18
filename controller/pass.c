/*
 * When to look, and what follows: observe -> plan -> apply. Events, files and timers only ask for a pass; the pass itself is the same
 * whatever woke it.
 */
#include "controller/controller.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "common/log.h"

/* Events come in bursts (create, connect, start): one pass for a burst. */
#define DEBOUNCE_MS 5U
/* While servers are being worked on, their own events and endings are no news, and looking at once would only disturb the Engine. */
#define BUSY_MS 250U
/* Old inspects looked at again at each resync: all of a usual host, a part of a large one in turn. */
#define REFRESH    16U
#define HEALTHY_MS 600000U

uint64_t controller_now_us(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t controller_now_ms(void)
{
        return controller_now_us() / 1000;
}

/* -- waiters -------------------------------------------------------------------------------------------------------------- */

void pass_wait(struct controller *c, struct link_conn *conn, bool settle)
{
        size_t kept = 0;

        /* Those who left while they waited: coming and going must not fill the memory. */
        for (size_t i = 0; i < c->n_waiters; i++) {
                if (link_alive(c->waiters[i].conn))
                        c->waiters[kept++] = c->waiters[i];
                else
                        link_fail(c->waiters[i].conn, 1, "gone");
        }
        c->n_waiters = kept;
        c->waiters = mem_realloc(c->waiters, c->n_waiters + 1, sizeof(*c->waiters));
        c->waiters[c->n_waiters++] = (struct waiter){.conn = conn, .settle = settle};
        pass_request(c, 0, true);
}

static bool is_settled(const struct controller *c)
{
        uint64_t soon = controller_now_ms() + 2000;

        for (size_t i = 0; i < c->n_keys; i++) {
                const struct key *key = c->keys[i];
                if (key->busy || (key->plan && key->plan->state == SERVER_STARTING && !key->plan->n_actions))
                        return false;
                /* A server in a long backoff is as settled as it gets; one that is about to be tried again is not. */
                if (key->plan && key->plan->n_actions && key->retry_at_ms < soon)
                        return false;
        }
        return true;
}

static void answer_waiters(struct controller *c, const char *error)
{
        size_t kept = 0;

        for (size_t i = 0; i < c->n_waiters; i++) {
                struct waiter *w = &c->waiters[i];

                if (error)
                        link_fail(w->conn, 1, error);
                else if (!w->settle || is_settled(c))
                        link_answer(w->conn, status_plan(c));
                else
                        c->waiters[kept++] = *w;
        }
        c->n_waiters = kept;
}

static void tell_progress(struct controller *c)
{
        size_t busy = 0;

        for (size_t i = 0; i < c->n_keys; i++)
                busy += c->keys[i]->busy;
        for (size_t i = 0; i < c->n_waiters; i++) {
                json_object *p = json_object_new_object();
                json_add_int(p, "busy", (int64_t)busy);
                json_add_int(p, "servers", (int64_t)c->n_keys);
                link_progress(c->waiters[i].conn, p);
        }
}

/* -- planning ------------------------------------------------------------------------------------------------------------- */

/* The addresses in use: the Engine's networks, the host's routes, what is reserved but not yet a network. */
static void refresh_pool(struct controller *c, const struct observed *o)
{
        _cleanup_err_ struct err *err = NULL;

        address_pool_reset(c->pool);
        for (char **s = o->subnets; s && *s; s++)
                address_pool_use(c->pool, *s);
        if (address_pool_add_routes(c->pool, "/proc/self/net/route", &err) < 0)
                log_warning("the host's routes are not known", "reason", err_msg(err));
        for (size_t i = 0; i < c->n_keys; i++)
                if (c->keys[i]->busy)
                        address_pool_use(c->pool, c->keys[i]->subnet);
        for (size_t i = 0; i < c->n_smokes; i++)
                address_pool_use(c->pool, smoking_subnet(c->smokes[i]));
}

/* Subnet of the key: that of its network, else a new one when one is needed. */
static void assign_subnet(struct key *key, const struct desired_server *s, const struct observed *o)
{
        _cleanup_err_ struct err *err = NULL;

        key->subnet[0] = '\0';
        for (size_t i = 0; s && s->names.network && i < o->n_networks; i++)
                if (str_eq(o->networks[i].name, s->names.network) && o->networks[i].subnet)
                        snprintf(key->subnet, sizeof(key->subnet), "%s", o->networks[i].subnet);
        if (!plan_needs_subnet(s, o, key->demand.called))
                return;
        if (address_pool_take(key->c->pool, key->subnet, &err) < 0)
                mem_replace(&key->error, mem_strdup(err_msg(err)));
}

/* The manifest that this host's own test found. One that is approved counts only when its items are known too: the broker needs them. */
static const char *smoked_of(const struct controller *c, const struct desired_server *s)
{
        const char *manifest = s && s->names.container ? smoked_manifest(c->smoked, s->names.spec_hash) : NULL;

        if (manifest && str_eq(manifest, s->record->manifest_sha256) && !smoked_pins(c->smoked, s->names.spec_hash))
                return NULL;
        return manifest;
}

/* An external server's code is nobody's here: so often it is looked whether it still offers what was approved. */
#define ASK_AGAIN_MS 300000U

static struct plan_facts facts_of(const struct key *key, const struct desired_server *s, char *const *smoking)
{
        const struct controller *c = key->c;
        bool asked = key->asked_ms && s && s->record && str_eq(key->tested_for, s->record->id);
        bool judged = s && s->record && str_eq(key->image_of, s->record->id);

        return (struct plan_facts){
                .image_ok = judged && key->image_ok,
                .image_refused = judged ? key->image_refused : NULL,
                .smoked = smoked_of(c, s),
                .test_again = s && s->record && !str_eq(key->tested_for, s->record->id),
                .asked = asked,
                .ask = !asked || controller_now_ms() - key->asked_ms >= ASK_AGAIN_MS,
                .subnet = key->subnet,
                .egress_ok = c->egress_ok,
                .egress_error = c->egress_error,
                .rules_ok = s && s->names.container && egress_in_force(c->egress, s->names.bridge),
                .rules_there = s && s->entry->source == SOURCE_URL && egress_has(c->egress, s->names.bridge),
                .smoking = smoking,
                .called = key->demand.called,
                .linked = broker_linked(c->broker),
                .session = key->session.container,
                .hung = key->hung,
                .session_fresh = key->session.since_us >= c->pass_began_us,
        };
}

/* What time does to a key: healthy long enough, or crashed once more. */
static void age_key(struct key *key)
{
        uint64_t now = controller_now_ms();

        if (key->plan->state == SERVER_RUNNING && !key->plan->n_actions) {
                if (!key->up_since_ms)
                        key->up_since_ms = now;
                if (key->failures && now - key->up_since_ms >= HEALTHY_MS)
                        key->failures = 0;
                key->retry_at_ms = 0;
                mem_replace(&key->error, NULL);
        } else if (key->plan->crashed && !key->exit_counted) {
                key_count_end(key);
                log_warning("a server ended and is started again", "server", key->name, "container",
                            key->plan->container ? key->plan->container : "-");
        }
}

static void plan_key(struct key *key, const struct observed *o, char *const *smoking)
{
        struct controller *c = key->c;
        const struct desired_server *s = desired_find(c->desired, key->name);

        assign_subnet(key, s, o);
        struct plan_input in = {.desired = c->desired,
                                .server = s,
                                .name = key->name,
                                .observed = o,
                                .facts = facts_of(key, s, smoking),
                                .now = inputs_now(c)};
        /* Another approval is another attempt. */
        if (s && s->record && key->image_of && !str_eq(key->image_of, s->record->id)) {
                key->retry_at_ms = 0;
                key->failures = 0;
        }
        plan_server_free(key->plan);
        key->plan = plan_server(&in);
        /* A backoff belongs to what failed: a revocation does not wait for the next attempt to start. */
        if (key->plan->state != key->failed_state || (key->plan->urgent && !key->failed_removal))
                key->retry_at_ms = 0;
        age_key(key);
}

static void collect_keys(struct controller *c, const struct observed *o)
{
        for (size_t i = 0; i < c->desired->n; i++)
                key_get(c, c->desired->servers[i].name);
        for (size_t i = 0; i < o->n_containers; i++)
                if (o->containers[i].ours)
                        key_get(c, o->containers[i].server ? o->containers[i].server : "");
        for (size_t i = 0; i < o->n_networks; i++)
                key_get(c, o->networks[i].server ? o->networks[i].server : "");
}

static void plan_all(struct controller *c, const struct observed *o)
{
        _cleanup_strv_ char **smoking = NULL;

        for (size_t i = 0; i < c->n_smokes; i++)
                smoking = strv_append(smoking, smoking_spec(c->smokes[i]));
        collect_keys(c, o);
        demand_review(c, o);
        refresh_pool(c, o);
        for (size_t i = 0; i < c->n_keys; i++)
                if (c->keys[i]->busy)
                        end_unapproved(c->keys[i], o);
                else
                        plan_key(c->keys[i], o, smoking);
        keys_sweep(c);
}

/* -- applying ------------------------------------------------------------------------------------------------------------- */

static void on_kept(struct err *err, _unused_ void *user)
{
        if (err)
                log_warning("rules of instances that are gone could not be taken away", "reason", err_msg(err));
}

static bool is_asleep(struct controller *c, const struct desired_server *s)
{
        const struct key *key = key_find(c, s->name);

        return desired_on_demand(s) && !(key && (key->busy || key->demand.called));
}

/* Rules of instances that neither exist nor are coming. */
static void drop_old_rules(struct controller *c, const struct observed *o)
{
        _cleanup_strv_ char **bridges = NULL;

        for (size_t i = 0; i < o->n_networks; i++)
                if (o->networks[i].bridge)
                        bridges = strv_append(bridges, o->networks[i].bridge);
        for (size_t i = 0; i < c->n_smokes; i++)
                bridges = strv_append(bridges, smoking_bridge(c->smokes[i]));
        for (size_t i = 0; i < c->desired->n; i++)
                if (c->desired->servers[i].may_stay && !is_asleep(c, &c->desired->servers[i]))
                        bridges = strv_append(bridges, c->desired->servers[i].names.bridge);
        egress_keep_only(c->egress, bridges, on_kept, c);
}

/* Starts what is due; returns when the next one is (0 = none). */
static uint64_t apply_all(struct controller *c)
{
        uint64_t now = controller_now_ms(), next = 0;

        for (size_t i = 0; i < c->n_keys; i++) {
                struct key *key = c->keys[i];

                if (key->busy || !key->plan || !key->plan->n_actions)
                        continue;
                if (key->retry_at_ms <= now)
                        apply_begin(key);
                else if (!next || key->retry_at_ms < next)
                        next = key->retry_at_ms;
        }
        return next;
}

/* -- the pass ------------------------------------------------------------------------------------------------------------- */

static int64_t busy_keys(const struct controller *c)
{
        int64_t n = 0;

        for (size_t i = 0; i < c->n_keys; i++)
                n += c->keys[i]->busy;
        return n;
}

/* Without a judgement of what should be, the Engine is read all the same: `status` shows it, and smoke tests need free addresses. */
static struct desired *wished_for(struct controller *c)
{
        return c->desired ? c->desired : &c->nothing;
}

static void on_observed(struct observed *observed, struct err *err, void *user)
{
        struct controller *c = user;
        _cleanup_(observed_freep) struct observed *o = observed;
        _cleanup_(desired_unrefp) struct desired *looked_for = TAKE_PTR(c->looked_for);

        c->passing = false;
        if (err) {
                if (!str_eq(c->engine_error, err_msg(err)))
                        log_error("the Engine cannot be read: nothing is changed", "reason", err_msg(err));
                mem_replace(&c->engine_error, mem_strdup(err_msg(err)));
                answer_waiters(c, err_msg(err));
                uint64_t delay = MIN((uint64_t)5000, (uint64_t)100 << MIN(c->pass_failures, 6U));
                c->pass_failures++;
                pass_request(c, delay, true);
                return;
        }
        mem_replace(&c->engine_error, NULL);
        c->pass_failures = 0;
        c->observed_once = true;
        /* What it says of containers, it says by what was wished for then: by that, one that is wanted since would be a stranger. */
        if (looked_for != wished_for(c)) {
                pass_request(c, 0, false);
                return;
        }
        if (!c->desired) { /* the inputs were never good: what is declared is not known, so nothing is touched for that */
                end_uncovered(c, o);
                answer_waiters(c, c->view_error       ? c->view_error
                                  : c->registry_error ? c->registry_error
                                                      : "the approvals are still being read: try again");
                return;
        }
        plan_all(c, o);
        c->passes++;
        c->last_pass_us = controller_now_us() - c->pass_began_us;
        if (c->full_wanted) {
                c->full_wanted = false;
                drop_old_rules(c, o);
        }
        uint64_t next = apply_all(c);
        broker_tell(c, false);
        answer_waiters(c, NULL);
        if (next)
                pass_request(c, next - MIN(next, controller_now_ms()) + 1, false);
        if (c->pass_wanted)
                pass_request(c, DEBOUNCE_MS, false);
}

static bool is_busy(const char *server, void *user)
{
        const struct key *key = key_find(user, server);

        return key && key->busy;
}

static int on_pass_timer(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct controller *c = user;

        if (c->passing) {
                c->pass_wanted = true;
                return 0;
        }
        c->pass_wanted = false;
        c->passing = true;
        c->looked_for = desired_ref(wished_for(c));
        c->pass_began_us = controller_now_us();
        tell_progress(c);
        observer_look(c->observer, c->looked_for, c->full_wanted ? REFRESH : 0, is_busy, on_observed, c);
        return 0;
}

static void schedule(struct controller *c, uint64_t delay_ms)
{
        uint64_t due = 0;
        int on = SD_EVENT_OFF;

        if (!c->pass_timer)
                return;
        sd_event_source_get_enabled(c->pass_timer, &on);
        uint64_t now = controller_now_ms() * 1000, wanted = now + delay_ms * 1000;
        if (on != SD_EVENT_OFF && sd_event_source_get_time(c->pass_timer, &due) >= 0 && due <= wanted)
                return;
        sd_event_source_set_time(c->pass_timer, wanted);
        sd_event_source_set_enabled(c->pass_timer, SD_EVENT_ONESHOT);
}

void pass_request(struct controller *c, uint64_t delay_ms, bool full)
{
        c->full_wanted |= full;
        schedule(c, busy_keys(c) > 0 ? MAX(delay_ms, (uint64_t)BUSY_MS) : delay_ms);
}

void pass_now(struct controller *c)
{
        schedule(c, 0);
}

static void on_verified(struct err *err, void *user)
{
        struct controller *c = user;

        c->egress_ok = !err;
        mem_replace(&c->egress_error, err ? mem_strdup(err_msg(err)) : NULL);
        if (err)
                log_error("the firewall rules are not as they must be", "reason", err_msg(err));
        pass_request(c, 0, false);
}

static int on_resync(sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct controller *c = user;
        uint64_t r = 0;

        if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != (ssize_t)sizeof(r))
                r = 0;
        /* Jitter of a tenth, so that many hosts do not resync in step. */
        sd_event_source_set_time_relative(s, c->conf->resync_ms * 1000 - r % (c->conf->resync_ms * 100 + 1));
        sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        inputs_reload(c);
        inputs_raise_floor(c);
        if (c->broker)
                broker_listen(c->broker);
        if (c->desired && c->desired->next_expiry && c->desired->next_expiry <= inputs_now(c))
                inputs_judge(c);
        egress_verify(c->egress, on_verified, c);
        pass_request(c, 0, true);
        return 0;
}

/* One was pulled, removed, given another name: what was found out about those of our servers may not hold any more. */
static void forget_images(struct controller *c)
{
        for (size_t i = 0; i < c->n_keys; i++) {
                c->keys[i]->image_ok = false;
                mem_replace(&c->keys[i]->image_refused, NULL);
        }
}

static void on_event(json_object *event, void *user)
{
        struct controller *c = user;
        const char *type = json_str(event, "Type"), *action = json_str(event, "Action");
        const char *id = json_str(json_get(event, "Actor"), "ID");

        if (str_eq(type, "image"))
                forget_images(c);
        if (str_eq(type, "network"))
                id = json_str(json_path(event, "Actor", "Attributes", NULL), "container");
        /* Health checks and execs of other people's containers come by the thousand. */
        if (action &&
            (str_has_prefix(action, "exec_") || str_has_prefix(action, "health_") || str_eq(action, "top") || str_eq(action, "attach")))
                return;
        if (id)
                observer_forget(c->observer, id);
        pass_request(c, DEBOUNCE_MS, false);
}

/* An Engine that went away ended the containers, or failed what was asked of it meanwhile: no server is to wait for that. */
static void forgive(struct controller *c)
{
        for (size_t i = 0; i < c->n_keys; i++) {
                c->keys[i]->failures = 0;
                c->keys[i]->retry_at_ms = 0;
        }
}

static void on_events_lost(void *user)
{
        struct controller *c = user;

        if (c->engine_left)
                forgive(c);
        c->engine_left = false;
        observer_forget(c->observer, NULL);
        /* A daemon that restarted has rewritten its chains. */
        egress_verify(c->egress, on_verified, c);
        pass_request(c, 0, true);
}

static void on_events_down(void *user)
{
        struct controller *c = user;

        c->engine_left = true;
        log_warning("the Engine's event stream broke");
        pass_request(c, 100, true);
}

int pass_start(struct controller *c, struct err **err)
{
        int r = sd_event_add_time_relative(c->loop, &c->pass_timer, CLOCK_MONOTONIC, 0, 1000, on_pass_timer, c);

        if (r >= 0)
                r = sd_event_add_time_relative(c->loop, &c->resync_timer, CLOCK_MONOTONIC, c->conf->resync_ms * 1000, 0, on_resync, c);
        if (r < 0)
                return err_sys(err, r, "cannot set timers");
        c->full_wanted = true;
        egress_load(c->egress, on_verified, c);
        return engine_events_new(&c->events, c->engine, NULL, on_event, on_events_lost, on_events_down, c, err);
}

void pass_stop(struct controller *c)
{
        c->events = engine_events_free(c->events);
        sd_event_source_disable_unref(c->pass_timer);
        sd_event_source_disable_unref(c->resync_timer);
        c->looked_for = desired_unref(c->looked_for);
        for (size_t i = 0; i < c->n_keys; i++)
                key_free(c->keys[i]);
        free(c->keys);
        free(c->waiters);
        free(c->engine_error);
        free(c->egress_error);
        free(c->egress_last_change);
        free(c->smokes);
}
