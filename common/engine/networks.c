#include "common/engine/internal.h"

#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS   1000

static char *network_path(const char *id, const char *verb)
{
        _cleanup_free_ char *escaped = engine_escape(id);

        return mem_printf("/networks/%s%s", escaped, verb);
}

static bool inspected(struct engine_call *c, int *status, json_object **body, struct err **err)
{
        const char *id = c->context;

        if (*err || str_eq(json_str(*body, "Id"), id) || str_eq(json_str(*body, "Name"), id))
                return false;
        *status = 404;
        (void)err_set(err, ERR_NOT_FOUND, "%s: the Engine knows no such network (it answered with %s)", c->what,
                      json_str(*body, "Name") ? json_str(*body, "Name") : "one without a name");
        return false;
}

void engine_network_inspect(struct engine *e, const char *id, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = network_path(id, "");
        struct engine_call *c = call_new(e, &(struct engine_request){.method = "GET", .path = path}, done, user);

        /* The Engine also takes the beginning of an id: make sure it is the one that was meant. */
        c->step = inspected;
        c->context = mem_strdup(id);
        c->context_free = free;
        call_enqueue(c);
}

void engine_network_create(struct engine *e, json_object *body, engine_done_fn done, void *user)
{
        engine_call_start(e, NULL, &(struct engine_request){.method = "POST", .path = "/networks/create", .body = body}, done, user);
}

static json_object *disconnect_body(const char *container, bool force)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "Container", container);
        json_add_bool(o, "Force", force);
        return o;
}

void engine_network_disconnect(struct engine *e, const char *network, const char *container, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = network_path(network, "/disconnect");
        _cleanup_json_ json_object *body = disconnect_body(container, true);

        engine_call_start(e, NULL, &(struct engine_request){.method = "POST", .path = path, .body = body}, done, user);
}

/* -- remove: DELETE; while it "has active endpoints": inspect, disconnect each, DELETE again, with backoff until the deadline ---------- */

struct network_removal {
        char *path;
        char *disconnect_path;
        enum { DELETING, LOOKING, DISCONNECTING } phase;
        json_object *endpoints; /* [{"Container":…,"Force":…}] still to be disconnected */
        size_t next;
        uint64_t delay_ms;
};

static void network_removal_free(void *state)
{
        struct network_removal *r = state;

        json_object_put(r->endpoints);
        free(r->path);
        free(r->disconnect_path);
        free(r);
}

/*
 * Whom to disconnect. A key "ep-…" is an endpoint that no container holds any more (left over from an Engine that was killed):
 * only force clears it, and it touches no container. Source: libnetwork's endpoints in Engine's network inspect.
 */
static json_object *list_endpoints(json_object *network)
{
        json_object *list = json_object_new_array(), *containers = json_get(network, "Containers");

        if (!json_object_is_type(containers, json_type_object))
                return list;
        json_object_object_foreach (containers, key, value) {
                bool stale = str_has_prefix(key, "ep-");
                const char *name = stale ? json_str(value, "Name") : key;
                if (name && *name)
                        json_object_array_add(list, disconnect_body(name, stale));
        }
        return list;
}

static bool disconnect_next(struct engine_call *c, struct network_removal *r)
{
        if (r->next < json_object_array_length(r->endpoints)) {
                r->phase = DISCONNECTING;
                call_again(c, "POST", r->disconnect_path, NULL, json_object_array_get_idx(r->endpoints, r->next++), 0);
                return true;
        }
        r->phase = DELETING;
        r->delay_ms = MIN(MAX(r->delay_ms * 2, (uint64_t)RETRY_FIRST_MS), (uint64_t)RETRY_MAX_MS);
        call_again(c, "DELETE", r->path, NULL, NULL, r->delay_ms);
        return true;
}

static bool network_removed(struct engine_call *c, int *status, json_object **body, struct err **err)
{
        static const char *const in_use[] = {"active endpoints", "network is being used", "associated containers", NULL};
        struct network_removal *r = c->context;
        bool gone = *err && err_code(*err) == ERR_NOT_FOUND;

        switch (r->phase) {
        case DELETING:
                if (gone) {
                        *err = err_free(*err);
                        *status = 204;
                }
                if (!*err || *status == 0 || !answer_says(*err, in_use))
                        return false;
                r->phase = LOOKING;
                call_again(c, "GET", r->path, NULL, NULL, 0);
                return true;
        case LOOKING:
                if (*err && !gone)
                        return false;
                json_object_put(r->endpoints);
                r->endpoints = list_endpoints(*body);
                r->next = 0;
                return disconnect_next(c, r);
        case DISCONNECTING:
                /* An endpoint that went by itself is no failure; one that stays shows at the next DELETE. */
                if (*err && *status == 0)
                        return false;
                return disconnect_next(c, r);
        }
        return false;
}

void engine_network_remove(struct engine *e, const char *id, engine_done_fn done, void *user)
{
        _cleanup_free_ char *path = network_path(id, "");
        struct network_removal *r = NEW(struct network_removal);
        struct engine_call *c = call_new(e, &(struct engine_request){.method = "DELETE", .path = path}, done, user);

        r->path = mem_strdup(path);
        r->disconnect_path = network_path(id, "/disconnect");
        c->step = network_removed;
        c->context = r;
        c->context_free = network_removal_free;
        call_enqueue(c);
}
