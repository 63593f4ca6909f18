#include "common/smoke/smoke_internal.h"

/*
 * Cleaning up, before and after: by name and labels where the id is not known, because an answer of the Engine may have been lost after it
 * acted. What carries the name but not our labels is somebody else's: never touched.
 */

static bool is_ours(const struct smoke *s, json_object *labels)
{
        return str_eq(json_str(labels, LABEL_OWNER), s->request.owner) && str_eq(json_str(labels, LABEL_SERVER), s->request.entry->name) &&
               str_eq(json_str(labels, LABEL_SPEC), s->request.spec->hash) && str_eq(json_str(labels, LABEL_ROLE), ROLE_SMOKE);
}

static void found(struct smoke *s, const char *kind, const char *name, char **id, json_object *labels, json_object *body, struct err *err)
{
        struct err *conflict = NULL;

        if (err && err_code(err) != ERR_NOT_FOUND) {
                smoke_fail(s, err_dup(err));
                return;
        }
        if (!err && is_ours(s, labels)) {
                mem_replace(id, mem_strdup(json_str(body, "Id")));
        } else if (!err && !s->cleaning) {
                err_set(&conflict, ERR_CONFLICT, "somebody else's %s has the name %s: remove or rename it", kind, name);
                smoke_fail(s, conflict);
                return;
        }
        smoke_next(s);
}

static void on_container(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        found(s, "container", s->container, &s->container_id, json_path(body, "Config", "Labels", NULL), body, err);
}

static void on_network(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        found(s, "network", s->network, &s->network_id, json_get(body, "Labels"), body, err);
}

void smoke_find_container(struct smoke *s)
{
        if (s->cleaning && (s->container_id || !s->container_asked))
                smoke_next(s);
        else
                engine_container_inspect(s->engine, s->container, smoke_answered, smoke_pending_new(s, &s->pending, on_container));
}

void smoke_find_network(struct smoke *s)
{
        if (s->cleaning && (s->network_id || !s->network_asked))
                smoke_next(s);
        else
                engine_network_inspect(s->engine, s->network, smoke_answered, smoke_pending_new(s, &s->pending, on_network));
}

static void on_removed(struct smoke *s, _unused_ int status, _unused_ json_object *body, struct err *err)
{
        if (err)
                smoke_fail(s, err_dup(err));
        else
                smoke_next(s);
}

static void on_container_removed(struct smoke *s, int status, json_object *body, struct err *err)
{
        if (!err) {
                mem_replace(&s->container_id, NULL);
                s->container_asked = false;
        }
        on_removed(s, status, body, err);
}

static void on_network_removed(struct smoke *s, int status, json_object *body, struct err *err)
{
        if (!err) {
                mem_replace(&s->network_id, NULL);
                s->network_asked = false;
        }
        on_removed(s, status, body, err);
}

void smoke_remove_container(struct smoke *s)
{
        if (s->container_id)
                engine_container_remove(s->engine, s->container_id, smoke_answered,
                                        smoke_pending_new(s, &s->pending, on_container_removed));
        else
                smoke_next(s);
}

void smoke_remove_network(struct smoke *s)
{
        if (s->network_id)
                engine_network_remove(s->engine, s->network_id, smoke_answered, smoke_pending_new(s, &s->pending, on_network_removed));
        else
                smoke_next(s);
}
