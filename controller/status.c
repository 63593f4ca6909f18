/*
 * What `bulkhead status` and `bulkhead plan` show, as JSON. Reads the controller, changes nothing.
 */
#include "controller/controller.h"

#include <stdio.h>

#include "common/text.h"

static void add_time(json_object *o, const char *key, time_t t)
{
        char text[TEXT_TIME_MAX];

        if (t)
                json_add_str(o, key, text_format_time(text, t));
}

static const char *why_now(const struct controller *c, const struct key *key)
{
        if (c->engine_error && (!key || !key->plan))
                return c->engine_error;
        if (!key || !key->plan)
                return "not looked at yet";
        return key_why(key);
}

static void add_key(json_object *o, const struct key *key)
{
        if (!key || !key->plan)
                return;
        json_add_str(o, "container", key->plan->container);
        json_add_str(o, "id", key->plan->id);
        json_add_str(o, "address", key->plan->address);
        json_add_str(o, "bridge", key->plan->bridge);
        add_time(o, "since", key->plan->started_at);
        json_add_int(o, "restarts", key->restarts);
        json_add_bool(o, "busy", key->busy);
        if (key->plan->state == SERVER_RUNNING && key->session.container)
                json_add_bool(o, "session", str_eq(key->session.container, key->plan->id));
        if (key->busy && key->next < key->plan->n_actions)
                json_add_str(o, "doing", action_name(key->plan->actions[key->next].kind));
        if (key_retry_in_ms(key) && key->plan->n_actions)
                json_add_int(o, "retry_in_ms", (int64_t)key_retry_in_ms(key));
        json_add(o, "drift", json_from_strv(key->plan->drift));
        if (key->differs)
                json_add(o, "withheld", json_from_strv(key->differs));
}

static void add_record(json_object *o, const struct desired_server *s)
{
        static const char *const transports[] = {
                [TRANSPORT_STDIO] = "stdio", [TRANSPORT_STREAMABLE_HTTP] = "streamable-http", [TRANSPORT_SSE] = "sse"};

        json_add_str(o, "verdict", forge_verdict_name(s->verdict));
        json_add_str(o, "transport", transports[s->entry->transport]);
        json_add_str(o, "lifecycle", s->entry->lifecycle == LIFECYCLE_ON_DEMAND ? "on-demand" : "always-on");
        json_add_str(o, "image", s->entry->image);
        json_add_str(o, "url", s->entry->url);
        if (s->names.container)
                json_add_str(o, "spec", s->names.spec_hash);
        if (!s->record)
                return;
        json_add_str(o, "approval", s->record->id);
        json_add_str(o, "approved_by", s->record->approved_by);
        add_time(o, "expires_at", s->record->expires_at);
        if (s->record->image)
                json_add_str(o, "digest", s->record->image->digest);
}

/* Without a judgement there are still the servers of the registry to be told about. */
static json_object *unjudged_json(const struct controller *c, const char *name)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "name", name);
        /* In the first seconds nothing is known yet; that is no refusal. */
        json_add_str(o, "state", server_state_name(c->view_error ? SERVER_REFUSED : SERVER_WAITING));
        json_add_str(o, "why", c->view_error ? c->view_error : "starting up: the approvals are still being read");
        return o;
}

/* Of its places, those that are taken, or of which something is left. */
static json_object *instances_json(const struct controller *c, const struct desired_server *s)
{
        json_object *list = json_object_new_array();

        for (size_t i = 0; i < c->desired->n; i++) {
                const struct desired_server *place = &c->desired->servers[i];
                const struct key *key =
                        place->place && str_eq(place->server, s->name) ? key_find((struct controller *)c, place->name) : NULL;

                if (!key || !(key->demand.called || key->busy || (key->plan && (key->plan->id || key->plan->n_actions))))
                        continue;
                json_object *o = json_object_new_object();
                json_add_int(o, "instance", place->place);
                json_add_str(o, "state", server_state_name(key_state(key)));
                json_add_str(o, "why", why_now(c, key));
                add_key(o, key);
                json_object_array_add(list, o);
        }
        return list;
}

static json_object *server_json(const struct controller *c, const struct desired_server *s)
{
        const struct key *key = key_find((struct controller *)c, s->name);
        json_object *o = json_object_new_object();

        json_add_str(o, "name", s->name);
        json_add_str(o, "state", server_state_name(key_state(key)));
        if (desired_on_demand(s))
                json_add_bool(o, "asleep", key_state(key) == SERVER_STOPPED && !key->demand.called);
        json_add_str(o, "why", c->view_error && key && key->plan && key->plan->state != SERVER_RUNNING ? c->view_error : why_now(c, key));
        add_record(o, s);
        add_key(o, key);
        if (registry_entry_has_instances(s->entry))
                json_add(o, "instances", instances_json(c, s));
        return o;
}

static json_object *servers_json(const struct controller *c, const char *only)
{
        json_object *list = json_object_new_array();
        const struct registry *r = c->registry ? c->registry->value : NULL;

        for (size_t i = 0; c->desired && i < c->desired->n; i++)
                if (!c->desired->servers[i].place && (!only || str_eq(only, c->desired->servers[i].name)))
                        json_object_array_add(list, server_json(c, &c->desired->servers[i]));
        for (size_t i = 0; !c->desired && r && i < r->n_entries; i++)
                if (!only || str_eq(only, r->entries[i]->name))
                        json_object_array_add(list, unjudged_json(c, r->entries[i]->name));
        return list;
}

static json_object *engine_json(const struct controller *c)
{
        json_object *o = json_object_new_object();
        char api[16] = "";

        if (engine_api_minor(c->engine))
                snprintf(api, sizeof(api), "1.%u", engine_api_minor(c->engine));
        json_add_bool(o, "up", c->observed_once && !c->engine_error);
        json_add_str(o, "version", engine_version(c->engine));
        json_add_str(o, "api", api);
        json_add_str(o, "error", c->engine_error);
        return o;
}

static json_object *registry_json(const struct controller *c)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "path", c->conf->registry_path);
        json_add_str(o, "error", c->registry_error);
        add_time(o, "loaded_at", c->registry_loaded_at);
        return o;
}

/* What was found wrong with single records; they count for nothing, but people must see them. */
static json_object *refused_records(const struct forge_view *view)
{
        json_object *list = json_object_new_array();

        for (size_t i = 0; view && i < view->n_items && json_object_array_length(list) < 100; i++) {
                if (!view->items[i].refused)
                        continue;
                json_object *o = json_object_new_object();
                json_add_str(o, "path", view->items[i].path);
                json_add_str(o, "why", view->items[i].refused);
                json_object_array_add(list, o);
        }
        return list;
}

static json_object *approvals_json(const struct controller *c)
{
        const struct forge_view *view = c->view ? c->view->value : NULL;
        json_object *o = json_object_new_object();

        json_add_str(o, "commit", view ? view->commit : NULL);
        json_add_str(o, "error", c->view_error);
        json_add_str(o, "refused", view ? view->refused : NULL);
        json_add(o, "refused_records", refused_records(view));
        return o;
}

static json_object *egress_json(const struct controller *c)
{
        json_object *o = json_object_new_object();

        json_add_bool(o, "ok", c->egress_ok);
        json_add_str(o, "error", c->egress_error);
        json_add_str(o, "last_change", c->egress_last_change);
        return o;
}

static json_object *gateway_json(const struct controller *c)
{
        const struct conf *conf = c->conf;
        json_object *o = json_object_new_object();
        const struct admission a = demand_admission((struct controller *)c);
        _cleanup_free_ char *listen = mem_printf("%s:%u", conf->gateway_listen.address, (unsigned)conf->gateway_listen.port);

        json_add_str(o, "listen", listen);
        json_add_str(o, "auth", conf->gateway_auth ? "token" : "none");
        json_add(o, "broker", broker_json(c));
        json_add_int(o, "instances", a.instances);
        json_add_int(o, "max_instances", a.max_instances);
        json_add_int(o, "memory", (int64_t)a.memory);
        json_add_int(o, "max_memory", (int64_t)a.max_memory);
        return o;
}

json_object *status_json(const struct controller *c, const char *server)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "audience", c->conf->audience);
        json_add_str(o, "signatures", c->conf->signatures_required ? "required" : "none");
        json_add(o, "engine", engine_json(c));
        json_add(o, "registry", registry_json(c));
        json_add(o, "approvals", approvals_json(c));
        json_add(o, "egress", egress_json(c));
        json_add(o, "gateway", gateway_json(c));
        json_add_int(o, "passes", (int64_t)c->passes);
        json_add_int(o, "mutations", (int64_t)c->mutations);
        json_add_int(o, "last_pass_us", (int64_t)c->last_pass_us);
        json_add(o, "servers", servers_json(c, server));
        return o;
}

static void add_action(json_object *list, const struct key *key, const char *action, const char *object, const char *reason)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "server", key->name);
        json_add_str(o, "action", action);
        json_add_str(o, "object", object);
        json_add_str(o, "reason", reason);
        json_object_array_add(list, o);
}

static void add_actions(json_object *list, const struct key *key)
{
        size_t i = key->busy ? key->next : 0;

        if (!key->plan)
                return;
        /* On its way, but nobody has looked yet whether it arrived: that is not "nothing to do". */
        if (i >= key->plan->n_actions && (key->busy || key->plan->state == SERVER_STARTING))
                add_action(list, key, "look-again", key->name, key->plan->why);
        for (; i < key->plan->n_actions; i++)
                add_action(list, key, action_name(key->plan->actions[i].kind), key->plan->actions[i].object, key->plan->actions[i].reason);
}

json_object *status_plan(const struct controller *c)
{
        json_object *o = json_object_new_object(), *actions = json_object_new_array();

        for (size_t i = 0; i < c->n_keys; i++)
                add_actions(actions, c->keys[i]);
        json_add_bool(o, "complete", c->desired && !c->engine_error && !c->view_error && !c->registry_error);
        json_add(o, "gateway", gateway_json(c));
        json_add(o, "actions", actions);
        json_add(o, "servers", servers_json(c, NULL));
        return o;
}
