#include <stdio.h>

#include "broker/gateway/upstream_internal.h"

/*
 * Calls, and what goes out. One timer for all deadlines of a session: it rings for the earliest one that it knows of and looks at all calls
 * then, so that starting and ending a call costs no system call.
 */
#define FIRST_SLOTS    16U
#define DEADLINE_SLACK 10000 /* microseconds */
#define MAX_REASON     200U

uint64_t upstream_now(const struct upstream *u)
{
        uint64_t now = 0;

        return sd_event_now(u->loop, CLOCK_MONOTONIC, &now) < 0 ? 0 : now;
}

/* -- the table --------------------------------------------------------------------------------------------------------------- */

static struct upstream_call **slot_of(const struct upstream *u, uint64_t id)
{
        return &u->table[id & (u->n_slots - 1)];
}

/* Ids are given out one after the other, so that calls spread over the slots without a hash. */
static void table_grow(struct upstream *u)
{
        struct upstream_call **old = u->table;
        size_t n = u->n_slots;

        u->n_slots = n ? 2 * n : FIRST_SLOTS;
        u->table = mem_alloc(u->n_slots * sizeof(*u->table));
        for (size_t i = 0; i < n; i++)
                for (struct upstream_call *c = old[i], *next; c; c = next) {
                        struct upstream_call **slot = slot_of(u, c->id);
                        next = c->next_in_slot;
                        c->next_in_slot = *slot;
                        *slot = c;
                }
        free(old);
}

struct upstream_call *call_find(const struct upstream *u, uint64_t id)
{
        struct upstream_call *c = *slot_of(u, id);

        while (c && c->id != id)
                c = c->next_in_slot;
        return c;
}

static void list_add(struct upstream_call **head, struct upstream_call *c)
{
        c->prev = NULL;
        c->next = *head;
        if (c->next)
                c->next->prev = c;
        *head = c;
}

static void list_remove(struct upstream_call **head, struct upstream_call *c)
{
        if (c->prev)
                c->prev->next = c->next;
        else
                *head = c->next;
        if (c->next)
                c->next->prev = c->prev;
}

static void call_unlink(struct upstream_call *c)
{
        struct upstream *u = c->upstream;
        struct upstream_call **p = slot_of(u, c->id);

        while (*p != c)
                p = &(*p)->next_in_slot;
        *p = c->next_in_slot;
        list_remove(c->is_doomed ? &u->doomed : &u->calls, c);
        u->n_calls--;
        if (u->ops->forget)
                u->ops->forget(u, c);
}

static void call_free(struct upstream_call *c)
{
        err_free(c->failure);
        free(c);
}

/* -- deadlines --------------------------------------------------------------------------------------------------------------- */

static void deadline_arm(struct upstream *u, uint64_t at)
{
        if (at == UINT64_MAX || (u->deadline_at != 0 && u->deadline_at <= at))
                return;
        u->deadline_at = at;
        (void)sd_event_source_set_time(u->deadline, at);
        (void)sd_event_source_set_enabled(u->deadline, SD_EVENT_ONESHOT);
}

static uint64_t after(uint64_t now, uint64_t ms)
{
        return ms ? now + ms * 1000 : UINT64_MAX;
}

void call_extend(struct upstream_call *c)
{
        c->due = MIN(MAX(c->due, after(upstream_now(c->upstream), c->timeout_ms)), c->cap);
}

static struct err *timed_out(const struct upstream_call *c)
{
        struct err *err = NULL;

        if (c->due == c->cap)
                err_set(&err, ERR_TIMEOUT, "%s took longer than %llu ms in all", call_method(c), (unsigned long long)c->cap_ms);
        else
                err_set(&err, ERR_TIMEOUT, "no answer to %s within %llu ms", call_method(c), (unsigned long long)c->timeout_ms);
        return err;
}

static void tell_cancelled(struct upstream_call *c, const char *reason);

static int on_deadline(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        struct upstream *u = user;
        uint64_t now = upstream_now(u), next = UINT64_MAX;

        upstream_hold(u);
        u->deadline_at = 0;
        for (struct upstream_call *c = u->calls, *after_it; c; c = after_it) {
                after_it = c->next;
                if (c->due > now) {
                        next = MIN(next, c->due);
                        continue;
                }
                tell_cancelled(c, "it took too long");
                call_doom(c, timed_out(c));
        }
        deadline_arm(u, next);
        call_finish_doomed(u);
        (void)upstream_release(u);
        return 0;
}

/* -- one call ---------------------------------------------------------------------------------------------------------------- */

const char *call_method(const struct upstream_call *c)
{
        return c->text + c->n_token;
}

void call_doom(struct upstream_call *c, struct err *why)
{
        struct upstream *u = c->upstream;

        if (c->is_doomed) {
                err_free(why);
                return;
        }
        err_wrap(&why, "server %s", u->name);
        c->failure = why;
        c->is_doomed = true;
        list_remove(&u->calls, c);
        list_add(&u->doomed, c);
        upstream_kick(u);
}

void call_finish(struct upstream_call *c, const struct mcp_message *answer, const struct err *why)
{
        call_unlink(c);
        c->done(c, answer, why, c->user);
        call_free(c);
}

void call_finish_doomed(struct upstream *u)
{
        while (u->doomed && !u->dead)
                call_finish(u->doomed, NULL, u->doomed->failure);
}

void call_discard(struct upstream_call *c)
{
        call_unlink(c);
        call_free(c);
}

void *upstream_call_user(const struct upstream_call *call)
{
        return call->user;
}

static struct upstream_call *call_new(struct upstream *u, const struct upstream_request *request)
{
        const char *method = request->method_name ? request->method_name : mcp_method_name(request->method);
        size_t n_method = strlen(method);
        struct upstream_call *c = mem_alloc(sizeof(*c) + request->progress_token.n + n_method + 1);
        uint64_t now = upstream_now(u);

        c->upstream = u;
        c->id = ++u->last_id;
        c->method = request->method;
        c->timeout_ms = request->timeout_ms;
        c->cap_ms = request->cap_ms;
        c->cap = after(now, request->cap_ms);
        c->due = MIN(after(now, request->timeout_ms), c->cap);
        c->notification = request->notification;
        c->done = request->done;
        c->user = request->user;
        c->n_token = request->progress_token.n;
        if (c->n_token)
                memcpy(c->text, request->progress_token.at, c->n_token);
        memcpy(c->text + c->n_token, method, n_method + 1);
        if (u->n_calls >= u->n_slots)
                table_grow(u);
        c->next_in_slot = *slot_of(u, c->id);
        *slot_of(u, c->id) = c;
        list_add(&u->calls, c);
        u->n_calls++;
        deadline_arm(u, c->due);
        return c;
}

/* -- writing ----------------------------------------------------------------------------------------------------------------- */

static void add_part(struct outgoing *o, struct mcp_slice s)
{
        if (s.n == 0)
                return;
        o->parts[o->n_parts++] = s;
        o->n += s.n;
}

static void put(struct outgoing *o, const char *s, size_t n)
{
        memcpy(o->head + o->n_head, s, n);
        o->n_head += n;
}

#define PUT(o, literal) put(o, literal, sizeof(literal) - 1)

/* Decimal digits of id, without snprintf: this runs for every call. */
static struct mcp_slice put_id(struct outgoing *o, uint64_t id)
{
        char digits[20];
        size_t n = 0;

        do {
                digits[sizeof(digits) - ++n] = (char)('0' + id % 10);
                id /= 10;
        } while (id);
        put(o, digits + sizeof(digits) - n, n);
        return (struct mcp_slice){o->head + o->n_head - n, n};
}

/* The method fits: at most MCP_MAX_METHOD bytes. */
static void put_method(struct outgoing *o, const char *method, bool with_params)
{
        o->method = method;
        PUT(o, "\"method\":\"");
        put(o, method, strlen(method));
        if (with_params)
                PUT(o, "\",\"params\":");
        else
                PUT(o, "\"");
        add_part(o, (struct mcp_slice){o->head, o->n_head});
}

static void outgoing_request(struct outgoing *o, struct upstream_call *c, const struct upstream_request *request)
{
        struct mcp_slice params = request->params, token = request->progress_token, id;

        o->call = c;
        o->name = request->name;
        o->headers = request->headers;
        PUT(o, "{\"jsonrpc\":\"2.0\",\"id\":");
        id = put_id(o, c->id);
        PUT(o, ",");
        put_method(o, call_method(c), mcp_has(params));
        if (mcp_has(params) && mcp_has(token)) {
                add_part(o, (struct mcp_slice){params.at, (size_t)(token.at - params.at)});
                add_part(o, id);
                params.n -= (size_t)(token.at + token.n - params.at);
                params.at = token.at + token.n;
        }
        add_part(o, params);
        add_part(o, mcp_slice_of("}"));
}

void outgoing_note(struct outgoing *o, const char *method, struct mcp_slice params)
{
        PUT(o, "{\"jsonrpc\":\"2.0\",");
        put_method(o, method, mcp_has(params));
        add_part(o, params);
        add_part(o, mcp_slice_of("}"));
}

static int send_checked(struct upstream *u, const struct outgoing *o, struct err **err)
{
        if (o->n > u->limits.max_message)
                return err_set(err, ERR_LIMIT, "a message of %zu bytes is over the limit of %zu (gateway.max_message)", o->n,
                               u->limits.max_message);
        return u->ops->send(u, o, err);
}

static void send_note(struct upstream *u, const char *method, struct mcp_slice params)
{
        struct outgoing o = {0};

        outgoing_note(&o, method, params);
        (void)!send_checked(u, &o, NULL);
}

static void tell_cancelled(struct upstream_call *c, const char *reason)
{
        struct upstream *u = c->upstream;
        _cleanup_buf_ struct buf params = {0};

        if (c->unsaid || c->is_doomed || u->state != UPSTREAM_READY)
                return;
        if (u->era == MCP_ERA_MODERN && u->ops->closes_to_cancel)
                return;
        u->abandoned++;
        buf_addf(&params, "{\"requestId\":%llu", (unsigned long long)c->id);
        if (reason) {
                buf_adds(&params, ",\"reason\":");
                mcp_add_string(&params, reason, strnlen(reason, MAX_REASON));
        }
        buf_addc(&params, '}');
        send_note(u, "notifications/cancelled", (struct mcp_slice){params.data, params.len});
}

struct upstream_call *call_start(struct upstream *u, const struct upstream_request *request)
{
        struct upstream_call *c = call_new(u, request);
        struct outgoing o = {0};
        struct err *err = NULL;

        if (strlen(call_method(c)) > MCP_MAX_METHOD) {
                err_set(&err, ERR_INVALID, "a method's name is longer than %u bytes", MCP_MAX_METHOD);
        } else {
                outgoing_request(&o, c, request);
                if (send_checked(u, &o, &err) == 0)
                        return c;
        }
        c->unsaid = true;
        call_doom(c, err);
        return c;
}

/* -- for the owner ----------------------------------------------------------------------------------------------------------- */

struct upstream_call *upstream_request(struct upstream *u, const struct upstream_request *request)
{
        struct err *err = NULL;
        struct upstream_call *c;

        if (!upstream_is_ready(u))
                err_set(&err, ERR_UNAVAILABLE, "there is no session");
        else if (u->n_calls >= u->limits.max_calls)
                err_set(&err, ERR_LIMIT, "%u calls wait for its answers already: try again", u->n_calls);
        else
                return call_start(u, request);
        c = call_new(u, request);
        c->unsaid = true;
        call_doom(c, err);
        return c;
}

void upstream_call_cancel(struct upstream_call *call, const char *reason)
{
        tell_cancelled(call, reason);
        call_discard(call);
}

void upstream_call_extend(struct upstream_call *call, uint64_t ms)
{
        call->due = MIN(after(upstream_now(call->upstream), ms ? ms : call->timeout_ms), call->cap);
        deadline_arm(call->upstream, call->due);
}

void upstream_notify(struct upstream *u, const char *method, struct mcp_slice params)
{
        if (upstream_is_ready(u) && strlen(method) <= MCP_MAX_METHOD)
                send_note(u, method, params);
}

void upstream_answer(struct upstream *u, struct mcp_slice id, struct mcp_slice result, struct mcp_slice error)
{
        struct outgoing o = {0};

        if (!upstream_alive(u))
                return;
        add_part(&o, mcp_slice_of("{\"jsonrpc\":\"2.0\",\"id\":"));
        add_part(&o, id);
        add_part(&o, mcp_has(result) ? mcp_slice_of(",\"result\":") : mcp_slice_of(",\"error\":"));
        add_part(&o, mcp_has(result) ? result : error);
        add_part(&o, mcp_slice_of("}"));
        (void)!send_checked(u, &o, NULL);
}

/* -- set-up ------------------------------------------------------------------------------------------------------------------ */

int calls_init(struct upstream *u, struct err **err)
{
        int r = sd_event_add_time(u->loop, &u->deadline, CLOCK_MONOTONIC, 0, DEADLINE_SLACK, on_deadline, u);

        if (r >= 0)
                r = sd_event_source_set_enabled(u->deadline, SD_EVENT_OFF);
        if (r < 0)
                return err_sys(err, r, "event loop for server %s", u->name);
        table_grow(u);
        return 0;
}

void calls_deinit(struct upstream *u)
{
        u->deadline = sd_event_source_disable_unref(u->deadline);
        free(u->table);
        u->table = NULL;
}
