#include "broker/gateway/upstream_internal.h"

#define METHOD_UNKNOWN "{\"code\":-32601,\"message\":\"Method not found\"}"
#define NOT_YET        "{\"code\":-32600,\"message\":\"The handshake is not over\"}"

void upstream_noise(struct upstream *u)
{
        struct err *err = NULL;

        u->ignored++;
        if (++u->noise <= u->limits.max_noise)
                return;
        err_set(&err, ERR_INVALID, "more than %u lines in a row that are no messages, or answers to nothing that was asked",
                u->limits.max_noise);
        upstream_end(u, err);
}

static bool is_space(char c)
{
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* An integer as we write our ids: 0 = it is none. */
static uint64_t own_id(struct mcp_slice s)
{
        uint64_t id = 0;

        if (s.n == 0 || s.n > 18 || s.at[0] == '0')
                return 0;
        for (size_t i = 0; i < s.n; i++) {
                if (s.at[i] < '0' || s.at[i] > '9')
                        return 0;
                id = id * 10 + (uint64_t)(s.at[i] - '0');
        }
        return id;
}

struct upstream_call *upstream_own_call(const struct upstream *u, struct mcp_slice id)
{
        uint64_t n = own_id(id);

        return n ? call_find(u, n) : NULL;
}

/* -- answers ----------------------------------------------------------------------------------------------------------------- */

static void take_answer(struct upstream *u, const struct mcp_message *m)
{
        struct upstream_call *c = upstream_own_call(u, m->id);

        if (c) {
                u->noise = 0;
                call_finish(c, m, NULL);
        } else if (m->kind == MCP_ERROR && !mcp_has(m->id) && handshake_take_error(u, m)) {
                u->noise = 0;
        } else if (u->abandoned > 0) {
                u->abandoned--; /* late: nobody waits for it any more */
        } else {
                upstream_noise(u);
        }
}

/* -- notifications ----------------------------------------------------------------------------------------------------------- */

/* The caller knows its own token only, and looks for it as it wrote it. */
static void take_progress(struct upstream *u, const struct mcp_message *m)
{
        struct upstream_call *c = upstream_own_call(u, m->progress_token);
        struct mcp_message own;
        struct mcp_edit edit;

        if (!c || c->n_token == 0) {
                u->ignored++;
                return;
        }
        call_extend(c);
        if (!c->notification)
                return;
        edit = (struct mcp_edit){m->progress_token, {c->text, c->n_token}};
        u->note.len = 0;
        mcp_edit_add(&u->note, (struct mcp_slice){m->text, m->n}, &edit, 1);
        if (mcp_message_scan(&own, u->note.data, u->note.len, NULL) == 0)
                c->notification(c, &own, c->user);
        if (u->note.cap > UPSTREAM_KEEP)
                buf_deinit(&u->note);
}

static void take_cancelled(struct upstream *u, const struct mcp_message *m)
{
        struct upstream_call *c;
        struct err *err = NULL;

        if (u->era != MCP_ERA_MODERN) {
                if (u->events.withdrawn && mcp_has(m->request_id))
                        u->events.withdrawn(u, m->request_id, u->user);
                return;
        }
        /* Modern: the server ends a subscription. */
        c = upstream_own_call(u, m->request_id);
        if (!c || c->method != MCP_M_LISTEN)
                return;
        err_set(&err, ERR_UNAVAILABLE, "the server ended the subscription");
        call_doom(c, err);
        call_finish_doomed(u);
}

static void take_notification(struct upstream *u, struct upstream_call *on, const struct mcp_message *m)
{
        struct upstream_call *c = mcp_has(m->meta_subscription) ? upstream_own_call(u, m->meta_subscription) : NULL;

        if (mcp_is(m->method, "notifications/progress"))
                take_progress(u, m);
        else if (mcp_is(m->method, "notifications/cancelled"))
                take_cancelled(u, m);
        else if (u->state != UPSTREAM_READY)
                u->ignored++;
        else if (!(c = c ? c : on))
                u->events.notification(u, m, u->user);
        else if (c->notification)
                c->notification(c, m, c->user);
}

/* -- requests of the server -------------------------------------------------------------------------------------------------- */

static void take_request(struct upstream *u, struct upstream_call *on, const struct mcp_message *m)
{
        const struct mcp_slice none = {0};

        if (u->era == MCP_ERA_MODERN) {
                upstream_noise(u); /* there are none, and they must not be answered */
                return;
        }
        u->noise = 0;
        if (mcp_is(m->method, "ping"))
                upstream_answer(u, m->id, mcp_slice_of("{}"), none);
        else if (u->state != UPSTREAM_READY)
                upstream_answer(u, m->id, none, mcp_slice_of(NOT_YET));
        else if (!u->events.request)
                upstream_answer(u, m->id, none, mcp_slice_of(METHOD_UNKNOWN));
        else
                u->events.request(u, on, m, u->user);
}

/* -- what is refused --------------------------------------------------------------------------------------------------------- */

/* at: a quote. Behind the string's end, or NULL. */
static const char *skip_string(const char *at, const char *end)
{
        for (at++; at < end && *at != '"'; at++)
                if (*at == '\\')
                        at++;
        return at < end ? at + 1 : NULL;
}

/*
 * The id in a message that was refused (a key twice, deep in a result; a number beyond 2^53), so that its call fails now and not at its
 * deadline. Reads brackets and strings only: being wrong about text that is no JSON fails a call of the server that wrote it.
 */
static uint64_t salvage_id(const char *text, size_t n)
{
        const char *end = text + n, *p = text;
        unsigned depth = 0;

        while (p && p < end) {
                const char *start = p;
                size_t digits = 0;

                if (*p != '"') {
                        depth += *p == '{' || *p == '[';
                        depth -= depth > 0 && (*p == '}' || *p == ']');
                        p++;
                        continue;
                }
                p = skip_string(p, end);
                if (!p || depth != 1 || p - start != 4 || memcmp(start, "\"id\"", 4) != 0)
                        continue;
                while (p < end && (is_space(*p) || *p == ':'))
                        p++;
                while (p + digits < end && p[digits] >= '0' && p[digits] <= '9')
                        digits++;
                return own_id((struct mcp_slice){p, digits});
        }
        return 0;
}

static void take_refused(struct upstream *u, const char *text, size_t n)
{
        struct upstream_call *c = NULL;
        struct mcp_message m;
        struct err *err = NULL;
        uint64_t id = n > 0 && *text == '{' ? salvage_id(text, n) : 0;

        if (id)
                c = call_find(u, id);
        if (!c) {
                upstream_noise(u);
                return;
        }
        u->ignored++;
        (void)!mcp_message_scan(&m, text, n, &err); /* once more, for the reason */
        err_wrap(&err, "its answer to %s is refused", call_method(c));
        call_doom(c, err);
        call_finish_doomed(u);
}

/* -- all --------------------------------------------------------------------------------------------------------------------- */

static void receive_one(struct upstream *u, struct upstream_call *on, const struct mcp_message *m)
{
        switch (m->kind) {
        case MCP_RESULT:
        case MCP_ERROR:
                take_answer(u, m);
                break;
        case MCP_NOTIFICATION:
                u->noise = 0;
                take_notification(u, on, m);
                break;
        case MCP_REQUEST:
                take_request(u, on, m);
                break;
        }
}

/* Only revision 2025-03-26 has them. */
static void receive_batch(struct upstream *u, uint64_t on, const char *text, size_t n)
{
        struct mcp_slice item;
        size_t pos = 0;

        if (u->era != MCP_ERA_LEGACY || !mcp_revision_has_batches(u->revision)) {
                upstream_noise(u);
                return;
        }
        while (upstream_alive(u) && mcp_batch_next(&item, text, n, &pos) == 1) {
                struct mcp_message m;
                if (mcp_message_scan(&m, item.at, item.n, NULL) == 0)
                        receive_one(u, on ? call_find(u, on) : NULL, &m);
                else
                        take_refused(u, item.at, item.n);
        }
}

void upstream_receive(struct upstream *u, struct upstream_call *on, const char *text, size_t n)
{
        struct mcp_message m;
        int r;

        while (n > 0 && is_space(*text))
                text++, n--;
        if (n == 0)
                return;
        /* Log lines are told from messages by their first character, at no cost. */
        if (*text != '{' && *text != '[') {
                upstream_noise(u);
                return;
        }
        r = mcp_message_scan(&m, text, n, NULL);
        if (r == 0)
                receive_one(u, on, &m);
        else if (r == MCP_FAULT_BATCH)
                receive_batch(u, on ? on->id : 0, text, n);
        else
                take_refused(u, text, n);
}
