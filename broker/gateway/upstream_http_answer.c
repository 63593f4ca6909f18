#include "broker/gateway/upstream_http.h"

/*
 * What the answers of an HTTP server mean. Source: MCP basic/transports, "Streamable HTTP", of 2025-11-25 and 2026-07-28; "HTTP with SSE"
 * of 2024-11-05.
 */

/* -- the session's name --------------------------------------------------------------------------------------------------------- */

void stream_take_session(struct http_stream *s, const struct http_head *head, const char *bytes)
{
        struct http *h = s->http;
        const struct http_field *id = http_head_known(head, HTTP_MCP_SESSION_ID);
        const char *value = id ? bytes + id->value.at : "";
        size_t n = id ? id->value.n : 0;
        struct err *err = NULL;

        if (h->session || s->status != 200)
                return;
        for (size_t i = 0; i < n; i++)
                if (value[i] < 0x21 || value[i] > 0x7e || i >= HTTP_MAX_SESSION) {
                        err_set(&err, ERR_INVALID, "its Mcp-Session-Id is not visible ASCII of at most %d characters", HTTP_MAX_SESSION);
                        upstream_end(h->upstream, err);
                        return;
                }
        if (n > 0)
                h->session = mem_strndup(value, n);
}

/* -- events ------------------------------------------------------------------------------------------------------------------ */

static int take_endpoint(struct http *h, const char *data)
{
        struct err *err = NULL;

        if (h->endpoint) {
                err_set(&err, ERR_INVALID, "the server named a second endpoint");
        } else {
                h->endpoint = sse_endpoint(data, h->origin, &err);
                if (h->endpoint) {
                        handshake_go(h->upstream);
                        return 0;
                }
        }
        upstream_end(h->upstream, err);
        return -1;
}

int stream_event(const char *type, const char *data, size_t n, void *stream, _unused_ struct err **err)
{
        struct http_stream *s = stream;
        struct http *h = s->http;

        if (h->sse && s->kind == STREAM_EVENTS && str_eq(type, "endpoint"))
                return take_endpoint(h, data);
        /* An empty one only tells its id, for resumption. */
        if (!str_eq(type, "message") || n == 0)
                return 0;
        if (s->kind == STREAM_EVENTS)
                h->events_delay = 0;
        upstream_receive(h->upstream, s->call, data, n);
        return s->dead || !upstream_alive(h->upstream) ? -1 : 0;
}

void stream_too_long(struct http_stream *s, struct err *why)
{
        if (!s->call) {
                upstream_end(s->http->upstream, why);
                return;
        }
        call_doom(s->call, why);
        stream_close(s);
}

/* -- why there is no answer ---------------------------------------------------------------------------------------------------- */

static struct err *broken(const struct http_stream *s)
{
        struct err *err = NULL;

        if (s->over_header)
                err_set(&err, ERR_LIMIT, "the headers of its HTTP answer are over %u bytes, or more than %u", HTTP_MAX_HEADER,
                        HTTP_MAX_FIELDS);
        else if (s->over_share)
                err_set(&err, ERR_LIMIT, "too many large answers come in at once: try again");
        else if (s->over_limit)
                err_set(&err, ERR_LIMIT, "its answer is over %zu bytes (gateway.max_message)", s->http->upstream->limits.max_message);
        else if (s->outcome == STREAM_UNTRUSTED)
                err_set(&err, ERR_DENIED, "%s", s->error);
        else if (s->outcome == STREAM_LOST && !s->repeatable)
                err_set(&err, ERR_UNAVAILABLE, "the connection was lost before the answer; whether the call was carried out is not known");
        else
                err_set(&err, ERR_UNAVAILABLE, "HTTP: %s", s->error ? s->error : "the connection ended");
        return err;
}

static struct err *turned_down(const struct http_stream *s, const char *what)
{
        struct err *err = NULL;

        if (s->status == 401 || s->status == 403)
                err_set(&err, ERR_DENIED, "it refused %s with HTTP status %u: the credentials it gets are missing or wrong", what,
                        s->status);
        else if (s->status >= 300 && s->status < 400)
                err_set(&err, ERR_INVALID, "it answered %s with a redirection (HTTP status %u), which is not followed: is the path right?",
                        what, s->status);
        else
                err_set(&err, ERR_INVALID, "it answered %s with HTTP status %u and no message", what, s->status);
        return err;
}

static void end_session(struct http_stream *s, const char *what)
{
        struct err *err = s->outcome != STREAM_WHOLE ? broken(s) : turned_down(s, what);

        upstream_end(s->http->upstream, err);
}

/* The server has forgotten the session; everything else that is asked in it would fail, too. */
static void session_forgotten(struct http *h, unsigned status)
{
        struct err *err = NULL;

        mem_replace(&h->session, NULL); /* nothing to say goodbye to */
        err_set(&err, ERR_UNAVAILABLE, "it ended the session (HTTP status %u)", status);
        upstream_end(h->upstream, err);
}

static bool session_is_over(struct http_stream *s)
{
        struct http *h = s->http;

        if (s->outcome != STREAM_WHOLE || s->status != 404 || !h->session || h->upstream->state != UPSTREAM_READY)
                return false;
        session_forgotten(h, s->status);
        return true;
}

static void refuse(struct http_stream *s);

static struct http_stream *first_in_doubt(struct http *h)
{
        struct http_stream *s;

        LIST_FOREACH (s, &h->streams, struct http_stream, in_list)
                if (s->in_doubt)
                        return s;
        return NULL;
}

/* A server that has no ping, which it should have, can only say so of a session that it knows. */
static bool ping_says_lost(const struct upstream_call *c, const struct mcp_message *answer)
{
        return (c->http_status == 400 || c->http_status == 404) && !(answer && answer->error_code == MCP_METHOD_NOT_FOUND);
}

static void on_ping(struct upstream_call *c, const struct mcp_message *answer, _unused_ const struct err *why, void *user)
{
        struct http *h = user;
        struct http_stream *s;

        h->ping = NULL;
        if (upstream_alive(h->upstream) && ping_says_lost(c, answer))
                session_forgotten(h, c->http_status);
        while (upstream_alive(h->upstream) && (s = first_in_doubt(h))) {
                s->in_doubt = false;
                stream_hold(s);
                refuse(s);
                stream_release(s);
        }
}

/*
 * Of a session that it has forgotten a server should say 404. Many say 400, as those do that follow the SDK's examples, and 400 is also
 * what a bad request gets: a ping in the same session tells. A GET with 404 may also be one that the server never takes.
 */
static bool doubt_session(struct http_stream *s)
{
        struct http *h = s->http;
        const struct upstream_request ping = {
                .method = MCP_M_PING, .timeout_ms = HTTP_PING_MS, .cap_ms = HTTP_PING_MS, .done = on_ping, .user = h};

        if (s->outcome != STREAM_WHOLE || (s->status != 400 && (s->status != 404 || s->kind != STREAM_EVENTS)))
                return false;
        if (!h->session || h->upstream->state != UPSTREAM_READY || (s->call && s->call == h->ping))
                return false;
        if (!h->ping)
                h->ping = call_start(h->upstream, &ping);
        return true;
}

/* -- a server that is only just starting --------------------------------------------------------------------------------------- */

static bool try_again(struct http_stream *s)
{
        struct http *h = s->http;

        if (h->upstream->state != UPSTREAM_STARTING || (s->outcome != STREAM_UNREACHABLE && s->outcome != STREAM_LOST))
                return false;
        /* A proxy in front of a port that is not open yet accepts, and then closes. */
        if (s->outcome == STREAM_LOST && ++s->n_lost > HTTP_MAX_LOST)
                return false;
        mem_replace(&h->trouble, TAKE_PTR(s->error));
        stream_again(s, HTTP_AGAIN_MS);
        return true;
}

/* -- the rest of a stream ------------------------------------------------------------------------------------------------------ */

static uint64_t retry_delay(const struct http_stream *s)
{
        uint64_t ms = s->sse.retry_ms ? s->sse.retry_ms : HTTP_RETRY_MS;

        return MIN(MAX(ms, HTTP_AGAIN_MS), HTTP_RETRY_MAX);
}

static void set_last_event(struct http_stream *s)
{
        _cleanup_free_ char *line = s->sse.id.len > 0 ? mem_printf("Last-Event-ID: %s\r\n", s->sse.id.data) : NULL;

        stream_request(s, http_list(s->http, LIST_EVENTS), line);
}

/* In a header only what cannot be taken for anything else. */
static bool has_usable_id(const struct http_stream *s)
{
        for (size_t i = 0; i < s->sse.id.len; i++)
                if (s->sse.id.data[i] < ' ' || s->sse.id.data[i] > '~')
                        return false;
        return s->sse.id.len > 0;
}

/* Legacy: a server may close a call's stream and keep the answer for who asks for the rest. The call's deadline bounds it all. */
static bool resume(struct http_stream *s)
{
        struct http *h = s->http;

        if (h->upstream->era != MCP_ERA_LEGACY || h->sse || !has_usable_id(s) || s->over_limit)
                return false;
        if (s->kind == STREAM_RESUME && s->outcome == STREAM_WHOLE && !s->is_events)
                return false; /* it does not keep any */
        s->kind = STREAM_RESUME;
        s->repeatable = true;
        set_last_event(s);
        stream_again(s, retry_delay(s));
        return true;
}

/* -- calls -------------------------------------------------------------------------------------------------------------------- */

static struct mcp_slice body_of(const struct http_stream *s)
{
        return s->in.len > 0 ? (struct mcp_slice){s->in.data, s->in.len} : s->piece;
}

/* An HTTP error's body. true: it was the answer. */
static bool take_error_body(struct http_stream *s)
{
        struct upstream_call *c = s->call;
        struct mcp_slice body = body_of(s);
        struct mcp_message m;

        if (body.n == 0 || mcp_message_scan(&m, body.at, body.n, NULL) != 0)
                return false;
        /* Without an id it can only be about this request. */
        if (m.kind != MCP_ERROR || (mcp_has(m.id) && upstream_own_call(s->http->upstream, m.id) != c))
                return false;
        if (!mcp_has(m.id) && session_is_over(s))
                return true;
        c->http_status = s->status;
        call_finish(c, &m, NULL);
        return true;
}

static void no_answer(struct http_stream *s, struct err *why)
{
        struct upstream_call *c = s->call;

        if (s->outcome == STREAM_WHOLE)
                c->http_status = s->status;
        call_doom(c, why);
        stream_close(s);
}

static void refuse(struct http_stream *s)
{
        if (take_error_body(s)) {
                if (!s->dead)
                        stream_close(s);
                return;
        }
        if (!session_is_over(s))
                no_answer(s, turned_down(s, call_method(s->call)));
}

/* What it says of the call waits until it is known whether there is a session. */
static void refused(struct http_stream *s)
{
        if (doubt_session(s))
                s->in_doubt = true;
        else
                refuse(s);
}

static void call_ended(struct http_stream *s)
{
        struct http *h = s->http;
        struct err *err = NULL;

        if (s->outcome != STREAM_WHOLE) {
                if (!try_again(s) && !(s->is_events && resume(s)))
                        no_answer(s, broken(s));
        } else if (s->status >= 300) {
                refused(s);
        } else if (s->is_events) {
                if (resume(s))
                        return;
                err_set(&err, ERR_UNAVAILABLE, "it ended the event stream without an answer to %s", call_method(s->call));
                no_answer(s, err);
        } else if (h->sse) {
                stream_close(s); /* the answer comes on the other stream */
        } else {
                struct mcp_slice body = body_of(s);
                upstream_receive(h->upstream, s->call, body.n > 0 ? body.at : "", body.n);
                if (s->dead)
                        return;
                if (s->call) {
                        err_set(&err, ERR_INVALID, "its HTTP answer to %s is no answer to it (HTTP status %u)", call_method(s->call),
                                s->status);
                        no_answer(s, err);
                        return;
                }
                stream_close(s);
        }
}

/* -- the others ---------------------------------------------------------------------------------------------------------------- */

/* The older transport's stream is the session; a newer server's comes and goes, and many have none. */
static void events_ended(struct http_stream *s)
{
        struct http *h = s->http;

        if (h->sse) {
                if (!try_again(s))
                        end_session(s, "the request for its event stream");
                return;
        }
        if (s->outcome == STREAM_WHOLE && !s->is_events && s->status < 500) {
                (void)doubt_session(s);
                stream_close(s);
                return;
        }
        h->events_delay = MIN(MAX(2 * h->events_delay, retry_delay(s)), HTTP_RETRY_MAX);
        if (has_usable_id(s))
                set_last_event(s);
        stream_again(s, h->events_delay);
}

static void settle_ended(struct http_stream *s)
{
        struct http *h = s->http;

        if (s->outcome != STREAM_WHOLE || s->status >= 300) {
                end_session(s, "notifications/initialized");
                return;
        }
        stream_close(s);
        if (!h->sse)
                http_open_events(h);
        upstream_settled(h->upstream);
}

void stream_ended(struct http_stream *s)
{
        switch (s->kind) {
        case STREAM_CALL:
        case STREAM_RESUME:
                if (s->call)
                        call_ended(s);
                else
                        stream_close(s);
                break;
        case STREAM_NOTE:
                if (session_is_over(s))
                        break;
                (void)doubt_session(s);
                stream_close(s);
                break;
        case STREAM_SETTLE:
                settle_ended(s);
                break;
        case STREAM_EVENTS:
                events_ended(s);
                break;
        case STREAM_BYE:
                stream_close(s);
                break;
        }
}
