#include <stdio.h>

#include "common/spawn.h"
#include "controller/egress/egress_private.h"

struct show {
        struct egress *e;
        struct show *next;
        struct spawn *spawn;
        char *server; /* NULL = all */
        egress_show_fn done;
        void *user;
};

static struct show *show_free(struct show *s)
{
        spawn_cancel(s->spawn);
        free(s->server);
        free(s);
        return NULL;
}

struct show *show_free_all(struct show *s)
{
        while (s) {
                struct show *rest = s->next;

                show_free(s);
                s = rest;
        }
        return NULL;
}

static void forget(struct show *s)
{
        struct show **p = &s->e->shows;

        while (*p && *p != s)
                p = &(*p)->next;
        if (*p)
                *p = s->next;
        show_free(s);
}

static json_object *rules_json(const struct egress *e, const struct instance *i)
{
        json_object *rules = json_object_new_array();
        char net[16], text[64];

        for (size_t k = 0; k < i->n_entries; k++) {
                const struct entry *entry = &i->entries[k];
                json_object *rule = json_object_new_object();

                snprintf(text, sizeof(text), "%s %s/%u:%u", entry->protocol == PROTOCOL_TCP ? "tcp" : "udp",
                         address_format(net, entry->net), entry->prefix, entry->port);
                json_add_str(rule, "rule", text);
                json_add_bool(rule, "in_kernel", set_link_test(e->set_link, entry, NULL) == 1);
                json_object_array_add(rules, rule);
        }
        return rules;
}

static json_object *external_json(const struct egress *e, const struct instance *i)
{
        json_object *o = json_object_new_object(), *rules = json_object_new_array(), *rule = json_object_new_object();
        struct element elements[GUARD_SETS];
        char address[16];

        egress_elements(i, elements);
        bool there = set_link_test_element(e->set_link, &elements[0], NULL) == 1;
        _cleanup_free_ char *text = mem_printf("broker: tcp %s/32:%u", address_format(address, i->address), (unsigned)i->http_port);
        json_add_str(rule, "rule", text);
        json_add_bool(rule, "in_kernel", there);
        json_object_array_add(rules, rule);
        json_add_str(o, "server", i->server);
        json_add_str(o, "address", address);
        json_add_bool(o, "external", true);
        json_add_bool(o, "in_force", there && egress_in_force(e, i->bridge));
        json_add(o, "rules", rules);
        return o;
}

static json_object *count_json(uint64_t packets, uint64_t bytes)
{
        json_object *o = json_object_new_object();

        json_add_int(o, "packets", (int64_t)packets);
        json_add_int(o, "bytes", (int64_t)bytes);
        return o;
}

static bool pair_in_kernel(const struct guard_state *guard, const struct instance *i)
{
        for (size_t k = 0; k < guard->rules.n_elements; k++) {
                const struct element *el = &guard->rules.elements[k];

                if (el->set == SET_PAIRS && el->address == i->address && str_eq(el->bridge, i->bridge))
                        return true;
        }
        return false;
}

static json_object *instance_json(const struct egress *e, const struct guard_state *guard, const struct instance *i)
{
        json_object *o = json_object_new_object();
        const struct guard_counter *c = guard_state_counter(guard, i->bridge);
        char address[16];

        json_add_str(o, "server", i->server);
        json_add_str(o, "bridge", i->bridge);
        json_add_str(o, "address", address_format(address, i->address));
        json_add_bool(o, "in_force", egress_in_force(e, i->bridge) && pair_in_kernel(guard, i));
        json_add_bool(o, "smoke", i->smoke);
        if (i->http_port)
                json_add_int(o, "http_port", i->http_port);
        json_add(o, "rules", rules_json(e, i));
        json_add_int(o, "not_supported", (int64_t)i->n_skipped);
        json_add(o, "sent", count_json(c ? c->sent_packets : 0, c ? c->sent_bytes : 0));
        json_add(o, "denied", count_json(c ? c->denied_packets : 0, c ? c->denied_bytes : 0));
        return o;
}

static json_object *show_json(const struct show *s, struct guard_state *guard, bool strange)
{
        const struct egress *e = s->e;
        json_object *o = json_object_new_object(), *instances = json_object_new_array(), *g = json_object_new_object(),
                    *p = json_object_new_object();
        size_t count = 0;

        for (size_t i = 0; i < e->n_instances; i++)
                if (!s->server || str_eq(e->instances[i]->server, s->server))
                        json_object_array_add(instances, e->instances[i]->external ? external_json(e, e->instances[i])
                                                                                   : instance_json(e, guard, e->instances[i]));
        json_add(o, "instances", instances);
        json_add_bool(g, "right", !strange && guard->hooks == GUARD_HOOKS && str_eq(guard->form, e->form));
        json_add(g, "dropped", json_object_get(guard->totals));
        json_add(o, "guard", g);
        json_add_str(p, "backend", e->backend == BACKEND_LEGACY ? "iptables-legacy" : "iptables-nft");
        json_add_str(p, "hook", e->policy.has_user && e->policy.user_reached ? "DOCKER-USER" : "FORWARD");
        json_add_bool(p, "right", policy_state_right(&e->policy));
        if (set_link_count(e->set_link, &count, NULL) == 0)
                json_add_int(p, "entries", (int64_t)count);
        json_add(o, "policy", p);
        return o;
}

static void on_spawn(struct spawn_result *result, struct err *err, void *user)
{
        struct show *s = user;
        _cleanup_guard_state_ struct guard_state guard = {};
        _cleanup_err_ struct err *mine = NULL;
        bool strange = false;

        s->spawn = NULL;
        if (err)
                mine = err_dup(err);
        else if (spawn_result_check(result, "reading the guard", &mine) == 0)
                (void)(guard_state_parse(&guard, result->out.data ? result->out.data : "", result->out.len, &strange, &mine) < 0);
        json_object *o = mine ? NULL : show_json(s, &guard, strange);
        egress_show_fn done = s->done;
        void *whose = s->user;

        forget(s);
        done(o, mine, whose);
}

void egress_show(struct egress *e, const char *server, egress_show_fn done, void *user)
{
        static const char *const argv[] = {"/usr/sbin/nft", "-j", "list", "table", "inet", GUARD_TABLE, NULL};
        const struct spawn_options options = {.argv = argv, .max_output = 128U << 20};
        struct show *s = NEW(struct show);
        _cleanup_err_ struct err *err = NULL;

        *s = (struct show){.e = e, .server = mem_strdup(server), .done = done, .user = user};
        if (spawn_start(&s->spawn, e->loop, &options, on_spawn, s, &err) < 0) {
                show_free(s);
                done(NULL, err, user);
                return;
        }
        s->next = e->shows;
        e->shows = s;
}
