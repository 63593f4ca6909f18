/*
 * Servers on standard streams that have an instance for every session ("sharing": "per-session"): which instance is whose, from the wish
 * for one to its end. Nobody's question, log line or state can be another's then. An instance belongs to
 *   - a legacy client's session, which ends with it;
 *   - a modern principal, since modern clients have no sessions and their credentials are all that tells them apart;
 *   - the gateway itself, for lists: who only looks at what there is needs no instance, and hears nothing of other clients' ones.
 */
#include <unistd.h>

#include "broker/gateway/internal.h"
#include "common/log.h"

#define OWN_IDLE_MS 5000U

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user);

bool server_has_instances(const struct server *s)
{
        return channel_entry_has_instances(&s->entry);
}

static uint64_t principal_of(const struct call *c)
{
        return c->era == MCP_ERA_MODERN || !c->who ? c->principal : principal_hash(c->g, guard_name(c->g, c->who));
}

static struct instance *find(const struct server *s, const struct session *session, uint64_t principal, bool own)
{
        struct instance *i;

        LIST_FOREACH (i, &s->instances, struct instance, in_server)
                if (i->own == own && i->session == session && i->principal == principal)
                        return i;
        return NULL;
}

struct instance *instance_of_client(const struct server *s, const struct session *session, uint64_t principal)
{
        return find(s, session, session ? 0 : principal, false);
}

static bool is_ready(const struct instance *i)
{
        return i && i->leg && i->leg->ready;
}

static struct instance *instance_of(const struct server *s, const struct call *c)
{
        struct instance *i = c->own ? NULL : instance_of_client(s, c->session, c->session ? 0 : principal_of(c));

        return c->own || (c->listing && !is_ready(i)) ? find(s, NULL, 0, true) : i;
}

struct leg *instance_leg(const struct server *s, const struct call *c)
{
        const struct instance *i = instance_of(s, c);

        return is_ready(i) ? i->leg : NULL;
}

bool instance_client_has_one(const struct server *s, const struct call *c)
{
        return is_ready(instance_of_client(s, c->session, c->session ? 0 : principal_of(c)));
}

static void stop(struct instance *i)
{
        struct gateway *g = i->server->g;

        if (i->serial)
                g->controller.stop(i->server->entry.name, i->serial, g->controller.user);
        i->serial = 0;
}

static void start(struct instance *i)
{
        struct server *s = i->server;
        struct gateway *g = s->g;

        g->last_serial = g->last_serial == UINT32_MAX ? 1 : g->last_serial + 1;
        i->serial = g->last_serial;
        s->starts++;
        g->counts.starts++;
        timer_arm(&i->timer, g->loop, g->config.start_ms, on_timer, i);
        g->controller.start(s->entry.name, i->serial, i->own, g->controller.user);
}

struct instance *instance_free(struct instance *i)
{
        /* Its calls end below, and what they bring about is not to find it. */
        list_del(&i->in_server);
        list_del(&i->in_session);
        i->server->n_instances--;
        stop(i);
        leg_free(i->leg);
        sd_event_source_disable_unref(i->timer);
        free(i->lost);
        free(i);
        return NULL;
}

static void instance_new(struct server *s, const struct call *c)
{
        struct instance *i = NEW(struct instance);

        i->server = s;
        i->own = c->own || c->listing;
        i->session = i->own ? NULL : c->session;
        i->principal = i->own || i->session ? 0 : principal_of(c);
        list_add(&s->instances, &i->in_server);
        if (i->session)
                list_add(&i->session->instances, &i->in_session);
        s->n_instances++;
        start(i);
}

bool instance_was_lost(struct server *s, struct call *c)
{
        struct instance *i = instance_of(s, c);
        _cleanup_free_ char *why = NULL;

        if (!i || !i->lost)
                return false;
        why = mem_printf("its instance for this session ended, and what that knew is lost (%s): the next call begins with a fresh one",
                         i->lost);
        instance_free(i);
        wait_fail(c, ERR_UNAVAILABLE, why);
        return true;
}

/* An agent that opens session after session is not to leave nothing for the others. Operators are not told apart. */
bool instance_is_one_too_many(struct server *s, struct call *c)
{
        const char *agent = c->session && c->session->who ? guard_name(s->g, c->session->who) : NULL;
        unsigned n = 0, most = s->g->config.max_agent_instances;
        const struct instance *i;

        if (!agent || !most || instance_of(s, c) || c->own || c->listing)
                return false;
        LIST_FOREACH (i, &s->instances, struct instance, in_server)
                n += i->session && i->session->who && str_eq(guard_name(s->g, i->session->who), agent);
        if (n < most)
                return false;
        _cleanup_free_ char *why = mem_printf("%u sessions of this agent have an instance of it, which is half of all there may be "
                                              "(gateway.max_server_instances): end one, or try again later",
                                              n);
        wait_fail(c, ERR_LIMIT, why);
        return true;
}

void instance_wake(struct server *s, struct call *c)
{
        if (!instance_of(s, c))
                instance_new(s, c);
}

/* It never was there for those who wait for it. */
static void failed(struct instance *i, const char *why)
{
        struct server *s = i->server;
        struct list waiting;
        struct call *c;

        list_init(&waiting);
        LIST_FOREACH (c, &s->waiting, struct call, in_queue)
                if (instance_of(s, c) == i)
                        wait_take(c, &waiting);
        instance_free(i);
        wait_fail_taken(s, &waiting, ERR_UNAVAILABLE, why);
}

/*
 * What it knew of its client is lost, and the client must not go on as if it were not. The session with this one server ends: its next
 * request is answered 404, as the protocol has it. One with all servers is told with its next call here.
 */
static void over(struct instance *i, const char *why)
{
        struct session *session = i->session;

        if (session && session->server) {
                session_free(session);
        } else if (session) {
                leg_free(i->leg);
                stop(i);
                timer_off(i->timer);
                i->lost = mem_strdup(why);
        } else {
                instance_free(i);
        }
}

void instance_leg_ended(struct leg *l, const char *why)
{
        struct instance *i = l->of_instance;
        bool was_ready = l->ready_ms;

        leg_free(l);
        if (was_ready) {
                over(i, why);
        } else if (i->server->legacy_only && !i->again) {
                i->again = true;
                stop(i);
                start(i);
        } else {
                failed(i, why);
        }
}

void instance_ready(struct instance *i)
{
        instance_used(i);
        timer_arm(&i->timer, i->server->g->loop, i->own ? OWN_IDLE_MS : i->server->entry.idle_ms, on_timer, i);
        if (i->own)
                tools_load(i->server);
}

void instance_used(struct instance *i)
{
        i->used_ms = now_ms(i->server->g->loop);
}

/* Until it is ready: its time for that is over. From then on: it may be idle. */
static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct instance *i = user;
        struct gateway *g = i->server->g;
        uint64_t limit = i->own ? OWN_IDLE_MS : i->server->entry.idle_ms, idle = now_ms(g->loop) - i->used_ms;

        if (!is_ready(i)) {
                failed(i, "it did not come up in time: try again");
        } else if (!list_empty(&i->leg->calls)) {
                timer_arm(&i->timer, g->loop, limit, on_timer, i);
        } else if (idle < limit) {
                timer_arm(&i->timer, g->loop, limit - idle, on_timer, i);
        } else {
                log_info("an instance is idle and stops", "server", i->server->entry.name);
                over(i, "it was not called for its idle time");
        }
        return 0;
}

/* -- from the link --------------------------------------------------------------------------------------------------------------- */
static struct instance *by_serial(const struct server *s, unsigned serial)
{
        struct instance *i;

        LIST_FOREACH (i, &s->instances, struct instance, in_server)
                if (serial && i->serial == serial)
                        return i;
        return NULL;
}

void instance_stream(struct server *s, unsigned serial, const char *instance, int fd)
{
        struct instance *i = by_serial(s, serial);
        _cleanup_err_ struct err *err = NULL;

        /* Its session ended meanwhile, or it has one: nobody is to read this one. */
        if (!i || i->leg) {
                close(fd);
                return;
        }
        if (leg_new_stdio(s, i, instance, fd, &err) < 0) {
                log_warning("server's stream is not usable", "server", s->entry.name, "why", err_msg(err));
                close(fd);
                failed(i, err_msg(err));
        }
}

void instance_refused(struct server *s, unsigned serial, const char *why)
{
        struct instance *i = by_serial(s, serial);

        if (!i || i->leg)
                return;
        i->serial = 0; /* there is nothing to stop */
        failed(i, why);
}

static struct instance *first_pending(const struct server *s)
{
        struct instance *i;

        LIST_FOREACH (i, &s->instances, struct instance, in_server)
                if (!i->leg && !i->lost)
                        return i;
        return NULL;
}

void instances_unlinked(struct server *s)
{
        struct instance *i;

        while ((i = first_pending(s)))
                failed(i, "the controller that starts it went away: try again");
}

void instances_free(struct server *s)
{
        while (!list_empty(&s->instances))
                instance_free(list_first(&s->instances, struct instance, in_server));
}
