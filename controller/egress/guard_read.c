#include "controller/egress/guard_read.h"

#include <stdio.h>

#include "controller/egress/guard_text.h"

static const struct json_limits limits = {.max_bytes = 64U << 20, .max_depth = 64};

static int counter_cmp(const void *a, const void *b)
{
        return strcmp(((const struct guard_counter *)a)->bridge, ((const struct guard_counter *)b)->bridge);
}

static struct guard_counter *counter_of(struct guard_state *s, const char *bridge)
{
        /* Elements of one bridge follow each other in neither set: a search over the last one would not do. */
        for (size_t i = s->n_counters; i > 0; i--)
                if (str_eq(s->counters[i - 1].bridge, bridge))
                        return &s->counters[i - 1];
        s->counters = mem_realloc(s->counters, s->n_counters + 1, sizeof(*s->counters));
        struct guard_counter *c = &s->counters[s->n_counters++];
        *c = (struct guard_counter){};
        snprintf(c->bridge, sizeof(c->bridge), "%s", bridge);
        return c;
}

static void read_counter(struct guard_state *s, enum guard_set set, const char *bridge, json_object *counter)
{
        if (!counter || (set != SET_PAIRS && set != SET_DENIED))
                return;
        struct guard_counter *c = counter_of(s, bridge);
        uint64_t packets = (uint64_t)json_int(counter, "packets", 0), bytes = (uint64_t)json_int(counter, "bytes", 0);

        *(set == SET_PAIRS ? &c->sent_packets : &c->denied_packets) = packets;
        *(set == SET_PAIRS ? &c->sent_bytes : &c->denied_bytes) = bytes;
}

static bool read_bridge(struct element *e, json_object *bridge)
{
        if (!json_object_is_type(bridge, json_type_string) || !bridge_name_valid(json_object_get_string(bridge)))
                return false;
        snprintf(e->bridge, sizeof(e->bridge), "%s", json_object_get_string(bridge));
        return true;
}

/* {"concat": [bridge?, address, port?]}, alone or as {"elem": {"val": …, "comment": …, "counter": …}}. */
static bool read_element(struct guard_state *s, enum guard_set set, json_object *item)
{
        struct element e = {.set = (uint8_t)set};
        json_object *elem = json_get(item, "elem"), *concat = json_get(elem ? json_get(elem, "val") : item, "concat");
        bool port = guard_set_has_port(set);
        size_t at = set == SET_EXTERNAL ? 0 : 1; /* of the address */
        const char *comment = json_str(elem, "comment");

        if (!json_object_is_type(concat, json_type_array) || json_object_array_length(concat) != at + (port ? 2U : 1U))
                return false;
        if (at && !read_bridge(&e, json_object_array_get_idx(concat, 0)))
                return false;
        json_object *address = json_object_array_get_idx(concat, at);
        if (!json_object_is_type(address, json_type_string) || !address_parse(&e.address, json_object_get_string(address)))
                return false;
        if (comment)
                snprintf(e.server, sizeof(e.server), "%s", comment);
        if (port) {
                json_object *number = json_object_array_get_idx(concat, at + 1);
                int64_t value = json_object_is_type(number, json_type_int) ? json_object_get_int64(number) : 0;

                if (value < 1 || value > UINT16_MAX)
                        return false;
                e.port = (uint16_t)value;
        }
        rules_add_element(&s->rules, &e);
        read_counter(s, set, e.bridge, json_get(elem, "counter"));
        return true;
}

static bool read_elements(struct guard_state *s, json_object *set)
{
        json_object *elem = json_get(set, "elem");
        const char *name = json_str(set, "name");
        bool right = true;

        if (!elem)
                return true;
        for (enum guard_set i = 0; i < GUARD_SETS; i++) {
                if (!str_eq(name, guard_set_names[i]))
                        continue;
                for (size_t k = 0; k < json_object_array_length(elem); k++)
                        right &= read_element(s, i, json_object_array_get_idx(elem, k));
        }
        return right;
}

/* Counts and handles are not form. */
static void strip(json_object *o)
{
        if (json_object_is_type(o, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(o); i++)
                        strip(json_object_array_get_idx(o, i));
                return;
        }
        if (!json_object_is_type(o, json_type_object))
                return;
        json_object_object_del(o, "handle");
        json_object_object_del(o, "packets");
        json_object_object_del(o, "bytes");
        json_object_object_foreach (o, key, value) {
                (void)key;
                strip(value);
        }
}

/* The order in which nft lists sets and chains says nothing; that of the rules in a chain does. */
static char *form_line(const char *kind, json_object *o, unsigned *n_rules)
{
        _cleanup_free_ char *text = NULL;
        char number[16] = "";

        json_object_object_del(o, "table");
        json_object_object_del(o, "elem");
        if (str_eq(kind, "rule"))
                snprintf(number, sizeof(number), "%06u", (*n_rules)++);
        strip(o);
        text = json_canonical(o);
        return mem_printf("%s %s %s %s", kind, str_eq(kind, "rule") ? json_str(o, "chain") : "", number, text);
}

/* The reference has the same chains without hooks, so hooks are compared here and are not form. */
static bool read_hook(struct guard_state *s, json_object *chain)
{
        if (!json_get(chain, "hook"))
                return true;
        for (size_t i = 0; i < GUARD_HOOKS; i++) {
                const struct guard_hook *h = &guard_hooks[i];

                if (!str_eq(json_str(chain, "name"), h->chain))
                        continue;
                s->hooks++;
                return str_eq(json_str(chain, "hook"), h->hook) && json_int(chain, "prio", INT64_MAX) == h->priority &&
                       str_eq(json_str(chain, "type"), "filter") && str_eq(json_str(chain, "policy"), "accept");
        }
        return false;
}

static int read_item(struct guard_state *s, const char *kind, json_object *o, char ***lines, unsigned *n_rules, bool *strange)
{
        if (str_eq(kind, "metainfo"))
                return 0;
        if (str_eq(kind, "table")) {
                /* "dormant" switches every hook off. nft 1.0.6 prints the flags' names wrong in JSON: so any flag is one too many. */
                if (json_get(o, "flags"))
                        *strange = true;
                return 0;
        }
        if (str_eq(kind, "set") && !read_elements(s, o))
                *strange = true;
        if (str_eq(kind, "chain")) {
                static const char *const keys[] = {"type", "hook", "prio", "policy"};

                if (!read_hook(s, o))
                        *strange = true;
                for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                        json_object_object_del(o, keys[i]);
        }
        if (str_eq(kind, "counter") && json_str(o, "name")) {
                json_object *total = json_object_new_object();

                json_add_int(total, "packets", json_int(o, "packets", 0));
                json_add_int(total, "bytes", json_int(o, "bytes", 0));
                json_add(s->totals, json_str(o, "name"), total);
        }
        _cleanup_free_ char *line = form_line(kind, o, n_rules);
        *lines = strv_append(*lines, line);
        return 0;
}

int guard_state_parse(struct guard_state *ret, const char *text, size_t n, bool *strange, struct err **err)
{
        _cleanup_guard_state_ struct guard_state s = {};
        _cleanup_json_ json_object *root = NULL;
        _cleanup_strv_ char **lines = NULL;
        unsigned n_rules = 0;

        *strange = false;
        if (json_parse(&root, text, n, "nft", &limits, err) < 0)
                return err_wrap(err, "reading the guard back");
        json_object *items = json_get(root, "nftables");
        if (!json_object_is_type(items, json_type_array))
                return err_set(err, ERR_INVALID, "reading the guard back: nft printed no list");
        s.totals = json_object_new_object();
        for (size_t i = 0; i < json_object_array_length(items); i++) {
                json_object *item = json_object_array_get_idx(items, i);

                json_object_object_foreach (item, kind, o) {
                        if (read_item(&s, kind, o, &lines, &n_rules, strange) < 0)
                                return -1;
                }
        }
        strv_sort(lines);
        _cleanup_free_ char *all = strv_join(lines, "\n");
        sha256_hex(s.form, all, strlen(all));
        rules_sort(&s.rules);
        if (s.n_counters)
                qsort(s.counters, s.n_counters, sizeof(*s.counters), counter_cmp);
        *ret = s;
        s = (struct guard_state){};
        return 0;
}

const struct guard_counter *guard_state_counter(const struct guard_state *s, const char *bridge)
{
        struct guard_counter key = {};

        snprintf(key.bridge, sizeof(key.bridge), "%s", bridge);
        return s->n_counters ? bsearch(&key, s->counters, s->n_counters, sizeof(key), counter_cmp) : NULL;
}

void guard_state_deinit(struct guard_state *s)
{
        rules_deinit(&s->rules);
        free(s->counters);
        if (s->totals)
                json_object_put(s->totals);
        *s = (struct guard_state){};
}
