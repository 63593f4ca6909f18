#include "controller/desired.h"

static void names_init(struct instance_names *names, const struct conf *conf, const char *server, const struct spec *spec)
{
        names->container = spec_container_name(server, spec, "server");
        names->network = spec_network_name(server, spec, "server");
        spec_bridge_name(names->bridge, conf->audience, server, spec, "server");
        strcpy(names->spec_hash, spec->hash);
}

static void judge(struct desired_server *s, const struct conf *conf, const struct forge_view *view, time_t now)
{
        _cleanup_(spec_freep) struct spec *spec = NULL;

        s->verdict = forge_judge(view, s->entry, conf, now, &s->record, &spec, &s->why);
        if (!spec || !s->record)
                return;
        bool runs = s->entry->enabled && s->entry->lifecycle == LIFECYCLE_ALWAYS_ON;
        s->may_run = runs && s->verdict == FORGE_APPROVED;
        s->may_stay = runs && (s->verdict == FORGE_APPROVED || s->verdict == FORGE_HISTORY_REFUSED);
        names_init(&s->names, conf, s->name, spec);
}

struct desired *desired_new(const struct conf *conf, struct shared *registry, struct shared *view, time_t now)
{
        struct desired *d = NEW(struct desired);
        const struct registry *r = registry->value;

        d->refs = 1;
        d->registry = shared_ref(registry);
        d->view = shared_ref(view);
        d->n = r->n_entries;
        d->servers = mem_alloc(d->n * sizeof(*d->servers));
        for (size_t i = 0; i < d->n; i++) {
                struct desired_server *s = &d->servers[i];

                s->name = r->entries[i]->name;
                s->entry = r->entries[i];
                judge(s, conf, view->value, now);
                time_t end = s->verdict == FORGE_APPROVED ? s->record->expires_at : 0;
                if (end && (!d->next_expiry || end < d->next_expiry))
                        d->next_expiry = end;
        }
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

bool desired_approval_valid(const struct desired *d, const char *id, const char *server, time_t now)
{
        const struct forge_view *view = d->view->value;

        if (!id || strv_contains(view->next ? view->next->revoked : NULL, id))
                return false;
        for (size_t i = 0; i < view->n_items; i++) {
                const struct record *r = view->items[i].record;

                if (r && !view->items[i].refused && r->kind == RECORD_APPROVAL && str_eq(r->id, id) && str_eq(r->server, server))
                        return !r->expires_at || r->expires_at > now;
        }
        return false;
}
