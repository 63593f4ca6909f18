/*
 * Calls that wait for a server: until there is a session with it, until somebody says that there will be none, or until their time is over.
 */
#include "broker/gateway/internal.h"
#include "common/log.h"

static int on_wait_timer(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user);

static void waiting_arm(struct server *s)
{
        const struct call *c = list_first(&s->waiting, struct call, in_queue);
        uint64_t now = now_ms(s->g->loop);

        if (c)
                timer_arm(&s->wait_timer, s->g->loop, c->deadline_ms > now ? c->deadline_ms - now : 0, on_wait_timer, s);
        else
                timer_off(s->wait_timer);
}

static void waiting_leave(struct call *c)
{
        list_del(&c->in_queue);
        c->deadline_ms = 0;
        c->server->n_waiting--;
}

/* What a session says of its end begins with the server's name, too. */
static const char *reason_of(const struct server *s, const char *why)
{
        _cleanup_free_ char *who = mem_printf("server %s: ", s->entry.name);

        while (str_has_prefix(why, who))
                why += strlen(who);
        return why;
}

void wait_fail(struct call *c, enum err_code code, const char *why)
{
        _cleanup_err_ struct err *err = NULL;

        c->server->failed++;
        c->g->counts.failed++;
        (void)err_set(&err, code, "server %s: %s", c->server->entry.name, reason_of(c->server, why));
        call_fail(c, err);
}

void wait_take(struct call *c, struct list *taken)
{
        waiting_leave(c);
        list_add(taken, &c->in_queue);
}

void wait_fail_taken(struct server *s, struct list *taken, enum err_code code, const char *why)
{
        struct call *c;

        waiting_arm(s);
        while ((c = list_first(taken, struct call, in_queue))) {
                list_del(&c->in_queue);
                wait_fail(c, code, why);
        }
}

void wait_failed(struct server *s, enum err_code code, const char *why)
{
        struct list now;

        /* A call that ends may bring another one. Only those that wait now are ended. */
        list_init(&now);
        while (!list_empty(&s->waiting)) {
                struct list *item = s->waiting.next;

                list_del(item);
                list_add(&now, item);
        }
        while (!list_empty(&now)) {
                struct call *c = list_first(&now, struct call, in_queue);

                waiting_leave(c);
                wait_fail(c, code, why);
        }
        waiting_arm(s);
}

static int on_wait_timer(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct server *s = user;

        while (!list_empty(&s->waiting)) {
                struct call *c = list_first(&s->waiting, struct call, in_queue);

                if (c->deadline_ms > now_ms(s->g->loop))
                        break;
                waiting_leave(c);
                const char *last = s->last_why ? reason_of(s, s->last_why) : NULL;
                _cleanup_free_ char *why = mem_printf("it did not come up in time%s%s: try again", last ? ": " : "", last ? last : "");
                wait_fail(c, ERR_UNAVAILABLE, why);
                s->asked = false; /* whoever comes next asks again */
        }
        waiting_arm(s);
        return 0;
}

static void tell_progress(struct call *c)
{
        _cleanup_buf_ struct buf b = {0};

        if (!c->reply || !mcp_has(c->m.progress_token) || c->method == MCP_M_INITIALIZE)
                return;
        buf_adds(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":");
        mcp_add_slice(&b, c->m.progress_token);
        buf_adds(&b, ",\"progress\":0,\"message\":\"starting the server\"}}");
        reply_event(c->reply, b.data, b.len);
}

/* Gets a session under way, if there is something to be done for it. */
void wait_wake(struct server *s)
{
        _cleanup_err_ struct err *err = NULL;
        struct gateway *g = s->g;

        if (server_has_instances(s))
                return; /* they are woken one by one */
        switch (s->entry.readiness) {
        case READINESS_ASLEEP:
                if (!s->asked) {
                        s->asked = true;
                        s->starts++;
                        g->counts.starts++;
                        g->controller.start(s->entry.name, 0, false, g->controller.user);
                }
                break;
        case READINESS_UP:
                if (s->shared || (s->retry_timer && s->backoff_ms))
                        break;
                if (s->entry.transport != TRANSPORT_STDIO && leg_new_http(s, NULL, &err) < 0) {
                        log_warning("server cannot be connected", "server", s->entry.name, "why", err_msg(err));
                        wait_failed(s, ERR_UNAVAILABLE, err_msg(err));
                }
                break;
        case READINESS_COMING:
        case READINESS_DOWN:
                break;
        }
}

static void wake_own(struct server *s, struct session *session)
{
        _cleanup_err_ struct err *err = NULL;
        struct leg *own;

        if (!session || !s->entry.per_session || s->entry.transport == TRANSPORT_STDIO || s->entry.readiness != READINESS_UP)
                return;
        LIST_FOREACH (own, &session->legs, struct leg, in_session)
                if (own->server == s)
                        return;
        if (leg_new_http(s, session, &err) < 0) {
                log_warning("server cannot be connected", "server", s->entry.name, "why", err_msg(err));
                wait_failed_session(s, session, err_msg(err));
        }
}

void server_want(struct server *s, struct call *c, void (*then)(struct call *c))
{
        c->server = s;
        c->leg = server_leg(s, c);
        if (c->leg) {
                then(c);
                return;
        }
        if (s->entry.readiness == READINESS_DOWN) {
                wait_fail(c, ERR_UNAVAILABLE, s->entry.why ? s->entry.why : "it is down");
                return;
        }
        if (s->denied && !s->shared && s->entry.readiness == READINESS_UP) {
                wait_fail(c, ERR_UNAVAILABLE, s->last_why);
                return;
        }
        if (s->entry.readiness == READINESS_ASLEEP && !s->g->link_up) {
                wait_fail(c, ERR_UNAVAILABLE, "it sleeps, and the controller that starts it is away: try again");
                return;
        }
        if (s->n_waiting >= s->g->config.max_waiting) {
                wait_fail(c, ERR_LIMIT, "too many calls wait for it: try again");
                return;
        }
        if (server_has_instances(s) && (instance_was_lost(s, c) || instance_is_one_too_many(s, c)))
                return;
        c->then = then;
        c->deadline_ms = now_ms(s->g->loop) + s->g->config.start_ms;
        list_add(&s->waiting, &c->in_queue);
        s->n_waiting++;
        if (s->n_waiting == 1)
                waiting_arm(s);
        if (s->entry.readiness != READINESS_UP)
                tell_progress(c);
        if (server_has_instances(s)) {
                instance_wake(s, c);
                return;
        }
        wake_own(s, c->session);
        wait_wake(s);
}

void wait_failed_session(struct server *s, const struct session *session, const char *why)
{
        struct list ended;
        struct call *c;

        list_init(&ended);
        LIST_FOREACH (c, &s->waiting, struct call, in_queue)
                if (c->session == session)
                        wait_take(c, &ended);
        wait_fail_taken(s, &ended, ERR_UNAVAILABLE, why);
}

void wait_over(struct server *s)
{
        struct call *c;
        struct list ready;

        list_init(&ready);
        LIST_FOREACH (c, &s->waiting, struct call, in_queue)
                if (server_leg(s, c))
                        wait_take(c, &ready);
        waiting_arm(s);
        while (!list_empty(&ready)) {
                c = list_first(&ready, struct call, in_queue);
                list_del(&c->in_queue);
                c->leg = server_leg(s, c);
                c->then(c);
        }
}
