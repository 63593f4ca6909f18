#include <inttypes.h>
#include <unistd.h>

#include "broker/gateway/internal.h"
#include "common/log.h"

#define HEALTHY_MS 60000U /* a session that lived so long was no failed start */

static int on_retry(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user);
static int on_idle(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user);

struct server *server_find(struct gateway *g, const char *name, size_t n)
{
        size_t low = 0, high = g->n_servers;

        while (low < high) {
                size_t mid = low + (high - low) / 2;
                const char *other = g->servers[mid]->entry.name;
                int r = strncmp(other, name, n);

                if (r == 0 && other[n] == '\0')
                        return g->servers[mid];
                if (r >= 0)
                        high = mid;
                else
                        low = mid + 1;
        }
        return NULL;
}

bool server_has_tool(const struct server *s, struct mcp_slice name)
{
        _cleanup_free_ char *text = s->entry.tools ? mcp_string(name) : NULL;

        return !s->entry.tools || (text && strv_contains(s->entry.tools, text));
}

bool server_is_hopeless(const struct server *s)
{
        return s->entry.readiness == READINESS_DOWN || (!s->shared && s->backoff_ms > 4 * BACKOFF_MIN_MS);
}

/* A modern server knows no sessions: every request says for itself who asks, and there is nothing to have one's own of. */
static bool is_sessionless(const struct leg *l)
{
        return l && l->ready && l->era == MCP_ERA_MODERN;
}

struct leg *server_leg(struct server *s, const struct call *c)
{
        struct session *session = c->session;
        struct leg *l = s->shared;

        if (server_has_instances(s))
                return instance_leg(s, c);
        if (session && s->entry.per_session && !is_sessionless(l)) {
                struct leg *own;

                l = NULL;
                LIST_FOREACH (own, &session->legs, struct leg, in_session)
                        if (own->server == s)
                                l = own;
        }
        return l && l->ready ? l : NULL;
}

static const struct {
        const char *capability;
        enum server_kind kind;
} kinds[] = {{"tools", KIND_TOOLS},
             {"prompts", KIND_PROMPTS},
             {"resources", KIND_RESOURCES},
             {"completions", KIND_COMPLETIONS},
             {"logging", KIND_LOGGING}};

enum server_kind server_kind(const char *capability)
{
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
                if (str_eq(kinds[i].capability, capability))
                        return kinds[i].kind;
        return 0;
}

/* -- sessions with it ---------------------------------------------------------------------------------------------------------- */
/* Legs that were made for sessions before it was known that nobody needs one. */
static void own_legs_free(struct server *s)
{
        struct leg *l;

        LIST_FOREACH (l, &s->legs, struct leg, in_server)
                if (l->owner && list_empty(&l->calls))
                        leg_free(l);
}

void server_leg_ready(struct leg *l)
{
        struct server *s = l->server;

        s->asked = false;
        s->known = true;
        s->unreached_ms = 0;
        s->denied = false;
        mem_replace(&s->last_why, NULL);
        s->lacks = 0;
        s->announces = 0;
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                struct mcp_slice value = leg_capability(l, kinds[i].capability);

                s->lacks |= mcp_has(value) ? 0 : kinds[i].kind;
                if (mcp_is_object(value) && mcp_is_true(mcp_object_get(value, "listChanged")))
                        s->announces |= kinds[i].kind;
        }
        if (s->shared == l) {
                late_forget(s);
                tools_begin(s);
                changes_all(s);
        }
        tools_judge_stale(s);
        subs_leg_ready(l);
        level_leg_ready(l);
        if (l->of_instance)
                instance_ready(l->of_instance);
        wait_over(s);
        server_used(s);
        if (is_sessionless(s->shared))
                own_legs_free(s);
}

static void backoff_more(struct server *s)
{
        s->backoff_ms = s->backoff_ms ? MIN(2 * s->backoff_ms, BACKOFF_MAX_MS) : BACKOFF_MIN_MS;
        timer_arm(&s->retry_timer, s->g->loop, s->backoff_ms, on_retry, s);
}

static int on_retry(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct server *s = user;
        struct gateway *g = s->g;

        if (s->shared || s->entry.readiness != READINESS_UP)
                return 0;
        if (s->entry.transport == TRANSPORT_STDIO) {
                if (s->entry.instance && g->link_up)
                        g->controller.renew(s->entry.name, s->entry.instance, g->controller.user);
                backoff_more(s); /* asked again, if no stream comes */
        } else {
                _cleanup_err_ struct err *err = NULL;

                if (leg_new_http(s, NULL, &err) < 0) {
                        log_warning("server cannot be connected", "server", s->entry.name, "why", err_msg(err));
                        backoff_more(s);
                }
        }
        return 0;
}

/* Calls that waited for the shared one keep waiting: a fresh session is on its way, and their deadline runs. But one that turned us down,
 * or is not who it should be, will hardly have changed its mind by then. */
void server_leg_ended(struct leg *l, const struct err *why)
{
        struct server *s = l->server;
        struct session *owner = l->owner;
        bool shared = s->shared == l;
        bool healthy = l->ready_ms && !l->of_instance && now_ms(s->g->loop) - l->ready_ms > HEALTHY_MS;

        if (l->of_instance) {
                instance_leg_ended(l, err_msg(why));
                return;
        }
        if (shared && !l->ready_ms)
                hung_unreached(s, why);
        if (shared) {
                mem_replace(&s->last_why, l->ready_ms ? NULL : mem_strdup(err_msg(why)));
                s->denied = !l->ready_ms && err_code(why) == ERR_DENIED;
        }
        leg_free(l);
        if (owner)
                wait_failed_session(s, owner, err_msg(why));
        if (!shared || s->g->freeing)
                return;
        if (s->denied) /* shared, see above */
                wait_failed(s, ERR_UNAVAILABLE, err_msg(why));
        if (healthy)
                s->backoff_ms = 0;
        backoff_more(s);
        tools_judge_stale(s);
}

static void legs_free(struct server *s)
{
        while (!list_empty(&s->legs))
                leg_free(list_first(&s->legs, struct leg, in_server));
}

void server_stream(struct server *s, unsigned serial, const char *instance, int fd)
{
        _cleanup_err_ struct err *err = NULL;

        if (s->entry.transport != TRANSPORT_STDIO) {
                log_warning("stream of a server that is not reached by one", "server", s->entry.name);
                close(fd);
                return;
        }
        if (serial || server_has_instances(s)) {
                instance_stream(s, serial, instance, fd);
                return;
        }
        legs_free(s);
        timer_off(s->retry_timer);
        if (leg_new_stdio(s, NULL, instance, fd, &err) < 0) {
                log_warning("server's stream is not usable", "server", s->entry.name, "why", err_msg(err));
                close(fd);
                backoff_more(s);
        }
}

void server_refused(struct server *s, unsigned serial, const char *why)
{
        if (serial) {
                instance_refused(s, serial, why);
                return;
        }
        s->asked = false;
        wait_failed(s, ERR_UNAVAILABLE, why ? why : "the controller refused to start it");
}

/* -- idleness ------------------------------------------------------------------------------------------------------------------ */
static bool may_sleep(const struct server *s)
{
        return s->entry.lifecycle == LIFECYCLE_ON_DEMAND && s->entry.idle_ms && s->entry.readiness == READINESS_UP;
}

void server_used(struct server *s)
{
        s->used_ms = now_ms(s->g->loop);
        if (!may_sleep(s) || s->g->freeing)
                return;
        /* Armed once: the handler looks how long it really was. */
        if (!s->idle_timer) {
                timer_arm(&s->idle_timer, s->g->loop, s->entry.idle_ms, on_idle, s);
        } else {
                int enabled = SD_EVENT_OFF;

                (void)sd_event_source_get_enabled(s->idle_timer, &enabled);
                if (enabled == SD_EVENT_OFF)
                        timer_arm(&s->idle_timer, s->g->loop, s->entry.idle_ms, on_idle, s);
        }
}

static int on_idle(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct server *s = user;
        uint64_t idle = now_ms(s->g->loop) - s->used_ms;

        if (!may_sleep(s))
                return 0;
        if (s->in_flight || s->n_waiting)
                timer_arm(&s->idle_timer, s->g->loop, s->entry.idle_ms, on_idle, s);
        else if (idle < s->entry.idle_ms)
                timer_arm(&s->idle_timer, s->g->loop, s->entry.idle_ms - idle, on_idle, s);
        else
                s->g->controller.stop(s->entry.name, 0, s->g->controller.user);
        return 0;
}

/* -- the catalogue ------------------------------------------------------------------------------------------------------------- */
static struct server *server_new(struct gateway *g, const char *name)
{
        struct server *s = NEW(struct server);
        size_t i = g->n_servers;

        s->g = g;
        s->entry.readiness = READINESS_DOWN;
        list_init(&s->legs);
        list_init(&s->instances);
        list_init(&s->waiting);
        list_init(&s->subs);
        g->servers = mem_realloc(g->servers, g->n_servers + 1, sizeof(struct server *));
        while (i > 0 && strcmp(g->servers[i - 1]->entry.name, name) > 0) {
                g->servers[i] = g->servers[i - 1];
                i--;
        }
        g->servers[i] = s;
        g->n_servers++;
        return s;
}

/* Names that were another server's until now, because its prefix is shorter, lead to s. */
static void take_names(const struct server *s)
{
        for (size_t i = 0; i < s->g->n_servers; i++) {
                struct server *other = s->g->servers[i];

                if (other != s && other->told && str_has_prefix(s->prefix, other->prefix))
                        tools_tell(other);
        }
}

void server_update(struct gateway *g, const struct channel_entry *entry)
{
        struct server *s = server_find(g, entry->name, strlen(entry->name));
        struct channel_entry old;
        bool other, approval, renamed = !s;

        if (!s)
                s = server_new(g, entry->name);
        old = s->entry;
        channel_entry_copy(&s->entry, entry);
        s->n_pins = strv_len(s->entry.pins);
        approval = !str_eq(old.manifest, entry->manifest) || old.pinned != entry->pinned || !strv_equal(old.pins, entry->pins) ||
                   !strv_equal(old.tools, entry->tools) || !strv_equal(old.actions, entry->actions) || !str_eq(old.prefix, entry->prefix);
        renamed |= !str_eq(old.prefix, entry->prefix);
        other = old.transport != entry->transport || !str_eq(old.address, entry->address) || old.port != entry->port ||
                !str_eq(old.path, entry->path) || !str_eq(old.tls_host, entry->tls_host) || !strv_equal(old.tls_pins, entry->tls_pins) ||
                !strv_equal(old.headers, entry->headers) || old.per_session != entry->per_session;
        if (s->shared)
                other |= !str_eq(s->shared->instance, entry->instance);
        else if (entry->transport != TRANSPORT_STDIO) /* what the one before made us wait for is no fault of this one */
                other |= !str_eq(old.instance, entry->instance);
        channel_entry_deinit(&old);
        mem_replace(&s->prefix, entry->prefix ? mem_strdup(entry->prefix) : mem_printf("%s__", entry->name));
        if (approval)
                pins_forget(s);
        if (approval && s->told)
                tools_tell(s);
        if (approval && server_has_instances(s)) /* else a fresh session brings it about */
                tools_changed(s);
        if (renamed)
                take_names(s);
        if (other)
                instances_free(s);
        /* An instance goes on, however it is with the next one. */
        if (!server_has_instances(s) && (entry->readiness == READINESS_DOWN || entry->readiness == READINESS_ASLEEP || other)) {
                legs_free(s);
                s->backoff_ms = 0;
                s->unreached_ms = 0;
                s->denied = false;
                timer_off(s->retry_timer);
        }
        if (entry->readiness != READINESS_ASLEEP)
                s->asked = false;
        if (entry->readiness == READINESS_DOWN)
                wait_failed(s, ERR_UNAVAILABLE, entry->why ? entry->why : "it is down");
        else if (entry->readiness == READINESS_UP || !list_empty(&s->waiting))
                wait_wake(s);
        tools_recall(s);
        if (approval)
                tools_changed(s);
        tools_judge_stale(s);
        server_used(s);
}

void server_down(struct server *s, const char *why)
{
        struct channel_entry e;

        channel_entry_copy(&e, &s->entry);
        e.readiness = READINESS_DOWN;
        mem_replace(&e.why, mem_strdup(why));
        mem_replace(&e.instance, NULL);
        mem_replace(&e.address, NULL);
        instances_free(s);
        server_update(s->g, &e);
        channel_entry_deinit(&e);
}

static struct call *call_of(const struct server *s)
{
        struct call *c;

        LIST_FOREACH (c, &s->g->calls, struct call, in_gateway)
                if (c->server == s)
                        return c;
        return NULL;
}

static struct session *session_of(const struct server *s)
{
        struct session *session;

        LIST_FOREACH (session, &s->g->idle, struct session, in_idle)
                if (session->server == s)
                        return session;
        return NULL;
}

/* Out of the catalogue first, so that what fails now is not tried here again. */
struct server *server_free(struct server *s)
{
        struct gateway *g = s->g;
        enum err_code code = g->freeing ? ERR_UNAVAILABLE : ERR_NOT_FOUND;
        const char *why = g->freeing ? "the broker ends: try again" : SERVER_GONE;
        struct session *session;
        struct call *c;

        s->gone = !g->freeing;
        instances_free(s);
        route_forget(g, s);
        for (size_t i = 0; i < g->n_servers; i++)
                if (g->servers[i] == s) {
                        memmove(&g->servers[i], &g->servers[i + 1], (g->n_servers - i - 1) * sizeof(struct server *));
                        g->n_servers--;
                        break;
                }
        legs_free(s);
        wait_failed(s, code, why);
        while ((c = call_of(s)))
                wait_fail(c, code, why);
        while ((session = session_of(s)))
                session_free(session);
        listens_free(g, s);
        subs_server_free(s);
        tools_free(s);
        pins_free(s);
        late_forget(s);
        if (s->gone && g->config.cache)
                tool_cache_drop(g->config.cache, s->entry.name);
        if (s->told)
                g->guard->tools(&s->entry, s->prefix, (struct mcp_slice){0}, g->guard->user);
        sd_event_source_disable_unref(s->change_timer);
        sd_event_source_disable_unref(s->wait_timer);
        sd_event_source_disable_unref(s->retry_timer);
        sd_event_source_disable_unref(s->idle_timer);
        channel_entry_deinit(&s->entry);
        free(s->prefix);
        free(s->last_why);
        free(s);
        return NULL;
}
