/*
 * A legacy server asks in the middle of a call; a modern client knows no requests from servers. Its call is answered "input required", the
 * server's call is held open, and the client's next request, which brings the answers, takes it up again.
 *
 * The client's part of the state is a random handle that is good for one use, its end of time and a MAC that binds both to the principal
 * and to the request.
 * Source: MCP 2026-07-28, basic/patterns/mrtr, "Server Requirements".
 */
#include <inttypes.h>

#include "broker/gateway/internal.h"

#define STATE_PREFIX "bh1."
#define GATHER_MS    10U
#define MAX_FINAL    (1U << 20) /* bytes of an answer that came while nobody was there */
#define NO_DATA      ((struct mcp_slice){0})

struct token {
        uint8_t handle[16];
        uint8_t expires[8];
        uint8_t mac[crypto_auth_BYTES];
};

struct held {
        struct list in_gateway;
        struct call *call;
        struct token token;
        uint64_t expires_ms;
        sd_event_source *gathered; /* more questions may come with the first */
        struct buf final;          /* the answer behind its id */
        bool done;
};

static void hash_part(crypto_generichash_state *h, struct mcp_slice s)
{
        uint64_t n = s.n;

        crypto_generichash_update(h, (const unsigned char *)&n, sizeof(n));
        if (s.at)
                crypto_generichash_update(h, (const unsigned char *)s.at, s.n);
}

/* Who asks, and for what: a state is good for nothing else. */
static void token_mac(uint8_t mac[crypto_auth_BYTES], const struct token *t, const struct call *c)
{
        unsigned char digest[crypto_generichash_BYTES];
        crypto_generichash_state h;

        crypto_generichash_init(&h, c->g->key, sizeof(c->g->key), sizeof(digest));
        crypto_generichash_update(&h, t->handle, sizeof(t->handle));
        crypto_generichash_update(&h, t->expires, sizeof(t->expires));
        hash_part(&h, mcp_slice_of(c->who ? guard_name(c->g, c->who) : exchange_header(c->reply->x, "Authorization")));
        crypto_generichash_update(&h, (const unsigned char *)(c->who ? "a" : "o"), 1);
        hash_part(&h, mcp_slice_of(exchange_path(c->reply->x)));
        hash_part(&h, c->m.method);
        hash_part(&h, c->m.name);
        hash_part(&h, c->m.uri);
        hash_part(&h, c->m.arguments);
        crypto_generichash_final(&h, digest, sizeof(digest));
        crypto_auth(mac, digest, sizeof(digest), c->g->key);
}

void held_free(struct call *c)
{
        struct held *h = c->held;

        if (!h)
                return;
        list_del(&h->in_gateway);
        c->g->n_held--;
        sd_event_source_disable_unref(h->gathered);
        c->g->kept -= h->final.len;
        buf_deinit(&h->final);
        free(h);
        c->held = NULL;
}

static int held_expired(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct gateway *g = user;
        struct held *h;

        while ((h = list_first(&g->held, struct held, in_gateway))) {
                uint64_t ms = now_ms(g->loop);

                if (h->expires_ms > ms) {
                        timer_arm(&g->held_timer, g->loop, h->expires_ms - ms, held_expired, g);
                        return 0;
                }
                call_cancel(h->call, "the client did not come back with its answers");
        }
        return 0;
}

static void held_result(struct buf *out, struct call *c)
{
        char state[sodium_base64_ENCODED_LEN(sizeof(struct token), sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
        struct ask *a;
        char sep = '{';

        sodium_bin2base64(state, sizeof(state), (const unsigned char *)&c->held->token, sizeof(struct token),
                          sodium_base64_VARIANT_URLSAFE_NO_PADDING);
        buf_adds(out, "{\"resultType\":\"input_required\",\"inputRequests\":");
        LIST_FOREACH (a, &c->asks, struct ask, in_call) {
                buf_addf(out, "%c\"q%" PRIu64 "\":%s", sep, a->id, a->request);
                sep = ',';
        }
        buf_addf(out, "},\"requestState\":\"" STATE_PREFIX "%s\"}", state);
}

/* The client gets the questions; from now on nobody waits for the call's answer. */
static void held_issue(struct call *c)
{
        struct gateway *g = c->g;
        _cleanup_buf_ struct buf result = {0};
        struct buf message = {0};
        struct held *h = c->held;

        h->expires_ms = now_ms(g->loop) + HELD_MS;
        randombytes_buf(h->token.handle, sizeof(h->token.handle));
        memcpy(h->token.expires, &h->expires_ms, sizeof(h->token.expires));
        token_mac(h->token.mac, &h->token, c);
        list_del(&h->in_gateway);
        if (list_empty(&g->held))
                timer_arm(&g->held_timer, g->loop, HELD_MS, held_expired, g);
        list_add(&g->held, &h->in_gateway);
        held_result(&result, c);
        message_result(&message, c->m.id, slice_of_buf(&result));
        reply_final(c, 200, &message);
}

static int on_gathered(_unused_ sd_event_source *source, _unused_ uint64_t now, void *user)
{
        struct call *c = user;

        if (c->reply && c->reply->x && !list_empty(&c->asks))
                held_issue(c);
        return 0;
}

/* A server that wants to know several things asks for all of them at once: one round then, not one for each. */
void held_ask(struct ask *a)
{
        struct call *c = a->call;

        if (!c->held && c->g->n_held >= MAX_HELD) {
                ask_deliver(a, NO_DATA, mcp_slice_of("{\"code\":-32603,\"message\":\"too many calls wait for their clients\"}"));
                return;
        }
        if (!c->reply) /* the client is told with its next request */
                return;
        if (!c->held) {
                c->held = NEW(struct held);
                c->held->call = c;
                c->g->n_held++;
        }
        timer_arm(&c->held->gathered, c->g->loop, GATHER_MS, on_gathered, c);
}

bool held_is_ours(struct mcp_slice state)
{
        return state.n > sizeof(STATE_PREFIX) && memcmp(state.at, "\"" STATE_PREFIX, sizeof(STATE_PREFIX)) == 0;
}

static struct held *held_find(struct call *c)
{
        struct token token;
        uint8_t mac[crypto_auth_BYTES];
        const char *text = c->m.request_state.at + sizeof(STATE_PREFIX);
        size_t n, length = c->m.request_state.n - sizeof(STATE_PREFIX) - 1;
        struct held *h;

        if (sodium_base642bin((unsigned char *)&token, sizeof(token), text, length, NULL, &n, NULL,
                              sodium_base64_VARIANT_URLSAFE_NO_PADDING) < 0 ||
            n != sizeof(token))
                return NULL;
        token_mac(mac, &token, c);
        if (sodium_memcmp(mac, token.mac, sizeof(mac)) != 0)
                return NULL;
        LIST_FOREACH (h, &c->g->held, struct held, in_gateway)
                if (sodium_memcmp(h->token.handle, token.handle, sizeof(token.handle)) == 0)
                        return h->expires_ms > now_ms(c->g->loop) ? h : NULL;
        return NULL;
}

/* The held call goes on in place of the request that took it up: with its exchange, its id and its token for progress. */
static void take_over(struct call *old, struct call *c)
{
        struct reply *r = c->reply;
        struct buf text = old->text;
        size_t charged = old->charged;

        list_del(&c->in_reply);
        c->reply = NULL;
        old->reply = r;
        list_add(&r->calls, &old->in_reply);
        old->text = c->text;
        old->m = c->m;
        old->charged = c->charged;
        c->text = text;
        c->charged = charged;
        call_free(c);
}

static void deliver(struct call *c)
{
        struct ask *a;

        LIST_FOREACH (a, &c->asks, struct ask, in_call) {
                _cleanup_free_ char *key = mem_printf("q%" PRIu64, a->id);
                struct mcp_slice value =
                        mcp_is_object(c->m.input_responses) ? mcp_object_get(c->m.input_responses, key) : (struct mcp_slice){0};

                if (!mcp_is_object(value))
                        continue;
                ask_deliver(a, value, NO_DATA);
        }
}

static void finish(struct call *c)
{
        struct buf message = {0};

        buf_adds(&message, "{\"jsonrpc\":\"2.0\",\"id\":");
        mcp_add_slice(&message, c->m.id);
        buf_add(&message, c->held->final.data, c->held->final.len);
        reply_final(c, 200, &message);
        call_free(c);
}

void held_resume(struct call *c)
{
        struct held *h = c->reply && c->reply->x ? held_find(c) : NULL;
        struct call *old;

        if (!h) {
                call_error(c, MCP_INVALID_PARAMS, STATE_IS_BAD, NO_DATA);
                return;
        }
        old = h->call;
        take_over(old, c);
        if (h->done) {
                finish(old);
                return;
        }
        deliver(old);
        if (!list_empty(&old->asks)) {
                held_issue(old);
                return;
        }
        /* Nobody has to come back: it ends with the exchange again. */
        held_free(old);
}

bool held_keep(struct call *c, struct buf *message)
{
        size_t head = sizeof("{\"jsonrpc\":\"2.0\",\"id\":") - 1 + c->m.id.n;

        if (!c->held || message->len > MAX_FINAL || c->g->kept + message->len > MAX_KEPT || message->len < head)
                return false;
        buf_drop(message, head);
        c->held->final = *message;
        c->g->kept += message->len;
        *message = (struct buf){0};
        c->held->done = true;
        c->server = NULL;
        c->leg = NULL;
        return true;
}
