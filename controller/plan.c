#include "controller/plan.h"

#include <stdio.h>

#include "common/link/channel.h"

/* Statuses of containers that are on their way out by themselves: wait for the next look. */
static bool is_leaving(const struct observed_container *c)
{
        return str_eq(c->state, "removing");
}

const char *action_name(enum action_kind kind)
{
        static const char *const names[] = {
                [ACTION_EGRESS] = "allow",       [ACTION_IMAGE] = "pull",
                [ACTION_SMOKE] = "smoke-test",   [ACTION_NETWORK] = "create-network",
                [ACTION_CREATE] = "create",      [ACTION_VERIFY] = "verify",
                [ACTION_STOP] = "stop",          [ACTION_START] = "start",
                [ACTION_REMOVE] = "remove",      [ACTION_NETWORK_REMOVE] = "remove-network",
                [ACTION_EGRESS_REMOVE] = "deny",
        };
        return names[kind];
}

const char *server_state_name(enum server_state s)
{
        static const char *const names[] = {
                [SERVER_RUNNING] = "running",         [SERVER_STARTING] = "starting", [SERVER_STOPPED] = "stopped",
                [SERVER_DISABLED] = "disabled",       [SERVER_WAITING] = "waiting",   [SERVER_REFUSED] = "refused",
                [SERVER_QUARANTINED] = "quarantined", [SERVER_BLOCKED] = "blocked",   [SERVER_ERROR] = "error",
                [SERVER_REMOVED] = "removed",
        };
        return names[s];
}

static void act(struct plan_server *p, enum action_kind kind, const char *object, const char *id, const char *reason)
{
        p->actions = mem_realloc(p->actions, p->n_actions + 1, sizeof(*p->actions));
        p->actions[p->n_actions++] =
                (struct action){.kind = kind, .object = mem_strdup(object), .id = mem_strdup(id), .reason = mem_strdup(reason)};
}

static void conclude(struct plan_server *p, enum server_state state, const char *why)
{
        p->state = state;
        mem_replace(&p->why, mem_strdup(why));
}

void action_deinit(struct action *a)
{
        free(a->object);
        free(a->id);
        free(a->reason);
}

struct plan_server *plan_server_free(struct plan_server *p)
{
        if (!p)
                return NULL;
        for (size_t i = 0; i < p->n_actions; i++)
                action_deinit(&p->actions[i]);
        free(p->actions);
        char *texts[] = {p->name, p->why, p->container, p->id, p->address, p->bridge, p->instance, p->older};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                free(texts[i]);
        strv_free(p->drift);
        free(p);
        return NULL;
}

/* -- looking things up ---------------------------------------------------------------------------------------------------- */

static const struct observed_container *current_of(const struct observed *o, const char *server)
{
        for (size_t i = 0; i < o->n_containers; i++)
                if (o->containers[i].current && str_eq(o->containers[i].server, server))
                        return &o->containers[i];
        return NULL;
}

static const struct observed_container *foreign_holder(const struct observed *o, const struct desired_server *s)
{
        for (size_t i = 0; i < o->n_containers; i++)
                if (!o->containers[i].ours && str_eq(o->containers[i].name, s->names.container))
                        return &o->containers[i];
        return NULL;
}

static bool network_fits(const struct observed_network *n, const struct desired_server *s)
{
        return str_eq(n->name, s->names.network) && str_eq(n->server, s->name) && str_eq(n->role, ROLE_SERVER) &&
               str_eq(n->spec, s->names.spec_hash) && str_eq(n->bridge, s->names.bridge) && n->subnet &&
               n->internal == (s->entry->n_egress == 0);
}

static const struct observed_network *network_of(const struct observed *o, const struct desired_server *s)
{
        for (size_t i = 0; i < o->n_networks; i++)
                if (network_fits(&o->networks[i], s))
                        return &o->networks[i];
        return NULL;
}

/* Does this network of ours stand where the wanted one must be, without being it? */
static bool network_obstructs(const struct observed_network *n, const struct desired_server *s)
{
        return !network_fits(n, s) && (str_eq(n->name, s->names.network) || str_eq(n->bridge, s->names.bridge));
}

/* What nobody calls has neither a container nor a network. */
static bool is_asleep(const struct desired_server *s, bool called)
{
        return desired_on_demand(s) && !called;
}

bool plan_needs_subnet(const struct desired_server *server, const struct observed *observed, bool called)
{
        return server && server->may_run && server->entry->source != SOURCE_URL && !is_asleep(server, called) &&
               !network_of(observed, server);
}

/* Is this network used by one of our containers that stays? Name of a network is "bh-" + its container's. */
static bool network_is_kept(const struct observed_network *n, char *const *kept_containers)
{
        return n->name && str_has_prefix(n->name, "bh-") && strv_contains(kept_containers, n->name + 3);
}

/* -- the pieces of a plan ------------------------------------------------------------------------------------------------- */

static bool in_smoke_test(const struct plan_input *in, const char *role, const char *spec)
{
        return str_eq(role, ROLE_SMOKE) && spec && strv_contains(in->facts.smoking, spec);
}

/* Objects that carry our owner label and no server's name belong to the nameless rest, "". */
static bool belongs(const char *label, const struct plan_input *in)
{
        return str_eq(label ? label : "", in->name);
}

/* Containers of this server that are not in `kept`. First of all: what must not run does not wait for what is to run instead. */
static void plan_ends(struct plan_server *p, const struct plan_input *in, char *const *kept, const char *reason)
{
        const struct observed *o = in->observed;

        for (size_t i = 0; i < o->n_containers; i++) {
                const struct observed_container *c = &o->containers[i];
                if (!c->ours || !belongs(c->server, in) || is_leaving(c) || strv_contains(kept, c->id) ||
                    in_smoke_test(in, c->role, c->spec))
                        continue;
                act(p, ACTION_REMOVE, c->name, c->id, reason);
                p->urgent |= str_eq(c->state, "running");
        }
}

/* Networks that nothing in `kept` uses. Last: what hinders their removal must not hinder a start. */
static void plan_old_networks(struct plan_server *p, const struct plan_input *in, char *const *kept, bool keep_network, const char *reason)
{
        const struct observed *o = in->observed;
        _cleanup_strv_ char **names = NULL;

        for (size_t i = 0; i < o->n_containers; i++)
                if (o->containers[i].ours && strv_contains(kept, o->containers[i].id))
                        names = strv_append(names, o->containers[i].name);
        for (size_t i = 0; i < o->n_networks; i++) {
                const struct observed_network *n = &o->networks[i];
                if (!belongs(n->server, in) || network_is_kept(n, names) || in_smoke_test(in, n->role, n->spec))
                        continue;
                if (keep_network && in->server && (network_fits(n, in->server) || network_obstructs(n, in->server)))
                        continue; /* the one it needs; what stood in its place was planned away before */
                act(p, ACTION_NETWORK_REMOVE, n->name, n->id, reason);
                if (n->bridge && str_has_prefix(n->bridge, "bh"))
                        act(p, ACTION_EGRESS_REMOVE, n->bridge, n->bridge, reason);
        }
}

static void plan_removals(struct plan_server *p, const struct plan_input *in, char *const *kept, bool keep_network, const char *reason)
{
        plan_ends(p, in, kept, reason);
        plan_old_networks(p, in, kept, keep_network, reason);
}

/* Did this host's own smoke test find something else than what was signed for? */
static bool manifest_differs(const struct plan_input *in)
{
        const char *approved = in->server->record->manifest_sha256;

        return in->facts.smoked && approved && !str_eq(in->facts.smoked, approved);
}

/* The steps of a start that do not depend on the container: 0 = go on, else the plan has said why not. */
static int plan_gate(struct plan_server *p, const struct plan_input *in)
{
        const struct plan_facts *f = &in->facts;

        if (f->image_refused) {
                conclude(p, SERVER_REFUSED, f->image_refused);
                return -1;
        }
        if (manifest_differs(in) && !f->test_again) {
                conclude(p, SERVER_QUARANTINED,
                         "manifest-mismatch: the server now offers other tools, prompts, resources or instructions than those approved; "
                         "run `bulkhead smoke` and approve what it offers now, or go back to the approved image");
                return -1;
        }
        /* The server itself sees to that, once for all of its places. */
        if (in->server->place && (!f->smoked || manifest_differs(in))) {
                conclude(p, SERVER_STARTING, "its smoke test is not over");
                return -1;
        }
        if (!f->egress_ok) {
                _cleanup_free_ char *why =
                        mem_printf("the firewall rules are not in force: %s", f->egress_error ? f->egress_error : "still loading");
                conclude(p, SERVER_ERROR, why);
                return -1;
        }
        return 0;
}

static void plan_image_and_smoke(struct plan_server *p, const struct plan_input *in)
{
        if (!in->facts.image_ok)
                act(p, ACTION_IMAGE, in->server->entry->image, NULL, "the image is not verified yet");
        if (!in->facts.smoked)
                act(p, ACTION_SMOKE, in->name, NULL, "not smoke-tested on this host yet");
        else if (manifest_differs(in))
                act(p, ACTION_SMOKE, in->name, NULL, "another manifest is approved now than its last smoke test found");
}

static void plan_network(struct plan_server *p, const struct plan_input *in)
{
        const struct observed *o = in->observed;

        for (size_t i = 0; i < o->n_networks; i++)
                if (str_eq(o->networks[i].server, in->name) && network_obstructs(&o->networks[i], in->server))
                        act(p, ACTION_NETWORK_REMOVE, o->networks[i].name, o->networks[i].id, "not as it was made");
        if (!network_of(o, in->server))
                act(p, ACTION_NETWORK, in->server->names.network, NULL, "missing");
}

/* A container of this very spec under another name holds the address that the right one needs. */
static bool obstructs(const struct observed_container *c, const struct plan_input *in)
{
        return c->ours && !c->current && in->server && in->server->names.container && str_eq(c->server, in->name) &&
               str_eq(c->role, ROLE_SERVER) && str_eq(c->spec, in->server->names.spec_hash);
}

/* No usable container: everything up to a running one. */
static void plan_new(struct plan_server *p, const struct plan_input *in, const char *reason)
{
        if (plan_gate(p, in) < 0)
                return;
        act(p, ACTION_EGRESS, in->server->names.bridge, NULL, reason);
        plan_image_and_smoke(p, in);
        plan_network(p, in);
        act(p, ACTION_CREATE, in->server->names.container, NULL, reason);
        act(p, ACTION_START, in->server->names.container, NULL, reason);
        conclude(p, SERVER_STARTING, reason);
}

/* The container is there and is the right one: everything up to a running one. */
static void plan_start(struct plan_server *p, const struct plan_input *in, const struct observed_container *c, const char *reason)
{
        act(p, ACTION_EGRESS, in->server->names.bridge, NULL, reason);
        plan_image_and_smoke(p, in);
        act(p, ACTION_VERIFY, c->name, c->id, reason);
        act(p, ACTION_START, c->name, c->id, reason);
        conclude(p, SERVER_STARTING, reason);
}

static void plan_restart(struct plan_server *p, const struct plan_input *in, const struct observed_container *c)
{
        _cleanup_free_ char *reason = mem_printf("the container is %s", c->state);

        if (plan_gate(p, in) < 0)
                return;
        plan_start(p, in, c, reason);
        p->crashed = str_eq(c->state, "exited") && c->started_at;
}

/* It runs, and nobody can talk to it: a session begins with the process, and what hangs does not come to itself. NULL = it is well, or
 * could not be started again. */
static const char *why_restart(const struct plan_input *in, const struct observed_container *c)
{
        const struct plan_facts *f = &in->facts;

        if (!f->egress_ok || f->image_refused)
                return NULL;
        if (in->server->entry->transport == TRANSPORT_STDIO)
                return f->linked && !str_eq(f->session, c->id) ? "it runs without a session with the broker" : NULL;
        return f->hung && str_eq(f->hung, c->instance) ? "it runs and does not answer, the broker says" : NULL;
}

static void plan_fresh_session(struct plan_server *p, const struct plan_input *in, const struct observed_container *c, const char *reason)
{
        act(p, ACTION_STOP, c->name, c->id, reason);
        plan_start(p, in, c, reason);
}

static void describe_container(struct plan_server *p, const struct observed_container *c)
{
        p->container = mem_strdup(c->name);
        p->id = mem_strdup(c->id);
        p->address = mem_strdup(c->address);
        p->instance = str_eq(c->state, "running") ? mem_strdup(c->instance) : NULL;
        p->started_at = c->started_at;
        p->drift = strv_dup(c->drift);
}

static void describe_current(struct plan_server *p, const struct desired_server *s, const struct observed_container *c)
{
        describe_container(p, c);
        p->bridge = mem_strdup(s->names.bridge);
}

static bool is_startable(const struct observed_container *c)
{
        return str_eq(c->state, "created") || str_eq(c->state, "exited");
}

/* The right container with something wrong: it goes, and a new one comes. */
static void plan_replace_drifted(struct plan_server *p, const struct plan_input *in, const struct observed_container *c)
{
        _cleanup_free_ char *list = c->drift                                ? strv_join(c->drift, "; ")
                                    : !network_of(in->observed, in->server) ? mem_strdup("its network is not as it was made")
                                                                            : mem_printf("the container is %s", c->state);
        _cleanup_free_ char *reason = mem_printf("drift: %s", list);

        act(p, ACTION_REMOVE, c->name, c->id, reason);
        plan_new(p, in, reason);
}

/* Older instances stay until the new one runs, if their own approval still stands. Returns their ids. */
static char **older_to_keep(const struct plan_input *in)
{
        const struct observed *o = in->observed;
        char **kept = NULL;

        for (size_t i = 0; i < o->n_containers; i++) {
                const struct observed_container *c = &o->containers[i];
                if (c->ours && !c->current && !obstructs(c, in) && str_eq(c->server, in->name) && str_eq(c->role, ROLE_SERVER) &&
                    str_eq(c->state, "running") && desired_covers(in->desired, in->name, c->spec, in->now)) {
                        kept = strv_append(kept, c->id);
                        break; /* one instance a server: a second old one is a duplicate */
                }
        }
        return kept;
}

/* Ids of what stays meanwhile. c: the container of the wanted spec, if there is one. */
static char **what_stays(struct plan_server *p, const struct plan_input *in, const struct observed_container *c, bool runs_well)
{
        char **kept = NULL;

        if (!runs_well && !(c && is_leaving(c)))
                kept = older_to_keep(in);
        p->older = kept ? mem_strdup(kept[0]) : NULL;
        return c ? strv_append(kept, c->id) : kept;
}

static void plan_wanted(struct plan_server *p, const struct plan_input *in)
{
        const struct desired_server *s = in->server;
        const struct observed_container *c = current_of(in->observed, in->name), *foreign = foreign_holder(in->observed, s);

        if (c && manifest_differs(in) && !is_leaving(c)) {
                act(p, ACTION_REMOVE, c->name, c->id, "manifest-mismatch");
                p->urgent |= str_eq(c->state, "running");
        }
        bool sound = c && c->inspected && !c->drift && network_of(in->observed, s);
        bool runs_well = sound && str_eq(c->state, "running") && !manifest_differs(in);
        const char *restart = runs_well ? why_restart(in, c) : NULL;
        _cleanup_strv_ char **kept = what_stays(p, in, c, runs_well);

        plan_ends(p, in, kept, "not part of the approved state");
        if (restart) {
                describe_current(p, s, c);
                plan_fresh_session(p, in, c, restart);
        } else if (runs_well) {
                describe_current(p, s, c);
                if (!in->facts.rules_ok && in->facts.egress_ok)
                        act(p, ACTION_EGRESS, s->names.bridge, NULL, "its rules are not in force");
                /* It runs, and yet: what of its manifest was approved is not known any more, so nobody may call it. */
                if (!in->facts.smoked && in->facts.egress_ok)
                        plan_image_and_smoke(p, in);
                conclude(p, SERVER_RUNNING, NULL);
        } else if (c && is_leaving(c)) {
                conclude(p, SERVER_STARTING, "the former container is being removed");
        } else if (c && manifest_differs(in)) {
                plan_new(p, in, "it may offer something else than what was approved");
        } else if (c && !c->inspected) { /* it was being worked on during the look: the next one knows */
                conclude(p, SERVER_STARTING, "not inspected yet");
        } else if (sound && is_startable(c)) {
                describe_current(p, s, c);
                plan_restart(p, in, c);
        } else if (c) {
                plan_replace_drifted(p, in, c);
        } else if (foreign) {
                _cleanup_free_ char *why =
                        mem_printf("a container that is not ours holds the name %s: remove or rename it (docker rename %.12s …)",
                                   foreign->name, foreign->id);
                conclude(p, SERVER_BLOCKED, why);
        } else {
                plan_new(p, in, kept ? "a new version is approved" : "missing");
        }
        plan_old_networks(p, in, kept, true, "not part of the approved state");
}

/*
 * It runs elsewhere, and what it is may change at any time: nobody calls it before it offered, to this process, what was approved. That is
 * asked again and again, and is also how we know whether it is there.
 */
static void plan_external(struct plan_server *p, const struct plan_input *in)
{
        const struct desired_server *s = in->server;

        plan_ends(p, in, NULL, "its entry is one of an external server");
        p->address = mem_strdup(s->entry->address);
        p->instance = mem_strndup(strchr(s->names.spec_hash, ':') + 1, CHANNEL_INSTANCE_HEX);
        if (manifest_differs(in) && !in->facts.test_again)
                conclude(p, SERVER_QUARANTINED,
                         "manifest-mismatch: it now offers other tools, prompts, resources or instructions than those approved; run "
                         "`bulkhead "
                         "smoke` and approve what it offers now");
        else if (in->facts.asked && in->facts.smoked && !manifest_differs(in) && in->facts.rules_ok)
                conclude(p, SERVER_RUNNING, s->may_run ? NULL : s->why);
        else if (s->may_run)
                conclude(p, SERVER_STARTING, "not asked yet what it offers");
        else
                conclude(p, SERVER_REFUSED, s->why);
        if (p->state == SERVER_QUARANTINED && in->facts.rules_there)
                act(p, ACTION_EGRESS_REMOVE, s->names.bridge, s->names.bridge, "manifest-mismatch");
        else if (p->state != SERVER_QUARANTINED && !in->facts.rules_ok && in->facts.egress_ok)
                act(p, ACTION_EGRESS, s->names.bridge, NULL, "the broker may not connect to it yet");
        if (s->may_run && in->facts.ask)
                act(p, ACTION_SMOKE, in->name, NULL, "whether it offers what was approved");
        plan_old_networks(p, in, NULL, false, "its entry is one of an external server");
}

/* The tip of the approvals is refused, or the like: what runs of the accepted state stays, nothing starts. */
static void plan_stay(struct plan_server *p, const struct plan_input *in)
{
        const struct observed_container *c = current_of(in->observed, in->name);
        _cleanup_strv_ char **kept = NULL;

        conclude(p, SERVER_REFUSED, in->server->why);
        if (c && str_eq(c->state, "running") && !c->drift) { /* not inspected yet counts as well: removing wants certainty */
                describe_current(p, in->server, c);
                kept = strv_append(kept, c->id);
                if (!in->facts.rules_ok && in->facts.egress_ok)
                        act(p, ACTION_EGRESS, in->server->names.bridge, NULL, "its rules are not in force");
                conclude(p, SERVER_RUNNING, in->server->why);
        }
        plan_removals(p, in, kept, kept != NULL, "drifted or ended while nothing may start");
}

static void plan_unwanted(struct plan_server *p, const struct plan_input *in)
{
        const struct desired_server *s = in->server;
        const char *reason = !s ? "no longer in the registry" : s->why ? s->why : "not to run";

        if (!s)
                conclude(p, SERVER_REMOVED, "no longer in the registry");
        else if (!s->entry->enabled)
                conclude(p, SERVER_DISABLED, "switched off in the registry (\"enabled\": false)");
        else
                conclude(p, SERVER_REFUSED, reason);
        plan_removals(p, in, NULL, false, reason);
}

static const struct observed_container *container_of_session(const struct plan_input *in)
{
        const struct observed *o = in->observed;

        for (size_t i = 0; i < o->n_containers; i++)
                if (o->containers[i].ours && str_eq(o->containers[i].id, in->facts.session) && belongs(o->containers[i].server, in))
                        return &o->containers[i];
        return NULL;
}

/* Of the version before, as long as that is approved: a session keeps the one that it began with. */
static bool may_go_on(const struct plan_input *in, const struct observed_container *c)
{
        if (!str_eq(c->state, "running") && !in->facts.session_fresh)
                return false;
        if (c->current)
                return !c->drift && !manifest_differs(in) && network_of(in->observed, in->server);
        return str_eq(c->role, ROLE_SERVER) && desired_covers(in->desired, in->name, c->spec, in->now);
}

/* A place whose session has begun: its container is never started again, what it knew of its client would be gone. */
static void plan_session(struct plan_server *p, const struct plan_input *in)
{
        const struct observed_container *c = container_of_session(in);
        _cleanup_strv_ char **kept = NULL;

        if (c && may_go_on(in, c)) {
                kept = strv_append(kept, c->id);
                describe_container(p, c);
                p->bridge = c->current ? mem_strdup(in->server->names.bridge) : NULL;
                if (c->current && !in->facts.rules_ok && in->facts.egress_ok)
                        act(p, ACTION_EGRESS, in->server->names.bridge, NULL, "its rules are not in force");
        }
        if (kept || in->facts.session_fresh)
                conclude(p, SERVER_RUNNING, NULL);
        else
                conclude(p, SERVER_STOPPED, "its session is over");
        if (c || !in->facts.session_fresh)
                plan_removals(p, in, kept, false, "its session is over");
}

/* On demand, and nobody calls it. Whether it may be started is found out now, so that the first caller does not wait for a smoke test. */
static void plan_asleep(struct plan_server *p, const struct plan_input *in)
{
        const char *reason = registry_entry_has_instances(in->server->entry) ? "an instance is started for every session"
                                                                             : "asleep: started by the first call";

        plan_ends(p, in, NULL, reason);
        if (in->server->place) {
                conclude(p, SERVER_STOPPED, reason);
        } else if (plan_gate(p, in) == 0) {
                if (!in->facts.smoked || manifest_differs(in))
                        plan_image_and_smoke(p, in);
                conclude(p, SERVER_STOPPED, reason);
        }
        plan_old_networks(p, in, NULL, false, reason);
}

struct plan_server *plan_server(const struct plan_input *in)
{
        struct plan_server *p = NEW(struct plan_server);

        bool asleep = in->server && is_asleep(in->server, in->facts.called);

        p->name = mem_strdup(in->name);
        if (in->server && in->server->entry->source == SOURCE_URL && (in->server->may_run || in->server->may_stay))
                plan_external(p, in);
        else if (in->server && in->server->may_run && asleep)
                plan_asleep(p, in);
        else if (in->server && in->server->may_run && in->server->place && in->facts.session)
                plan_session(p, in);
        else if (in->server && in->server->may_run)
                plan_wanted(p, in);
        else if (in->server && in->server->may_stay && !asleep)
                plan_stay(p, in);
        else
                plan_unwanted(p, in);
        return p;
}
