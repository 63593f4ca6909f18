/*
 * Servers that hang: a call that got no answer in its time is followed by a ping, which has as much. A server that answers neither, nor
 * anything else meanwhile, or by HTTP cannot be spoken to for as long as a start may take, gets a fresh instance from the controller. How
 * often is bounded here, and by the controller's backoff.
 */
#include "broker/gateway/internal.h"
#include "common/log.h"

#define PAUSE_MIN_MS (60U * 1000U)
#define PAUSE_MAX_MS (60U * 60U * 1000U)

/* Asks for a fresh instance, unless that was done not long ago. */
static void renew(struct server *s, const char *why)
{
        uint64_t now = now_ms(s->g->loop);

        s->unreached_ms = 0;
        if (!s->entry.instance || !s->g->link_up || now < s->renew_at_ms)
                return;
        /* A long time without such trouble is a fresh start. */
        if (now - s->renew_at_ms > PAUSE_MAX_MS)
                s->renew_pause_ms = 0;
        s->renew_pause_ms = s->renew_pause_ms ? MIN(2 * s->renew_pause_ms, (uint64_t)PAUSE_MAX_MS) : PAUSE_MIN_MS;
        s->renew_at_ms = now + s->renew_pause_ms;
        log_warning("a server hangs, and is to be started anew", "server", s->entry.name, "because", why);
        s->g->controller.renew(s->entry.name, s->entry.instance, s->g->controller.user);
}

static void on_ping(struct call *c, const struct mcp_message *answer, const struct err *why)
{
        struct server *s = c->server;
        uint64_t asked = s->pinged_ms;
        _cleanup_err_ struct err *hung = NULL;

        s->pinged_ms = 0;
        call_free(c);
        if (answer || err_code(why) != ERR_TIMEOUT || s->answered_ms > asked || !s->shared)
                return;
        (void)err_set(&hung, ERR_TIMEOUT, "server %s: it answers neither calls nor a ping", s->entry.name);
        if (s->entry.transport != TRANSPORT_STDIO)
                renew(s, "it answers neither calls nor a ping");
        server_leg_ended(s->shared, hung); /* of a stdio server: and a fresh stream is asked for soon */
}

void hung_look(struct server *s)
{
        struct call *c;

        if (s->pinged_ms || !s->shared || !s->shared->ready || s->g->freeing)
                return;
        s->pinged_ms = MAX(now_ms(s->g->loop), (uint64_t)1);
        c = call_new(s->g, NULL, NULL, MCP_ERA_LEGACY);
        c->own = true;
        c->method = s->shared->era == MCP_ERA_MODERN ? MCP_M_DISCOVER : MCP_M_PING; /* the modern era knows no ping */
        c->finish = on_ping;
        buf_adds(&c->text, "{}");
        c->m.params = slice_of_buf(&c->text);
        server_want(s, c, call_send);
}

void hung_unreached(struct server *s, const struct err *why)
{
        uint64_t now = now_ms(s->g->loop);

        if (s->entry.transport == TRANSPORT_STDIO || s->entry.readiness != READINESS_UP ||
            (err_code(why) != ERR_TIMEOUT && err_code(why) != ERR_UNAVAILABLE))
                return;
        if (!s->unreached_ms)
                s->unreached_ms = now;
        else if (now - s->unreached_ms >= s->g->config.start_ms)
                renew(s, err_msg(why));
}
