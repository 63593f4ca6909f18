/* Sessions with HTTP servers: both eras, the older transport, and every way in which a server can misbehave. */
#include "tests/unit/test_upstream_web.h"

#define INIT(version)                                                                                                                      \
        "{\"protocolVersion\":\"" version "\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}"
#define LEGACY INIT("2025-11-25")
#define MODERN                                                                                                                             \
        "{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},\"ttlMs\":0,"                 \
        "\"cacheScope\":\"public\"}"

static void start(struct rig *r, struct web *w)
{
        struct err *err = NULL;

        if (!w->port)
                web_start(w, r);
        assert_ok(upstream_pool_new(&r->pool, r->loop, &err));
        r->config.pool = r->pool;
        assert_ok(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err));
        assert_false(r->ready);
}

static void start_ready(struct rig *r, struct web *w)
{
        start(r, w);
        rig_wait(r, &r->ready);
        assert_true(upstream_is_ready(r->u));
}

static void assert_says(const struct err *err, const char *part)
{
        assert_non_null(err);
        if (!strstr(err_msg(err), part))
                print_error("expected \"%s\" in: %s\n", part, err_msg(err));
        assert_non_null(strstr(err_msg(err), part));
}

static void assert_ends(struct rig *r, const char *part)
{
        rig_wait(r, &r->ended);
        assert_says(r->why, part);
        assert_says(r->why, "server web: ");
}

static void assert_header(const char *headers, const char *name, const char *want)
{
        _cleanup_free_ char *value = web_header(headers, name);

        if (!str_eq(value, want))
                print_error("%s: %s\n", name, value ? value : "(absent)");
        assert_true(str_eq(value, want));
}

static void wait_held(struct rig *r, struct web *w)
{
        for (int i = 0; !w->held && i < 1000; i++)
                rig_run(r, 5);
        assert_non_null(w->held);
}

static void wait_until(struct rig *r, const unsigned *count, unsigned at_least)
{
        for (int i = 0; *count < at_least && i < 2000; i++)
                rig_run(r, 5);
        assert_true(*count >= at_least);
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
        start_ready(r, &w);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
        assert_int_equal(upstream_revision(r->u), MCP_2026_07_28);
        rig_ask_more(r, &a, &q);
        wait_held(r, &w);
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

        start_ready(r, &w);
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

                start_ready(r, &w);
                rig_ask(r, &a, "{}");
                wait_held(r, &w);
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

        start_ready(r, &w);
        q.method = MCP_M_UNKNOWN;
        q.method_name = "tools/call"; /* what the script holds */
        rig_ask_more(r, &a, &q);
        wait_held(r, &w);
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

        start_ready(r, &w);
        assert_int_equal(upstream_era(r->u), MCP_ERA_LEGACY);
        assert_int_equal(upstream_revision(r->u), MCP_2025_06_18);
        rig_ask(r, &a, "{}");
        wait_held(r, &w);
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
        start_ready(r, &w);
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

        start_ready(r, &w);
        r->answer = true;
        rig_ask_more(r, &a, &q);
        wait_held(r, &w);
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
        wait_until(r, &w.n_requests, before + 1);
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

        start_ready(r, &w);
        rig_ask(r, &a, "{}");
        wait_held(r, &w);
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

        start_ready(r, &w);
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

        start_ready(r, &w);
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        web_event(w.stream, "id: 7\nretry: 300\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
        wait_until(r, &r->n_notes, 1);
        r->answer = true;
        web_message(w.stream, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"roots/list\"}");
        wait_until(r, &r->n_requests, 1);
        assert_null(r->request_on);
        web_end(w.stream);
        closed = now_us();
        w.stream = NULL;
        for (int i = 0; !w.stream && i < 1000; i++)
                rig_run(r, 5);
        assert_true(w.get_at - closed >= 300000);
        assert_string_equal(w.last_event_id, "7");
        web_message(w.stream, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}");
        wait_until(r, &r->n_notes, 2);
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

        start_ready(r, &w);
        rig_run(r, 20);
        w.events = true;
        rig_ask(r, &a, "{}");
        wait_held(r, &w);
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

static void test_no_resume(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        start_ready(r, &w);
        rig_ask(r, &a, "{}");
        wait_held(r, &w);
        web_stream(w.held);
        web_end(w.held);
        rig_wait(r, &a.over);
        assert_says(a.why, "ended the event stream without an answer to tools/call");
        w.held = NULL;
        rig_ask(r, &b, "{}");
        wait_held(r, &w);
        web_stream(w.held);
        web_event(w.held, "id: 1\nretry: 1\ndata\n\n");
        web_end(w.held);
        rig_wait(r, &b.over);
        assert_says(b.why, "HTTP status 405");
        assert_false(r->ended);
}

static void forget_session(struct web *w, struct web_request *q)
{
        if (str_eq(q->rpc, "tools/call"))
                web_reply(q->conn, "404 Not Found", "application/json", NULL,
                          "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32001,\"message\":\"Session not found\"},\"id\":null}");
        else
                web_decent(w, q);
}

static void test_session_over(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = forget_session};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        start_ready(r, &w);
        rig_ask(r, &a, "{}");
        assert_ends(r, "it ended the session (HTTP status 404)");
        assert_says(a.why, "it ended the session");
        assert_int_equal(a.n_done, 1);
        rig_run(r, 20);
        assert_null(strstr(w.log.data, "DELETE"));
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
        _cleanup_asked_ struct asked a = {0}, b = {0};

        r->config.sse = true;
        start_ready(r, &w);
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
        wait_until(r, &r->n_notes, 1);
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
                start(r, &w);
                assert_ends(r, cases[i].why);
        }
}

static void test_older_none(_unused_ void **state)
{
        _cleanup_web_ struct web w = {0};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.sse = true;
        start(r, &w);
        assert_ends(r, "HTTP status 405");
}

/* -- hostile, broken and slow ------------------------------------------------------------------------------------------------------- */

static const char *raw_answer; /* of tools/call */

static void answer_raw(struct web *w, struct web_request *q)
{
        if (!str_eq(q->rpc, "tools/call")) {
                web_decent(w, q);
                return;
        }
        web_put(q->conn, raw_answer, strlen(raw_answer));
        q->conn->closing = true;
        web_put(q->conn, "", 0);
}

static void test_bad_answers(_unused_ void **state)
{
        static const struct {
                const char *answer, *why;
        } cases[] = {
                {"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nOops", "HTTP status 500 and no message"},
                {"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "credentials it gets are missing or wrong"},
                {"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "a redirection"},
                {"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", "is no answer to it (HTTP status 202)"},
                {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is no answer to it"},
                {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>", "is no answer to it"},
                {"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"jsonrpc\"", "HTTP: "},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP: "},
                {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n", "ended the event stream without an answer"},
                {"SSH-2.0-OpenSSH\r\n", "HTTP: "},
                {"", "whether the call was carried out is not known"},
                {"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":777,\"result\":{}}", "is no answer to it"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = answer_raw};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};

                raw_answer = cases[i].answer;
                start_ready(r, &w);
                rig_ask(r, &a, "{}");
                rig_wait(r, &a.over);
                assert_says(a.why, cases[i].why);
                assert_says(a.why, "server web: ");
                /* Asked once: neither curl nor we ask a tool again. */
                assert_int_equal(w.n_requests, 2);
                w.script = web_decent;
                rig_ask(r, &b, "{}");
                rig_wait(r, &b.over);
                assert_string_equal(b.result, "{\"ok\":true}");
                assert_false(r->ended);
        }
}

static void test_error_answers(_unused_ void **state)
{
        static const char *const bodies[] = {
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32021,\"message\":\"m\"}}",
                "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32021,\"message\":\"m\"}}",
        };

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                start_ready(r, &w);
                rig_ask(r, &a, "{}");
                wait_held(r, &w);
                assert_int_equal(w.held_id, 2);
                web_reply(w.held, "400 Bad Request", "application/json", NULL, bodies[i]);
                rig_wait(r, &a.over);
                assert_int_equal(a.error_code, -32021);
        }
}

static void test_too_large(_unused_ void **state)
{
        for (int i = 0; i < 4; i++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};
                _cleanup_free_ char *large = mem_printf("{\"x\":\"%0100000d\"}", 0), *event = mem_printf("data: %s\n", large);

                r->config.limits.max_message = 90000;
                start_ready(r, &w);
                rig_ask(r, &a, "{}");
                wait_held(r, &w);
                if (i == 0) {
                        web_result(w.held, w.held_id, large);
                } else if (i == 1) {
                        web_stream(w.held);
                        web_event(w.held, event);
                } else {
                        static const char line[] = "X-Bomb: 0123456789012345678901234567890123456789\r\n";
                        web_put(w.held, "HTTP/1.1 200 OK\r\n", i == 2 ? 17 : 0);
                        for (int k = 0; k < 4000 && !w.held->gone; k++)
                                web_put(w.held, i == 2 ? line : "HTTP/1.1 100 Continue\r\n\r\n", i == 2 ? sizeof(line) - 1 : 25);
                }
                rig_wait(r, &a.over);
                assert_int_equal(err_code(a.why), ERR_LIMIT);
                assert_says(a.why, i == 0 ? "its answer is over 90000 bytes" : i == 1 ? "an event of more than 90001 bytes" : "headers");
                w.script = web_decent;
                rig_ask(r, &b, "{}");
                rig_wait(r, &b.over);
                assert_non_null(b.result);
        }
}

/* An idempotent request is worth a second connection; a tool never is (test_bad_answers). */
static void test_lost_connection(_unused_ void **state)
{
        struct upstream_request q = {.method = MCP_M_TOOLS_LIST, .params = mcp_slice_of("{}"), .timeout_ms = 5000};
        _cleanup_web_ struct web w = {.discover = MODERN};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        start_ready(r, &w);
        rig_ask_more(r, &a, &q);
        web_cut(w.conns);
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(w.n_conns, 2);
}

static void test_split(_unused_ void **state)
{
        for (int as_events = 0; as_events < 2; as_events++) {
                _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .step = 1, .as_events = as_events};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                start_ready(r, &w);
                rig_ask(r, &a, "{}");
                rig_wait(r, &a.over);
                assert_string_equal(a.result, "{\"ok\":true}");
        }
}

static void test_late_server(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN};
        _cleanup_rig_ struct rig *r = rig_new();

        web_reserve(&w, r);
        start(r, &w);
        rig_run(r, 250);
        assert_false(r->ready || r->ended);
        web_listen(&w);
        rig_wait(r, &r->ready);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
}

static void test_no_server(_unused_ void **state)
{
        _cleanup_web_ struct web w = {0};
        _cleanup_rig_ struct rig *r = rig_new();

        web_reserve(&w, r);
        r->config.limits.handshake_ms = 300;
        start(r, &w);
        assert_ends(r, "within 300 ms: Failed to connect to 127.0.0.1");
}

static void hang_up(_unused_ struct web *w, struct web_request *q)
{
        web_cut(q->conn);
}

static void test_hangs_up(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.script = hang_up};
        _cleanup_rig_ struct rig *r = rig_new();

        start(r, &w);
        assert_ends(r, "HTTP: ");
        assert_true(upstream_probe_failed(r->u));
        assert_true(w.n_requests <= 13); /* each try is one connection, and curl may try a kept one twice */
}

static void test_settle_refused(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .script = forget_session};
        _cleanup_rig_ struct rig *r = rig_new();

        w.session = "bad\x01id";
        start(r, &w);
        assert_ends(r, "its Mcp-Session-Id is not visible ASCII");
}

static void test_many(_unused_ void **state)
{
        enum { N = 80 };
        _cleanup_web_ struct web w = {.initialize = LEGACY, .as_events = true};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked a[N] = {0};

        start_ready(r, &w);
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        for (int i = 0; i < N; i++) {
                rig_wait(r, &a[i].over);
                assert_string_equal(a[i].result, "{\"ok\":true}");
                asked_deinit(&a[i]);
        }
        assert_true(w.n_conns <= N + 2);
}

/* Streams that stay open behind their answer are closed after a while, and there are not many of them. */
static void test_linger(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();

        start_ready(r, &w);
        for (int i = 0; i < 40; i++) {
                _cleanup_asked_ struct asked a = {0};
                _cleanup_free_ char *result = NULL;

                w.held = NULL;
                rig_ask(r, &a, "{}");
                wait_held(r, &w);
                result = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{}}", w.held_id);
                web_stream(w.held);
                web_message(w.held, result);
                rig_wait(r, &a.over);
        }
        rig_run(r, 20);
        assert_true(w.n_open > 20 && w.n_open <= 34);
        for (int i = 0; w.n_open > 2 && i < 400; i++)
                rig_run(r, 10);
        assert_true(w.n_open <= 2);
}

static uint64_t large_answer(size_t mib, bool as_events)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_buf_ struct buf text = {0};
        uint64_t begun;

        r->config.limits.max_message = 65U << 20;
        start_ready(r, &w);
        w.as_events = as_events;
        rig_ask(r, &a, "{}");
        wait_held(r, &w);
        buf_adds(&text, "{\"x\":\"");
        while (text.len < mib << 20)
                buf_adds(&text, "0123456789 abcdefghijklmnopqrstuvwxyz \\n ");
        buf_adds(&text, "\"}");
        web_result(w.held, w.held_id, text.data);
        begun = now_us();
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(strlen(a.result), text.len);
        return MAX(now_us() - begun, 1);
}

static void test_large(_unused_ void **state)
{
        for (int as_events = 0; as_events < 2; as_events++) {
                uint64_t small = large_answer(4, as_events), large = large_answer(64, as_events);

                print_message("4 MiB in %llu us, 64 MiB in %llu us\n", (unsigned long long)small, (unsigned long long)large);
                assert_true(large < 16 * 6 * small);
        }
}

static void test_bad_config(_unused_ void **state)
{
        char *const smuggled[] = {(char *)(uintptr_t) "X: a\r\nY: b", NULL};
        _cleanup_rig_ struct rig *r = rig_new();
        struct err *err = NULL;

        r->config.address.s_addr = 1;
        r->config.port = 80;
        r->config.path = "mcp";
        assert_fails(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err), "begin with a slash");
        r->config.path = "/m cp";
        assert_fails(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err), "characters that no URL has");
        r->config.path = "/mcp";
        r->config.headers = smuggled;
        assert_fails(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err), "is not one line");
        r->config.headers = NULL;
        r->config.port = 0;
        assert_fails(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err), "no address and port");
}

/* -- freed from inside ---------------------------------------------------------------------------------------------------------------- */

static void test_free_in_callbacks(_unused_ void **state)
{
        for (int i = 0; i < 12; i++) {
                bool own = i >= 6;
                _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {.free_in_done = i % 6 < 2, .free_in_note = i % 6 == 2, .cancel_in_note = i % 6 == 3};
                _cleanup_free_ char *result = NULL;
                struct err *err = NULL;

                r->free_in_request = i % 6 == 4;
                r->free_in_ready = i % 6 == 5;
                web_start(&w, r);
                if (own)
                        assert_ok(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err));
                else
                        start(r, &w);
                rig_wait(r, &r->ready);
                if (!r->u)
                        continue;
                rig_ask(r, &a, "{}");
                wait_held(r, &w);
                result = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}}", w.held_id);
                if (i % 6 == 0) {
                        web_reply(w.held, "200 OK", "application/json", NULL, result);
                } else {
                        web_stream(w.held);
                        if (i % 6 == 4)
                                web_message(w.held, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}");
                        else if (i % 6 != 1)
                                web_message(w.held, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}");
                        web_message(w.held, result);
                        web_message(w.held, "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}");
                        web_end(w.held);
                }
                if (i % 6 == 3) {
                        rig_run(r, 30);
                        assert_false(a.over);
                        assert_int_equal(a.n_notes, 1);
                        continue;
                }
                rig_wait(r, &a.over);
                assert_null(r->u);
                assert_int_equal(a.n_done, 1);
                rig_run(r, 20);
                assert_int_equal(r->n_notes, 0);
        }
}

static void test_free_in_ended(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = forget_session};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        r->free_in_ended = true;
        start_ready(r, &w);
        rig_ask(r, &a, "{}");
        rig_ask(r, &b, "{}");
        rig_wait(r, &r->ended);
        assert_true(a.over && b.over);
        assert_null(r->u);
        rig_run(r, 20);
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
                cmocka_unit_test(test_session_over),
                cmocka_unit_test(test_older),
                cmocka_unit_test(test_older_endpoint),
                cmocka_unit_test(test_older_none),
                cmocka_unit_test(test_bad_answers),
                cmocka_unit_test(test_error_answers),
                cmocka_unit_test(test_too_large),
                cmocka_unit_test(test_lost_connection),
                cmocka_unit_test(test_split),
                cmocka_unit_test(test_late_server),
                cmocka_unit_test(test_no_server),
                cmocka_unit_test(test_hangs_up),
                cmocka_unit_test(test_settle_refused),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_linger),
                cmocka_unit_test(test_large),
                cmocka_unit_test(test_bad_config),
                cmocka_unit_test(test_free_in_callbacks),
                cmocka_unit_test(test_free_in_ended),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
