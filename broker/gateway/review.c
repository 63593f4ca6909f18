/*
 * What outlives a request: sessions, streams, and calls under way, of agents whose tokens do not count any more. They end, silent or not.
 */
#include "broker/gateway/internal.h"

static enum gateway_standing standing(const struct gateway *g, const struct principal *who)
{
        return who ? g->guard->standing(who, g->guard->user) : GATEWAY_COUNTS;
}

static void review_sessions(struct gateway *g)
{
        struct session *s;

        LIST_FOREACH (s, &g->idle, struct session, in_idle) {
                if (standing(g, s->who) != GATEWAY_COUNTS) {
                        session_free(s);
                } else if (s->stream && standing(g, guard_who(g, s->stream)) != GATEWAY_COUNTS) {
                        /* The session goes on with a newer token; the stream was opened with the old one. */
                        exchange_on_left(s->stream, NULL, NULL);
                        exchange_end(TAKE_PTR(s->stream));
                }
        }
}

static struct call *revoked_call(struct gateway *g)
{
        struct call *c;

        /* Parts of a list end with it. */
        LIST_FOREACH (c, &g->calls, struct call, in_gateway)
                if (!c->part && standing(g, c->who) == GATEWAY_REVOKED)
                        return c;
        return NULL;
}

static void review_calls(struct gateway *g)
{
        struct call *c;

        while ((c = revoked_call(g))) {
                _cleanup_err_ struct err *why = NULL;

                (void)err_set(&why, ERR_DENIED, "the token that this call came with does not count any more");
                if (c->finish_user || (c->reply && !c->finish))
                        call_fail(c, why);
                else
                        call_cancel(c, "the caller may not call any more");
        }
}

void gateway_review(struct gateway *g)
{
        if (!g->guard)
                return;
        review_calls(g);
        review_sessions(g);
        listens_review(g);
}
