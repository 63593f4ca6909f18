/* Sessions with HTTP servers: both eras, the older transport. */
#include "tests/unit/test_upstream_web.h"

static void assert_header(const char *headers, const char *name, const char *want)
{
        _cleanup_free_ char *value = web_header(headers, name);

        if (!str_eq(value, want))
                print_error("%s: %s\n", name, value ? value : "(absent)");
        assert_true(str_eq(value, want));
}

/* -- modern ----------------------------------------------------------------------------------------------------------------------- */

static void test_modern(_unused_ void **state)
{
        char *const credentials[] = {(char *)(uintptr_t) "Authorization: Bearer s3cret", NULL};
        char *const extra[] = {(char *)(uintptr_t) "Mcp-Param-Region: us-west1", NULL};
        static const char params[] = "{\"name\":\"gr\\u00fc\\u00dfe\",\n\"arguments\":{}}";
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                     .params = mcp_slice_of(params),
                                     .headers = extra,
                                     .name = {params + 8, strlen("\"gr\\u00fc\\u00dfe\"")},
                                     .timeout_ms = 5000};
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        r->config.headers = credentials;
        web_session_ready(r, &w);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
        assert_int_equal(upstream_revision(r->u), MCP_2026_07_28);
        rig_ask_more(r, &a, &q);
        web_wait_held(r, &w);
        assert_header(w.held_headers, "MCP-Protocol-Version", "2026-07-28");
        assert_header(w.held_headers, "Mcp-Method", "tools/call");
        assert_header(w.held_headers, "Mcp-Name", "=?base64?Z3LDvMOfZQ==?=");
        assert_header(w.held_headers, "Mcp-Param-Region", "us-west1");
        assert_header(w.held_headers, "Authorization", "Bearer s3cret");
        assert_header(w.held_headers, "Accept", "application/json, text/event-stream");
        assert_header(w.held_headers, "Content-Type", "application/json");
        assert_header(w.held_headers, "Mcp-Session-Id", NULL);
        assert_header(w.held_headers, "Expect", NULL);
        assert_header(w.held_headers, "Accept-Encoding", NULL);
        assert_non_null(strstr(w.held_body, "\"method\":\"tools/call\",\"params\":{\"name\":\"gr\\u00fc\\u00dfe\",\n\"arguments\":{}}}"));
        web_result(w.held, w.held_id, "{\"n\":1}");
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"n\":1}");
        assert_int_equal(w.n_conns, 1);
        r->u = upstream_free(r->u);
        rig_run(r, 20);
        assert_string_equal(w.log.data, "POST /mcp server/discover\nPOST /mcp tools/call\n");
}

static void refuse_once(struct web *w, struct web_request *q)
{
        static const char *const body =
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32022,\"message\":\"Unsupported protocol version\","
                "\"data\":{\"supported\":[\"2026-07-28\"]}}}";

        if (w->n_requests == 1)
                web_reply(q->conn, "400 Bad Request", "application/json", NULL, body);
        else
                web_decent(w, q);
}

static void test_version_again(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = refuse_once};
        _cleanup_rig_ struct rig *r = rig_new();

        web_session_ready(r, &w);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
        assert_string_equal(w.log.data, "POST /mcp server/discover\nPOST /mcp server/discover\n");
}

/* Closing its stream is how a modern server is told. */
static void test_modern_cancel(_unused_ void **state)
{
        for (int streaming = 0; streaming < 2; streaming++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                web_wait_held(r, &w);
                if (streaming)
                        web_stream(w.held);
                rig_run(r, 20);
                assert_false(w.held->gone);
                rig_cancel(&a, "no more");
                rig_wait(r, &w.held->gone);
                rig_run(r, 20);
                assert_null(strstr(w.log.data, "cancelled"));
                assert_int_equal(upstream_calls(r->u), 0);
        }
}

static void test_listen(_unused_ void **state)
{
        struct upstream_request q = {.method = MCP_M_LISTEN, .params = mcp_slice_of("{\"notifications\":{}}")};
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        q.method = MCP_M_UNKNOWN;
        q.method_name = "tools/call"; /* what the script holds */
        rig_ask_more(r, &a, &q);
        web_wait_held(r, &w);
        web_stream(w.held);
        web_event(w.held, ": keep\n\n");
        web_message(w.held, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{}}");
        rig_run(r, 20);
        web_message(w.held, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
        rig_run(r, 20);
        assert_int_equal(a.n_notes, 2);
        assert_int_equal(r->n_notes, 0);
        web_end(w.held);
        rig_wait(r, &a.over);
        assert_says(a.why, "ended the event stream without an answer");
        assert_false(r->ended);
}

/* -- legacy ----------------------------------------------------------------------------------------------------------------------- */

static void test_legacy(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = INIT("2025-06-18"), .session = "s-1~", .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        assert_int_equal(upstream_era(r->u), MCP_ERA_LEGACY);
        assert_int_equal(upstream_revision(r->u), MCP_2025_06_18);
        rig_ask(r, &a, "{}");
        web_wait_held(r, &w);
        assert_header(w.held_headers, "MCP-Protocol-Version", "2025-06-18");
        assert_header(w.held_headers, "Mcp-Session-Id", "s-1~");
        assert_header(w.held_headers, "Mcp-Method", NULL);
        web_result(w.held, w.held_id, "{\"n\":1}");
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"n\":1}");
        assert_string_equal(w.log.data, "POST /mcp server/discover\nPOST /mcp initialize\nPOST /mcp notifications/initialized\nGET /mcp \n"
                                        "POST /mcp tools/call\n");
        r->u = upstream_free(r->u);
        rig_run(r, 20);
        assert_true(str_has_suffix(w.log.data, "DELETE /mcp \n"));
        assert_true(w.n_conns <= 2);
}

/* Without a pool of its own the owner gets the same, and nothing is left over. */
static void test_own_pool(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s"};
        _cleanup_rig_ struct rig *r = rig_new();
        struct err *err = NULL;

        web_start(&w, r);
        r->free_in_ready = true;
        assert_ok(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err));
        rig_wait(r, &r->ready);
        rig_run(r, 20);
        assert_null(r->u);
        assert_int_equal(w.n_open, 0);
}

static void test_legacy_errors_in_json(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = NULL, .initialize = LEGACY, .as_events = true};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        r->config.legacy_only = true;
        web_session_ready(r, &w);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"ok\":true}");
        assert_null(strstr(w.log.data, "discover"));
}

static void test_call_stream(_unused_ void **state)
{
        static const char params[] = "{\"_meta\":{\"progressToken\":\"tok\"}}";
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                     .params = mcp_slice_of(params),
                                     .timeout_ms = 5000,
                                     .progress_token = {strstr(params, "\"tok"), 5}};
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *progress = NULL, *result = NULL;
        unsigned before;

        web_session_ready(r, &w);
        r->answer = true;
        rig_ask_more(r, &a, &q);
        web_wait_held(r, &w);
        web_stream(w.held);
        web_message(w.held, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}");
        rig_run(r, 20);
        assert_int_equal(a.n_notes, 1);
        progress = mem_printf(
                "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%ld,\"progress\":1}}", w.held_id);
        web_message(w.held, progress);
        rig_run(r, 20);
        assert_int_equal(a.n_notes, 2);
        assert_non_null(strstr(a.note, "\"progressToken\":\"tok\""));
        before = w.n_requests;
        web_message(w.held, "{\"jsonrpc\":\"2.0\",\"id\":\"e1\",\"method\":\"elicitation/create\",\"params\":{}}");
        rig_wait_count(r, &w.n_requests, before + 1);
        assert_int_equal(r->n_requests, 1);
        assert_ptr_equal(r->request_on, a.call);
        result = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}}", w.held_id);
        web_message(w.held, result);
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"n\":1}");
        web_end(w.held);
        rig_run(r, 20);
        assert_false(w.held->gone); /* used again */
        assert_int_equal(r->n_notes, 0);
}

static void test_legacy_cancel(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        rig_ask(r, &a, "{}");
        web_wait_held(r, &w);
        rig_cancel(&a, "no more");
        rig_run(r, 30);
        assert_non_null(strstr(w.log.data, "POST /mcp notifications/cancelled\n"));
        assert_true(w.held->gone);
}

static void test_timeout(_unused_ void **state)
{
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL, .params = mcp_slice_of("{}"), .timeout_ms = 100};
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        web_session_ready(r, &w);
        rig_ask_more(r, &a, &q);
        rig_wait(r, &a.over);
        assert_int_equal(err_code(a.why), ERR_TIMEOUT);
        rig_wait(r, &w.held->gone);
        w.script = web_decent;
        rig_ask(r, &b, "{}");
        rig_wait(r, &b.over);
        assert_non_null(b.result);
}

static void test_events(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .events = true};
        _cleanup_rig_ struct rig *r = rig_new();
        uint64_t closed;

        web_session_ready(r, &w);
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        web_event(w.stream, "id: 7\nretry: 300\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
        rig_wait_count(r, &r->n_notes, 1);
        r->answer = true;
        web_message(w.stream, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"roots/list\"}");
        rig_wait_count(r, &r->n_requests, 1);
        assert_null(r->request_on);
        web_end(w.stream);
        closed = now_us();
        w.stream = NULL;
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        assert_true(w.get_at - closed >= 300000);
        assert_string_equal(w.last_event_id, "7");
        web_message(w.stream, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}");
        rig_wait_count(r, &r->n_notes, 2);
        /* What it asked for holds until it says otherwise. */
        web_cut(w.stream);
        closed = now_us();
        w.stream = NULL;
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        assert_true(w.get_at - closed >= 300000 && w.get_at - closed < 1000000);
}

/* The answer comes on the stream that asks for the rest of the call's own. */
static void test_resume(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *result = NULL;
        uint64_t closed;

        web_session_ready(r, &w);
        rig_run(r, 20);
        w.events = true;
        rig_ask(r, &a, "{}");
        web_wait_held(r, &w);
        web_stream(w.held);
        web_event(w.held, "id: event-1\nretry: 250\ndata: \n\n");
        web_event(w.held, "id: event-2\ndata: {\"jsonrpc\":"); /* not whole: not seen */
        rig_run(r, 20);
        web_cut(w.held);
        closed = now_us();
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        assert_true(w.get_at - closed >= 250000);
        assert_string_equal(w.last_event_id, "event-1");
        result = mem_printf("id: event-2\ndata: {\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}}\n\n", w.held_id);
        web_event(w.stream,
                  "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n");
        web_event(w.stream, result);
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"n\":1}");
        assert_int_equal(a.n_notes, 1);
}

/* A call whose stream begins, says one event (NULL: none) and ends. */
static void ask_and_end(struct rig *r, struct web *w, struct asked *a, const char *event)
{
        w->held = NULL;
        rig_ask(r, a, "{}");
        web_wait_held(r, w);
        web_stream(w->held);
        if (event)
                web_event(w->held, event);
        web_end(w->held);
}

static void test_no_resume(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        /* Without an id; with one, but the server has no such stream; with one that no header can hold. */
        static const struct {
                const char *event, *why;
        } cases[] = {
                {NULL, "ended the event stream without an answer to tools/call"},
                {"id: 1\nretry: 1\ndata\n\n", "HTTP status 405"},
                {"id: \x01\xc3\xa4\nretry: 1\ndata\n\n", "ended the event stream without an answer to tools/call"},
        };

        web_session_ready(r, &w);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_asked_ struct asked a = {0};

                ask_and_end(r, &w, &a, cases[i].event);
                rig_wait(r, &a.over);
                assert_says(a.why, cases[i].why);
        }
        assert_false(r->ended);
}

static void web_ends_at_once(struct web *w, struct web_request *q)
{
        web_hold(w, q);
        if (str_eq(q->method, "GET") && w->stream) {
                web_event(w->stream, "id: 2\nretry: 1\ndata\n\n");
                web_end(w->stream);
        }
}

/* Whatever it says of how soon it wants to be asked for the rest: not so soon that we do nothing else. */
static void test_resumed_again_and_again(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        unsigned before;

        web_session_ready(r, &w);
        rig_run(r, 20);
        w.events = true;
        w.script = web_ends_at_once;
        before = w.n_requests;
        ask_and_end(r, &w, &a, "id: 1\nretry: 1\ndata\n\n");
        rig_run(r, 500);
        assert_false(a.over);
        assert_in_range(w.n_requests - before, 3, 6); /* the call itself is one */
}

static void test_session_over(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_forget};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        rig_ask(r, &a, "{}");
        assert_ends(r, "it ended the session (HTTP status 404)");
        assert_says(a.why, "it ended the session");
        assert_int_equal(a.n_done, 1);
        rig_run(r, 20);
        assert_null(strstr(w.log.data, "DELETE"));
}

#define NO_SESSION "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32000,\"message\":\"Bad Request: No valid session ID provided\"},\"id\":null}"

/* As a server built on the SDK's examples that was started anew. */
static void on_forgotten(struct web *w, struct web_request *q)
{
        if (w->held_id && str_eq(q->method, "GET"))
                web_reply(q->conn, "400 Bad Request", NULL, NULL, "Invalid or missing session ID");
        else if (w->held_id && strstr(q->headers, "Mcp-Session-Id"))
                web_reply(q->conn, "400 Bad Request", "application/json", NULL, NO_SESSION);
        else
                web_decent(w, q);
}

static void test_session_forgotten(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = on_forgotten};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        web_session_ready(r, &w);
        w.held_id = 1;
        rig_ask(r, &a, "{}");
        rig_ask(r, &b, "{}");
        assert_ends(r, "it ended the session (HTTP status 400)");
        assert_says(a.why, "it ended the session");
        assert_says(b.why, "it ended the session");
        assert_int_equal(a.n_done + b.n_done, 2);
        rig_run(r, 20);
        assert_null(strstr(w.log.data, "DELETE"));
        assert_null(strstr(strstr(w.log.data, " ping\n") + 1, " ping\n")); /* one for both */
}

/* The loss of its event stream tells before anybody calls. */
static void test_session_forgotten_while_idle(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = on_forgotten, .events = true};
        _cleanup_rig_ struct rig *r = rig_new();

        web_session_ready(r, &w);
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        web_event(w.stream, "retry: 1\n\n");
        rig_run(r, 20);
        w.held_id = 1;
        web_cut(w.stream);
        assert_ends(r, "it ended the session (HTTP status 400)");
}

static void on_bad_request(struct web *w, struct web_request *q)
{
        if (!str_eq(q->rpc, "tools/call"))
                web_decent(w, q);
        else if (w->held_id++ == 0)
                web_reply(q->conn, "400 Bad Request", "application/json", NULL, NO_SESSION);
        else
                web_reply(q->conn, "400 Bad Request", "text/plain", NULL, "no");
}

#define NO_PING "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32601,\"message\":\"Method not found\"},\"id\":null}"

static void on_bad_request_without_ping(struct web *w, struct web_request *q)
{
        if (str_eq(q->rpc, "ping"))
                web_reply(q->conn, "400 Bad Request", "application/json", NULL, NO_PING);
        else
                on_bad_request(w, q);
}

/* The same words of a request, though it knows the session: it answers a ping, or says that it has none. */
static void test_bad_request(_unused_ void **state)
{
        void (*const scripts[])(struct web *, struct web_request *) = {on_bad_request, on_bad_request_without_ping};

        for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
                _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = scripts[i]};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0}, c = {0};

                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                rig_wait(r, &a.over);
                assert_int_equal(a.error_code, -32000);
                rig_ask(r, &b, "{}");
                rig_wait(r, &b.over);
                assert_says(b.why, "HTTP status 400 and no message");
                w.script = web_decent;
                rig_ask(r, &c, "{}");
                rig_wait(r, &c.over);
                assert_string_equal(c.result, "{\"ok\":true}");
                assert_false(r->ended);
        }
}

static void web_silent_ping(struct web *w, struct web_request *q)
{
        if (!str_eq(q->rpc, "ping"))
                on_bad_request(w, q);
}

/* Whatever becomes of the session or of the call while the question is open. */
static void test_doubt_is_cut_short(_unused_ void **state)
{
        for (int way = 0; way < 3; way++) {
                _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_silent_ping};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};

                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                rig_ask(r, &b, "{}");
                for (int i = 0; !strstr(w.log.data, " ping\n") && i < 1000; i++)
                        rig_run(r, 5);
                rig_run(r, 10);
                assert_int_equal(a.n_done + b.n_done, 0);
                if (way == 0) {
                        rig_cancel(&a, "enough");
                        rig_run(r, 20);
                        assert_int_equal(a.n_done + b.n_done, 0);
                } else if (way == 1) {
                        w.script = web_forget;
                        _cleanup_asked_ struct asked c = {0};
                        rig_ask(r, &c, "{}");
                        assert_ends(r, "it ended the session (HTTP status 404)");
                        assert_int_equal(a.n_done + b.n_done + c.n_done, 3);
                }
        }
}

/* -- the older transport ------------------------------------------------------------------------------------------------------------ */

static void on_older(struct web *w, struct web_request *q)
{
        if (str_eq(q->method, "GET")) {
                w->stream = q->conn;
                web_stream(q->conn);
                web_event(q->conn, w->discover ? w->discover : "event: endpoint\ndata: /messages?id=1\n\n");
                return;
        }
        web_reply(q->conn, "202 Accepted", NULL, NULL, "Accepted");
        if (q->id > 0 && w->stream) {
                _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}", q->id,
                                                       str_eq(q->rpc, "initialize") ? INIT("2024-11-05") : "{\"ok\":true}");
                web_message(w->stream, text);
        }
}

static void test_older(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.script = on_older};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked b = {0};

        r->config.sse = true;
        web_session_ready(r, &w);
        assert_int_equal(upstream_revision(r->u), MCP_2024_11_05);
        for (int i = 0; i < 3; i++) {
                _cleanup_asked_ struct asked c = {0};
                rig_ask(r, &c, "{}");
                rig_wait(r, &c.over);
                assert_string_equal(c.result, "{\"ok\":true}");
        }
        assert_non_null(strstr(w.log.data, "POST /messages?id=1 notifications/initialized\n"));
        assert_null(strstr(w.log.data, "discover"));
        web_message(w.stream, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}");
        rig_wait_count(r, &r->n_notes, 1);
        assert_int_equal(w.n_conns, 2);
        w.script = web_hold;
        rig_ask(r, &b, "{}");
        web_cut(w.stream);
        assert_ends(r, "HTTP: ");
        assert_int_equal(b.n_done, 1);
}

static void test_older_endpoint(_unused_ void **state)
{
        static const struct {
                const char *event, *why;
        } cases[] = {
                {"event: endpoint\ndata: http://192.0.2.1/x\n\n", "not on its own address: http://192.0.2.1/x"},
                {"event: endpoint\ndata: //192.0.2.1/x\n\n", "not on its own address"},
                {"event: endpoint\ndata: /a b\n\n", "unusable endpoint"},
                {"event: endpoint\ndata: /a\n\nevent: endpoint\ndata: /b\n\n", "a second endpoint"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_web_ struct web w = {.script = on_older, .discover = cases[i].event};
                _cleanup_rig_ struct rig *r = rig_new();

                r->config.sse = true;
                web_session(r, &w);
                assert_ends(r, cases[i].why);
        }
}

static void test_older_none(_unused_ void **state)
{
        _cleanup_web_ struct web w = {0};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.sse = true;
        web_session(r, &w);
        assert_ends(r, "HTTP status 405");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_modern),
                cmocka_unit_test(test_version_again),
                cmocka_unit_test(test_modern_cancel),
                cmocka_unit_test(test_listen),
                cmocka_unit_test(test_legacy),
                cmocka_unit_test(test_own_pool),
                cmocka_unit_test(test_legacy_errors_in_json),
                cmocka_unit_test(test_call_stream),
                cmocka_unit_test(test_legacy_cancel),
                cmocka_unit_test(test_timeout),
                cmocka_unit_test(test_events),
                cmocka_unit_test(test_resume),
                cmocka_unit_test(test_no_resume),
                cmocka_unit_test(test_resumed_again_and_again),
                cmocka_unit_test(test_session_over),
                cmocka_unit_test(test_session_forgotten),
                cmocka_unit_test(test_session_forgotten_while_idle),
                cmocka_unit_test(test_bad_request),
                cmocka_unit_test(test_doubt_is_cut_short),
                cmocka_unit_test(test_older),
                cmocka_unit_test(test_older_endpoint),
                cmocka_unit_test(test_older_none),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
