#include "broker/gateway/internal.h"

/* A buffer that takes n bytes without growing: answers are written once. */
static void buf_sized(struct buf *b, size_t n)
{
        b->data = mem_realloc(NULL, n + 1, 1);
        b->cap = n + 1;
}

struct mcp_slice slice_of_buf(const struct buf *b)
{
        return (struct mcp_slice){b->data, b->len};
}

void message_result(struct buf *out, struct mcp_slice id, struct mcp_slice result)
{
        if (!out->data)
                buf_sized(out, result.n + id.n + 48);
        buf_adds(out, "{\"jsonrpc\":\"2.0\",\"id\":");
        mcp_add_slice(out, id);
        buf_adds(out, ",\"result\":");
        mcp_add_slice(out, result);
        buf_addc(out, '}');
}

void message_error(struct buf *out, struct mcp_slice id, int64_t code, const char *message, struct mcp_slice data)
{
        buf_adds(out, "{\"jsonrpc\":\"2.0\"");
        if (mcp_has(id)) {
                buf_adds(out, ",\"id\":");
                mcp_add_slice(out, id);
        }
        buf_addf(out, ",\"error\":{\"code\":%lld,\"message\":", (long long)code);
        mcp_add_string(out, message, strlen(message));
        if (mcp_has(data)) {
                buf_adds(out, ",\"data\":");
                mcp_add_slice(out, data);
        }
        buf_adds(out, "}}");
}

void reply_error(struct exchange *x, unsigned status, struct mcp_slice id, int code, const char *message)
{
        struct buf b = {0};

        message_error(&b, id, code, message, (struct mcp_slice){0});
        exchange_answer(x, status, "application/json", &b);
}

static void reply_free(struct reply *r)
{
        buf_deinit(&r->items);
        free(r);
}

/*
 * The client left. Modern: that cancels the request. Legacy: it does not; the server finishes, and nobody hears of it, since streams are
 * not resumable here.
 */
static void on_left(_unused_ struct exchange *x, void *user)
{
        struct reply *r = user;

        r->x = NULL;
        while (!list_empty(&r->calls)) {
                struct call *c = list_first(&r->calls, struct call, in_reply);

                list_del(&c->in_reply);
                c->reply = NULL;
                if (r->era == MCP_ERA_MODERN)
                        call_free(c);
        }
        if (!r->starting)
                reply_free(r);
}

struct reply *reply_new(struct exchange *x, enum mcp_era era)
{
        struct reply *r = NEW(struct reply);

        r->x = x;
        r->era = era;
        list_init(&r->calls);
        exchange_on_left(x, on_left, r);
        return r;
}

struct exchange *reply_take(struct call *c)
{
        struct reply *r = c->reply;
        struct exchange *x = r ? r->x : NULL;

        if (!r)
                return NULL;
        exchange_on_left(x, NULL, NULL);
        list_del(&c->in_reply);
        c->reply = NULL;
        reply_free(r);
        return x;
}

void reply_event(struct reply *r, const char *text, size_t n)
{
        struct buf event = {0};

        if (!r->x)
                return;
        if (!r->streaming) {
                r->streaming = true;
                exchange_stream(r->x);
        }
        sse_add_event(&event, NULL, NULL, text, n);
        exchange_send(r->x, &event);
}

/* The last call was answered. */
static void reply_finish(struct reply *r)
{
        struct buf body = {0};

        if (r->x && r->streaming) {
                exchange_end(r->x);
        } else if (r->x && r->items.len) {
                buf_addc(&r->items, ']');
                body = r->items;
                r->items = (struct buf){0};
                exchange_answer(r->x, 200, "application/json", &body);
        } else if (r->x) {
                exchange_answer(r->x, 202, NULL, &body);
        }
        reply_free(r);
}

static void batch_final(struct reply *r, struct buf *message)
{
        if (message->len && r->streaming) {
                reply_event(r, message->data, message->len);
        } else if (message->len) {
                buf_addc(&r->items, r->items.len ? ',' : '[');
                buf_add(&r->items, message->data, message->len);
        }
        buf_deinit(message);
        if (list_empty(&r->calls) && !r->starting)
                reply_finish(r);
}

void reply_final(struct call *c, unsigned status, struct buf *message)
{
        struct reply *r = c->reply;

        if (!r) {
                buf_deinit(message);
                return;
        }
        list_del(&c->in_reply);
        c->reply = NULL;
        if (r->batch) {
                batch_final(r, message);
                return;
        }
        if (r->x && !r->streaming && message->len) {
                exchange_answer(r->x, status, "application/json", message);
                *message = (struct buf){0};
                r->x = NULL;
        } else if (r->x && message->len) {
                reply_event(r, message->data, message->len);
        }
        buf_deinit(message);
        reply_finish(r);
}

void reply_started(struct reply *r)
{
        r->starting = false;
        if (!r->x)
                reply_free(r);
        else if (list_empty(&r->calls))
                reply_finish(r);
}
