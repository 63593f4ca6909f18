#include "controller/egress/egress.h"

#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#include "common/log.h"
#include "controller/egress/egress_private.h"
#include "controller/egress/watch.h"

#define RETRY_FIRST_MS 500
#define RETRY_MAX_MS   30000

static struct instance *instance_free(struct instance *i)
{
        if (!i)
                return NULL;
        free(i->entries);
        free(i);
        return NULL;
}
DEFINE_FREEP(struct instance *, instance_free)

int egress_new(struct egress **ret, sd_event *loop, const struct conf *conf, egress_event_fn changed, void *user, struct err **err)
{
        _cleanup_(egress_freep) struct egress *e = NEW(struct egress);
        const struct passwd *broker = conf->broker_user ? getpwnam(conf->broker_user) : NULL;

        if (!conf->mark_bit || conf->mark_bit & (conf->mark_bit - 1))
                return err_set(err, ERR_INVALID, "network.mark 0x%x is not a single bit", conf->mark_bit);
        e->loop = sd_event_ref(loop);
        e->guard = (struct guard_params){
                .mark = conf->mark_bit, .own = geteuid(), .have_broker = broker, .broker = broker ? broker->pw_uid : 0};
        e->changed = changed;
        e->user = user;
        if (set_link_new(&e->set_link, err) < 0 || watch_new(&e->watch, e, err) < 0)
                return -1;
        *ret = TAKE_PTR(e);
        return 0;
}

struct egress *egress_free(struct egress *e)
{
        if (!e)
                return NULL;
        round_free(e->round);
        show_free_all(e->shows);
        watch_free(e->watch);
        set_link_free(e->set_link);
        for (size_t i = 0; i < e->n_requests; i++)
                err_free(e->requests[i].err);
        free(e->requests);
        for (size_t i = 0; i < e->n_instances; i++)
                instance_free(e->instances[i]);
        free(e->instances);
        strv_free(e->gone);
        strv_free(e->kept);
        rules_deinit(&e->known);
        sd_event_source_disable_unref(e->start);
        sd_event_source_disable_unref(e->retry);
        sd_event_unref(e->loop);
        free(e);
        return NULL;
}

static void request(struct egress *e, egress_done_fn done, void *user, struct err *err)
{
        e->requests = mem_realloc(e->requests, e->n_requests + 1, sizeof(*e->requests));
        e->requests[e->n_requests++] = (struct request){.done = done, .user = user, .err = err};
}

static int on_start(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct egress *e = user;

        if (e->round)
                return 0;
        struct request *requests = TAKE_PTR(e->requests);
        size_t n = e->n_requests;

        e->n_requests = 0;
        round_start(e, requests, n);
        return 0;
}

void egress_look(struct egress *e, bool guard)
{
        e->want_look = true;
        e->want_guard |= guard;
        egress_kick(e, false);
}

void egress_kick(struct egress *e, bool full)
{
        int r = 0;

        e->want_full |= full;
        if (e->round)
                return;
        if (!e->start) {
                r = sd_event_add_time_relative(e->loop, &e->start, CLOCK_MONOTONIC, 0, 1, on_start, e);
        } else {
                r = sd_event_source_set_time_relative(e->start, 0);
                if (r >= 0)
                        r = sd_event_source_set_enabled(e->start, SD_EVENT_ONESHOT);
        }
        if (r < 0)
                log_error("cannot schedule a change of the kernel's rules", "error", strerror(-r));
}

struct instance *egress_find(const struct egress *e, const char *bridge)
{
        for (size_t i = 0; i < e->n_instances; i++)
                if (str_eq(e->instances[i]->bridge, bridge))
                        return e->instances[i];
        return NULL;
}

static struct instance *instance_place(struct egress *e, const char *bridge)
{
        struct instance *i = egress_find(e, bridge);

        if (!i) {
                i = NEW(struct instance);
                snprintf(i->bridge, sizeof(i->bridge), "%s", bridge);
                e->instances = mem_realloc(e->instances, e->n_instances + 1, sizeof(struct instance *));
                e->instances[e->n_instances++] = i;
        }
        return i;
}

static void instance_drop(struct egress *e, size_t at)
{
        instance_free(e->instances[at]);
        e->instances[at] = e->instances[--e->n_instances];
}

/* The name stands as a comment in the kernel and must not end it. */
static void copy_name(char out[41], const char *name)
{
        snprintf(out, 41, "%s", name ? name : "");
        for (char *c = out; *c; c++)
                if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", *c))
                        *c = '_';
}

static int instance_fill(struct instance *i, const struct egress_instance *wish, struct err **err)
{
        _cleanup_rules_ struct rules rules = {};

        if (!bridge_name_valid(wish->bridge))
                return err_set(err, ERR_INVALID, "\"%s\" is not a bridge of ours", wish->bridge);
        if (!address_parse(&i->address, wish->address))
                return err_set(err, ERR_INVALID, "\"%s\" is not an IPv4 address", wish->address);
        if (wish->external && !wish->http_port)
                return err_set(err, ERR_INVALID, "an external server without a port");
        for (size_t k = 0; k < wish->n_rules && !wish->smoke; k++) {
                int r = rules_add_rule(&rules, i->address, &wish->rules[k], err);
                if (r < 0)
                        return -1;
                i->n_skipped += r > 0;
        }
        rules_sort(&rules);
        copy_name(i->server, wish->server);
        i->smoke = wish->smoke;
        i->external = wish->external;
        i->http_port = wish->http_port;
        i->n_entries = rules.n_entries;
        i->entries = TAKE_PTR(rules.entries);
        return 0;
}

/* Two bridges with one address: the older one must go first, or its permissions would be the newcomer's too. One that was only found
 * yields. */
static int check_address(struct egress *e, const struct instance *wish, const char *bridge, struct err **err)
{
        char address[16];

        /* External servers may well share an address. */
        for (size_t i = wish->external ? 0 : e->n_instances; i > 0; i--) {
                const struct instance *other = e->instances[i - 1];

                if (other->external || other->address != wish->address || str_eq(other->bridge, bridge))
                        continue;
                if (!other->adopted)
                        return err_set(err, ERR_CONFLICT, "%s is still the address of bridge %s: remove that one first",
                                       address_format(address, wish->address), other->bridge);
                instance_drop(e, i - 1);
        }
        return 0;
}

void egress_set(struct egress *e, const struct egress_instance *instance, egress_done_fn done, void *user)
{
        _cleanup_(instance_freep) struct instance *wish = NEW(struct instance);
        struct err *err = NULL;

        if (instance_fill(wish, instance, &err) < 0 || check_address(e, wish, instance->bridge, &err) < 0) {
                err_wrap(&err, "egress of %s", instance->server ? instance->server : instance->bridge);
                request(e, done, user, err);
                egress_kick(e, false);
                return;
        }
        struct instance *i = instance_place(e, instance->bridge);
        memcpy(wish->bridge, i->bridge, sizeof(i->bridge));
        free(i->entries);
        *i = *wish;
        wish->entries = NULL;
        i->generation = ++e->generation;
        request(e, done, user, NULL);
        egress_kick(e, false);
}

void egress_remove(struct egress *e, const char *bridge, egress_done_fn done, void *user)
{
        for (size_t i = e->n_instances; i > 0; i--)
                if (str_eq(e->instances[i - 1]->bridge, bridge))
                        instance_drop(e, i - 1);
        /* Before the first read-back we do not know what the kernel holds for it. */
        if (!e->adopted)
                e->gone = strv_append(e->gone, bridge);
        e->generation++;
        request(e, done, user, NULL);
        egress_kick(e, !e->adopted);
}

void egress_load(struct egress *e, egress_done_fn done, void *user)
{
        request(e, done, user, NULL);
        egress_kick(e, true);
}

void egress_verify(struct egress *e, egress_done_fn done, void *user)
{
        egress_load(e, done, user);
}

void egress_keep_only(struct egress *e, char *const *bridges, egress_done_fn done, void *user)
{
        for (size_t i = e->n_instances; i > 0; i--)
                if (!strv_contains(bridges, e->instances[i - 1]->bridge))
                        instance_drop(e, i - 1);
        /* Those that stay may be known to the kernel alone so far: they keep what they have until it was read. */
        if (!e->adopted) {
                strv_free(e->kept);
                e->kept = strv_dup(bridges);
                e->keeping = true;
        }
        e->generation++;
        request(e, done, user, NULL);
        egress_kick(e, !e->adopted);
}

bool egress_in_force(const struct egress *e, const char *bridge)
{
        const struct instance *i = egress_find(e, bridge);

        return i && e->sound && i->in_force && !i->adopted;
}

bool egress_has(const struct egress *e, const char *bridge)
{
        return egress_find(e, bridge);
}

static int entry_address_cmp(const void *key, const void *entry)
{
        uint32_t x = *(const uint32_t *)key, y = ((const struct entry *)entry)->address;

        return x < y ? -1 : x > y;
}

/* Entries of one address are neighbours. */
static void adopt_entries(struct instance *i, const struct rules *known)
{
        const struct entry *first = known->n_entries
                                            ? bsearch(&i->address, known->entries, known->n_entries, sizeof(*first), entry_address_cmp)
                                            : NULL,
                           *end = first;

        if (!first)
                return;
        while (first > known->entries && first[-1].address == i->address)
                first--;
        while (end < known->entries + known->n_entries && end->address == i->address)
                end++;
        i->n_entries = (size_t)(end - first);
        i->entries = mem_dup(first, i->n_entries * sizeof(*first));
}

static bool has_address(const struct egress *e, uint32_t address)
{
        for (size_t i = 0; i < e->n_instances; i++)
                if (e->instances[i]->address == address && !e->instances[i]->external)
                        return true;
        return false;
}

static bool may_adopt(const struct egress *e, const char *bridge)
{
        return !egress_find(e, bridge) && !strv_contains(e->gone, bridge) && (!e->keeping || strv_contains(e->kept, bridge));
}

static void adopt_external(struct egress *e, const struct element *element)
{
        if (!bridge_name_valid(element->server) || !may_adopt(e, element->server))
                return;
        struct instance *i = instance_place(e, element->server);
        i->address = element->address;
        i->http_port = element->port;
        i->external = i->adopted = true;
}

void egress_adopt(struct egress *e)
{
        if (e->adopted)
                return;
        e->adopted = true;
        for (size_t k = 0; k < e->known.n_elements; k++) {
                const struct element *pair = &e->known.elements[k];

                if (pair->set == SET_EXTERNAL)
                        adopt_external(e, pair);

                if (pair->set != SET_PAIRS || !may_adopt(e, pair->bridge) || has_address(e, pair->address))
                        continue;
                struct instance *i = instance_place(e, pair->bridge);
                i->address = pair->address;
                i->adopted = true;
                copy_name(i->server, pair->server);
                adopt_entries(i, &e->known);
                for (size_t m = 0; m < e->known.n_elements; m++) {
                        const struct element *other = &e->known.elements[m];

                        if (!str_eq(other->bridge, pair->bridge) || other->address != pair->address)
                                continue;
                        if (other->set == SET_HTTP)
                                i->http_port = other->port;
                        i->smoke |= other->set == SET_OWN;
                }
        }
        e->gone = strv_free(e->gone);
        e->kept = strv_free(e->kept);
}

static int by_address(const void *a, const void *b)
{
        const struct instance *const *x = a, *const *y = b;

        return (*x)->address < (*y)->address ? -1 : (*x)->address > (*y)->address;
}

size_t egress_elements(const struct instance *i, struct element out[GUARD_SETS])
{
        struct element element = {.address = i->address};
        size_t n = 0;

        if (i->external) {
                snprintf(element.server, sizeof(element.server), "%s", i->bridge);
                element.port = i->http_port;
                element.set = SET_EXTERNAL;
                out[0] = element;
                return 1;
        }
        memcpy(element.bridge, i->bridge, sizeof(element.bridge));
        memcpy(element.server, i->server, sizeof(element.server));
        element.set = SET_PAIRS;
        out[n++] = element;
        element.set = SET_DENIED;
        out[n++] = element;
        element.port = i->http_port;
        element.set = SET_HTTP;
        if (i->http_port)
                out[n++] = element;
        element.set = SET_OWN;
        if (i->http_port && i->smoke)
                out[n++] = element;
        return n;
}

void egress_target(const struct egress *e, struct rules *ret)
{
        _cleanup_free_ struct instance **sorted = mem_dup(e->instances, e->n_instances * sizeof(struct instance *));

        *ret = (struct rules){};
        if (e->n_instances)
                qsort(sorted, e->n_instances, sizeof(struct instance *), by_address);
        for (size_t k = 0; k < e->n_instances; k++) {
                const struct instance *i = sorted[k];
                struct element elements[GUARD_SETS];
                size_t n = egress_elements(i, elements);

                for (size_t m = 0; m < n; m++)
                        rules_add_element(ret, &elements[m]);
                for (size_t m = 0; m < i->n_entries; m++)
                        rules_add_entry(ret, i->entries[m]);
        }
        rules_sort(ret);
}

static int on_retry(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        egress_kick(user, true);
        return 0;
}

static void schedule_retry(struct egress *e)
{
        e->retry_ms = e->retry_ms ? MIN(e->retry_ms * 2, (uint64_t)RETRY_MAX_MS) : RETRY_FIRST_MS;
        e->retry = sd_event_source_disable_unref(e->retry);
        int r = sd_event_add_time_relative(e->loop, &e->retry, CLOCK_MONOTONIC, e->retry_ms * 1000, 0, on_retry, e);
        if (r < 0)
                log_error("cannot schedule another attempt at the kernel's rules", "error", strerror(-r));
}

static void note_success(struct egress *e, uint64_t generation)
{
        e->sound = true;
        e->loaded = true;
        e->retry_ms = 0;
        e->retry = sd_event_source_disable_unref(e->retry);
        for (size_t i = 0; i < e->n_instances; i++)
                if (e->instances[i]->generation <= generation)
                        e->instances[i]->in_force = true;
}

static void tell_change(struct egress *e, const char *foreign, const struct err *err)
{
        bool was_broken = e->told_broken;

        if (foreign)
                e->changed(foreign, !err, e->user);
        else if (err && e->loaded)
                e->changed(err_msg(err), false, e->user);
        else if (!err && was_broken)
                e->changed("the rules are in force again", true, e->user);
        e->told_broken = err && (foreign || e->loaded);
}

void egress_round_done(struct egress *e, struct request *requests, size_t n, uint64_t generation, const char *foreign, struct err *err)
{
        _cleanup_free_ struct request *answered = requests;

        e->round = round_free(e->round);
        if (!err) {
                note_success(e, generation);
        } else {
                e->known_valid = false;
                e->sound = false;
                if (e->loaded)
                        schedule_retry(e);
        }
        if (e->n_requests || e->want_full || e->want_look)
                egress_kick(e, false);
        if (e->changed)
                tell_change(e, foreign, err);
        for (size_t i = 0; i < n; i++) {
                if (answered[i].done)
                        answered[i].done(answered[i].err ? answered[i].err : err, answered[i].user);
                err_free(answered[i].err);
        }
}
