#include "controller/desired.h"

#define PLACE_SEPARATOR '.'

/* instance: ROLE_SERVER, or the number of a place. */
static void names_init(struct instance_names *names, const struct conf *conf, const char *server, const struct spec *spec,
                       const char *instance)
{
        names->container = spec_container_name(server, spec, instance);
        names->network = spec_network_name(server, spec, instance);
        spec_bridge_name(names->bridge, conf->audience, server, spec, instance);
        strcpy(names->spec_hash, spec->hash);
}

char *desired_place_name(const char *server, const char *place)
{
        return place ? mem_printf("%s%c%s", server, PLACE_SEPARATOR, place) : mem_strdup(server);
}

/* A rejection of it or of its proposal ends an approval as well: as forge_judge() has it. */
static bool is_rejected(const struct forge_view *view, const struct record *approval)
{
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                if (r && !view->items[i].refused && r->kind == RECORD_REJECTION &&
                    (str_eq(r->proposal, approval->id) || (approval->proposal && str_eq(r->proposal, approval->proposal))))
                        return true;
        }
        return false;
}

/* Does this item approve something of the server, signed, unrevoked, unexpired? */
static bool stands(const struct forge_view *view, const struct forge_item *item, const char *server, time_t now)
{
        const struct record *r = item->record;

        if (!r || item->refused || r->kind != RECORD_APPROVAL || !str_eq(r->server, server) || (!r->image && !r->url) || !r->spec_sha256)
                return false;
        if ((view->next && forge_state_revokes(view->next, r)) || is_rejected(view, r))
                return false;
        return !r->expires_at || r->expires_at > now;
}

/*
 * Between `approve` and `promote` the newest approval is for an entry that the registry does not have yet. Nothing starts then, but what
 * runs by the approval before it, for exactly the entry that stands there, is not stopped for that.
 */
static void judge_former(struct desired_server *s, const struct conf *conf, const struct forge_view *view, time_t now)
{
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;
                _cleanup_(spec_freep) struct spec *spec = NULL;

                if (!stands(view, &view->items[i], s->name, now) || r == s->record || !str_eq(r->entry_sha256, s->entry->entry_sha256))
                        continue;
                if (spec_build(&spec, s->entry, r->image, NULL) < 0 || !str_eq(spec->hex, r->spec_sha256))
                        continue;
                s->record = r;
                s->may_stay = true;
                names_init(&s->names, conf, s->name, spec, ROLE_SERVER);
                return;
        }
}

static void judge(struct desired_server *s, const struct conf *conf, const struct forge_view *view, time_t now)
{
        _cleanup_(spec_freep) struct spec *spec = NULL;
        bool runs = s->entry->enabled;

        s->verdict = forge_judge(view, s->entry, conf, now, &s->record, &spec, &s->why);
        if (spec && s->record) {
                s->may_run = runs && s->verdict == FORGE_APPROVED;
                s->may_stay = runs && (s->verdict == FORGE_APPROVED || s->verdict == FORGE_HISTORY_REFUSED);
                names_init(&s->names, conf, s->name, spec, ROLE_SERVER);
        } else if (runs && (s->verdict == FORGE_ENTRY_MISMATCH || s->verdict == FORGE_DIGEST_MISMATCH)) {
                judge_former(s, conf, view, now);
        }
}

static void end_at(struct desired *d, time_t end)
{
        if (end && (!d->next_expiry || end < d->next_expiry))
                d->next_expiry = end;
}

bool desired_on_demand(const struct desired_server *s)
{
        return s->entry->lifecycle == LIFECYCLE_ON_DEMAND || registry_entry_has_instances(s->entry);
}

unsigned desired_places(const struct conf *conf)
{
        return conf->gateway_max_server_instances + 1;
}

const char *desired_instance(const struct desired_server *s)
{
        return s->place ? s->name + strlen(s->server) + 1 : NULL;
}

/* What is judged of the server holds for each of its places. */
static void place_init(struct desired_server *ret, const struct desired_server *s, const struct conf *conf, unsigned place)
{
        _cleanup_free_ char *number = mem_printf("%u", place);
        struct spec spec = {0};

        *ret = *s;
        ret->name = desired_place_name(s->server, number);
        ret->place = place;
        ret->why = mem_strdup(s->why);
        ret->names = (struct instance_names){0};
        if (!s->names.container)
                return;
        strcpy(spec.hash, s->names.spec_hash);
        spec.hex = spec.hash + strlen(SPEC_VERSION ":");
        names_init(&ret->names, conf, s->server, &spec, number);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct desired_server *)a)->name, ((const struct desired_server *)b)->name);
}

static void add_server(struct desired *d, const struct conf *conf, const struct registry_entry *entry, const struct forge_view *view,
                       time_t now)
{
        struct desired_server *s = &d->servers[d->n++];
        bool has_instances = registry_entry_has_instances(entry);

        s->name = s->server = entry->name;
        s->entry = entry;
        judge(s, conf, view, now);
        if (s->may_stay)
                end_at(d, s->record->expires_at);
        for (unsigned i = 1; has_instances && i <= desired_places(conf); i++)
                place_init(&d->servers[d->n++], s, conf, i);
}

struct desired *desired_new(const struct conf *conf, struct shared *registry, struct shared *view, time_t now)
{
        struct desired *d = NEW(struct desired);
        const struct registry *r = registry->value;
        size_t n = r->n_entries;

        d->refs = 1;
        d->registry = shared_ref(registry);
        d->view = shared_ref(view);
        for (size_t i = 0; i < r->n_entries; i++)
                n += registry_entry_has_instances(r->entries[i]) ? desired_places(conf) : 0;
        d->servers = mem_alloc(n * sizeof(*d->servers));
        for (size_t i = 0; i < r->n_entries; i++)
                add_server(d, conf, r->entries[i], view->value, now);
        if (d->n > 0)
                qsort(d->servers, d->n, sizeof(*d->servers), by_name);
        /* The version before may run meanwhile: its end is one too. */
        const struct forge_view *v = view->value;
        for (size_t i = 0; i < v->n_items; i++)
                if (v->items[i].record && stands(v, &v->items[i], v->items[i].record->server, now))
                        end_at(d, v->items[i].record->expires_at);
        return d;
}

struct desired *desired_ref(struct desired *d)
{
        if (d)
                d->refs++;
        return d;
}

struct desired *desired_unref(struct desired *d)
{
        if (!d || --d->refs > 0)
                return NULL;
        for (size_t i = 0; i < d->n; i++) {
                free(d->servers[i].why);
                if (d->servers[i].place)
                        free((char *)(uintptr_t)d->servers[i].name);
                free(d->servers[i].names.container);
                free(d->servers[i].names.network);
        }
        free(d->servers);
        shared_unref(d->registry);
        shared_unref(d->view);
        free(d);
        return NULL;
}

static int compare_name(const void *key, const void *item)
{
        return strcmp(key, ((const struct desired_server *)item)->name);
}

const struct desired_server *desired_find(const struct desired *d, const char *name)
{
        return d && d->n ? bsearch(name, d->servers, d->n, sizeof(*d->servers), compare_name) : NULL;
}

bool desired_has_external(const struct desired *d)
{
        for (size_t i = 0; d && i < d->n; i++)
                if (d->servers[i].may_stay && d->servers[i].entry->source == SOURCE_URL)
                        return true;
        return false;
}

bool desired_covers(const struct desired *d, const char *server, const char *spec_hash, time_t now)
{
        const struct forge_view *view = d->view ? d->view->value : NULL;
        _cleanup_free_ char *name = mem_strndup(server, strcspn(server, (const char[]){PLACE_SEPARATOR, 0}));

        for (size_t i = 0; view && spec_hash && i < view->n_items; i++)
                if (stands(view, &view->items[i], name, now) && str_has_prefix(spec_hash, SPEC_VERSION ":") &&
                    str_eq(spec_hash + strlen(SPEC_VERSION ":"), view->items[i].record->spec_sha256))
                        return true;
        return false;
}

bool desired_allows(const struct desired *d, const char *server, const char *spec_hash, time_t now)
{
        const struct desired_server *s = desired_find(d, server);

        if (!s || !spec_hash || !s->entry->enabled)
                return false;
        return (s->may_stay && str_eq(s->names.spec_hash, spec_hash)) || desired_covers(d, server, spec_hash, now);
}
