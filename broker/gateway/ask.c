/*
 * Requests of legacy servers (sampling, elicitation, roots): which client they are for, and the way of the answer back.
 *
 * A server on standard streams cannot say on whose behalf it asks. Its request is given to a client only when everything that is under way
 * there is that client's; else it is refused: a question that reached the wrong person would be worse than none.
 */
#include <inttypes.h>

#include "broker/gateway/internal.h"

#define NOT_SUPPORTED "{\"code\":-32601,\"message\":\"the client does not support this request\"}"
#define NOT_TOLD      "{\"code\":-32603,\"message\":\"several clients share this server: it cannot be told whose request this is\"}"
#define NOT_REACHED   "{\"code\":-32603,\"message\":\"the client cannot be reached\"}"

unsigned capability_bits(struct mcp_slice capabilities)
{
        struct mcp_slice elicitation;
        unsigned bits = 0;

        if (!mcp_is_object(capabilities))
                return 0;
        elicitation = mcp_object_get(capabilities, "elicitation");
        if (mcp_is_object(mcp_object_get(capabilities, "sampling")))
                bits |= CAP_SAMPLING;
        if (mcp_is_object(mcp_object_get(capabilities, "roots")))
                bits |= CAP_ROOTS;
        if (mcp_is_object(elicitation)) {
                bool url = mcp_has(mcp_object_get(elicitation, "url"));

                /* An empty object is a form: modes came later. */
                if (!url || mcp_has(mcp_object_get(elicitation, "form")))
                        bits |= CAP_ELICITATION;
                if (url)
                        bits |= CAP_ELICITATION_URL;
        }
        return bits;
}

unsigned capability_needed(const struct mcp_message *m)
{
        if (mcp_is(m->method, "sampling/createMessage"))
                return CAP_SAMPLING;
        if (mcp_is(m->method, "roots/list"))
                return CAP_ROOTS;
        if (!mcp_is(m->method, "elicitation/create"))
                return 0;
        return mcp_is_object(m->params) && mcp_is(mcp_object_get(m->params, "mode"), "\"url\"") ? CAP_ELICITATION_URL : CAP_ELICITATION;
}

static bool same_client(const struct call *a, const struct call *b)
{
        return a->session == b->session && a->era == b->era && a->principal == b->principal;
}

/*
 * A server that was told that nobody waits for an answer any more may ask something before it stops; servers do not say when they did. For
 * a while such a question can only be for the client of the call that was given up: a legacy one is known again, of modern ones each call
 * counts as one of its own.
 */
#define STRAY_MS   5000U
#define NO_SESSION UINT64_MAX

static uint64_t client_of(const struct call *c)
{
        return c->session ? c->session->serial : NO_SESSION;
}

static bool is_stray(const struct leg *l)
{
        return l->left_ms && now_ms(l->server->g->loop) - l->left_ms < STRAY_MS;
}

void leg_abandoned(struct call *c)
{
        struct leg *l = c->leg;

        if (c->own || l->owner)
                return;
        l->left_client = is_stray(l) && l->left_client != client_of(c) ? NO_SESSION : client_of(c);
        l->left_ms = now_ms(c->g->loop);
}

/*
 * Of a legacy client any call will do: its session hears it. A modern client's request must be the one that the question belongs to: those
 * that wait for their client's answers are asking nothing now, and of the others there must be one only.
 */
struct call *leg_only_client(struct leg *l, struct session **ret)
{
        struct call *c, *found = NULL, *client = NULL;

        *ret = l->owner;
        if (l->of_instance && l->of_instance->own)
                return NULL; /* who looks at a list is not who is asked */
        LIST_FOREACH (c, &l->calls, struct call, in_leg) {
                if (c->own)
                        continue;
                if ((client && !same_client(client, c)) || (found && !c->session && list_empty(&c->asks))) {
                        *ret = NULL;
                        return NULL;
                }
                client = c;
                if (c->session || list_empty(&c->asks))
                        found = c;
        }
        if (!found && client && !client->session)
                found = client;
        if (found && is_stray(l) && (!found->session || found->session->serial != l->left_client)) {
                *ret = NULL;
                return NULL;
        }
        if (found && !l->owner)
                *ret = found->session;
        return found;
}

/* People are slower than servers may be: the clocks of what may be waiting for them stand still meanwhile. */
static void extend(const struct ask *a, uint64_t ms)
{
        struct call *c;

        LIST_FOREACH (c, &a->leg->calls, struct call, in_leg)
                if (c->up && (c == a->call || (c->session && c->session == a->session)))
                        upstream_call_extend(c->up, ms);
}

void ask_deliver(struct ask *a, struct mcp_slice result, struct mcp_slice error)
{
        extend(a, 0);
        upstream_answer(a->leg->u, mcp_slice_of(a->id_text), result, error);
        ask_free(a);
}

struct ask *ask_free(struct ask *a)
{
        if (a->session) {
                list_del(&a->in_session);
                a->session->n_asks--;
        }
        if (a->kept)
                a->call->g->kept -= a->kept;
        list_del(&a->in_leg);
        list_del(&a->in_call);
        free(a->id_text);
        free(a->request);
        free(a);
        return NULL;
}

struct ask *ask_new(struct gateway *g, struct call *c, struct session *s, struct leg *l, struct mcp_slice id)
{
        struct ask *a = NEW(struct ask);

        a->id = ++g->next_ask;
        a->session = s;
        a->leg = l;
        a->call = c;
        a->id_text = mem_strndup(id.at, id.n);
        if (s) {
                list_add(&s->asks, &a->in_session);
                s->n_asks++;
        }
        if (l)
                list_add(&l->asks, &a->in_leg);
        if (c)
                list_add(&c->asks, &a->in_call);
        return a;
}

bool ask_send(struct ask *a, struct mcp_slice method, struct mcp_slice params)
{
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"", a->id);
        mcp_add_slice(&b, method);
        buf_addc(&b, '"');
        if (mcp_has(params)) {
                buf_adds(&b, ",\"params\":");
                mcp_add_slice(&b, params);
        }
        buf_addc(&b, '}');
        if (a->call && a->call->reply && a->call->reply->x) {
                reply_event(a->call->reply, b.data, b.len);
                return true;
        }
        return session_event(a->session, b.data, b.len);
}

static void refuse(struct leg *l, const struct mcp_message *m, const char *error)
{
        upstream_answer(l->u, m->id, (struct mcp_slice){0}, mcp_slice_of(error));
}

static char *request_text(const struct mcp_message *m)
{
        struct buf b = {0};

        buf_adds(&b, "{\"method\":\"");
        mcp_add_slice(&b, m->method);
        buf_addc(&b, '"');
        if (mcp_has(m->params)) {
                buf_adds(&b, ",\"params\":");
                mcp_add_slice(&b, m->params);
        }
        buf_addc(&b, '}');
        return buf_take(&b);
}

void ask_request(struct leg *l, struct call *c, const struct mcp_message *m)
{
        struct session *s = c ? c->session : NULL;
        unsigned bits, needed = capability_needed(m);
        struct principal *who;
        struct ask *a;

        if (!c)
                c = leg_only_client(l, &s);
        if (s) {
                who = s->who;
                bits = s->capabilities;
        } else if (c && !c->own && c->era == MCP_ERA_MODERN) {
                who = c->who;
                bits = capability_bits(c->m.meta_capabilities);
        } else {
                refuse(l, m, NOT_TOLD);
                return;
        }
        /* Also of a modern client: the server may well go on without, so that it is not for us to end the call. If it does not, that is
         * why. */
        if (!(bits & needed) || !guard_may_ask(l->server->g, who, l->server, needed)) {
                if (c && !(bits & needed))
                        c->lacked |= (uint8_t)needed;
                refuse(l, m, NOT_SUPPORTED);
                return;
        }
        if (!s && l->server->g->kept + m->n > MAX_KEPT) {
                refuse(l, m, "{\"code\":-32603,\"message\":\"too much waits for clients that do not ask for it\"}");
                return;
        }
        if (s ? s->n_asks >= MAX_ASKS_SESSION : c->rounds++ >= MAX_ROUNDS) {
                refuse(l, m, "{\"code\":-32603,\"message\":\"too many requests to one client\"}");
                return;
        }
        a = ask_new(l->server->g, c, s, l, m->id);
        if (s && !ask_send(a, m->method, m->params)) {
                ask_free(a);
                refuse(l, m, NOT_REACHED);
                return;
        }
        extend(a, HELD_MS);
        if (!s) {
                a->request = request_text(m);
                a->kept = strlen(a->request);
                c->g->kept += a->kept;
                held_ask(a);
        }
}

/* The server wants no answer any more. */
void ask_withdrawn(struct leg *l, struct mcp_slice id)
{
        _cleanup_buf_ struct buf b = {0};
        struct ask *a;

        LIST_FOREACH (a, &l->asks, struct ask, in_leg) {
                if (strlen(a->id_text) != id.n || memcmp(a->id_text, id.at, id.n) != 0)
                        continue;
                buf_addf(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%" PRIu64 "}}", a->id);
                if (a->session && a->call && a->call->reply && a->call->reply->x)
                        reply_event(a->call->reply, b.data, b.len);
                else if (a->session)
                        (void)session_event(a->session, b.data, b.len);
                extend(a, 0);
                ask_free(a);
                return;
        }
}

/* A client's response. What it answers may be long gone. */
void ask_answered(struct session *s, const struct mcp_message *m)
{
        char id[24];
        struct ask *a;

        LIST_FOREACH (a, &s->asks, struct ask, in_session) {
                int n = snprintf(id, sizeof(id), "%" PRIu64, a->id);

                if (m->id.n != (size_t)n || memcmp(m->id.at, id, m->id.n) != 0)
                        continue;
                if (a->leg) {
                        ask_deliver(a, m->kind == MCP_RESULT ? m->result : (struct mcp_slice){0},
                                    m->kind == MCP_ERROR ? m->error : (struct mcp_slice){0});
                } else {
                        down_answered(a, m);
                }
                return;
        }
}
