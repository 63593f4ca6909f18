/* Sessions with HTTP servers that are broken, slow or hostile, and owners that free the session while it tells them something. */
#include "tests/unit/test_upstream_web.h"

#include <time.h>

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
                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                rig_wait(r, &a.over);
                assert_says(a.why, cases[i].why);
                assert_says(a.why, "server web: ");
                /* Asked once: nobody asks a tool again. */
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

                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                web_wait_held(r, &w);
                assert_int_equal(w.held_id, 2);
                web_reply(w.held, "400 Bad Request", "application/json", NULL, bodies[i]);
                rig_wait(r, &a.over);
                assert_int_equal(a.error_code, -32021);
        }
}

/* An error that says of itself that it is about another call. */
static void test_error_of_another(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        web_session_ready(r, &w);
        rig_ask(r, &a, "{}");
        web_wait_held(r, &w);
        assert_int_equal(w.held_id, 2);
        w.held = NULL;
        rig_ask(r, &b, "{}");
        web_wait_held(r, &w);
        web_reply(w.held, "400 Bad Request", "application/json", NULL,
                  "{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32021,\"message\":\"m\"}}");
        rig_wait(r, &b.over);
        assert_says(b.why, "HTTP status 400 and no message");
        assert_false(a.over);
}

static void test_too_large(_unused_ void **state)
{
        for (int i = 0; i < 4; i++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};
                _cleanup_free_ char *large = mem_printf("{\"x\":\"%0100000d\"}", 0), *event = mem_printf("data: %s\n", large);

                r->config.limits.max_message = 90000;
                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                web_wait_held(r, &w);
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

        web_session_ready(r, &w);
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

                web_session_ready(r, &w);
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
        web_session(r, &w);
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
        web_session(r, &w);
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

        web_session(r, &w);
        assert_ends(r, "HTTP: ");
        assert_true(upstream_probe_failed(r->u));
        assert_true(w.n_requests <= 13); /* each try is one connection, and a kept one may be tried twice */
}

static void test_settle_refused(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .script = web_forget};
        _cleanup_rig_ struct rig *r = rig_new();

        w.session = "bad\xe9id";
        web_session(r, &w);
        assert_ends(r, "its Mcp-Session-Id is not visible ASCII");
}

static void test_long_session(_unused_ void **state)
{
        for (int n = 1024; n <= 1025; n++) {
                _cleanup_free_ char *id = mem_printf("%0*d", n, 0);
                _cleanup_web_ struct web w = {.initialize = LEGACY, .session = id};
                _cleanup_rig_ struct rig *r = rig_new();

                if (n == 1024) {
                        web_session_ready(r, &w);
                } else {
                        web_session(r, &w);
                        assert_ends(r, "of at most 1024 characters");
                }
        }
}

static void web_silent_bye(struct web *w, struct web_request *q)
{
        if (!str_eq(q->method, "DELETE"))
                web_decent(w, q);
}

/* Many sessions that end at once with a server that does not answer: not all of them say goodbye, and nothing is left. */
static void test_many_goodbyes(_unused_ void **state)
{
        enum { N = 80 };
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_silent_bye};
        _cleanup_rig_ struct rig *r = rig_new();
        struct rig *others[N];
        struct err *err = NULL;
        unsigned said = 0;

        web_session_ready(r, &w);
        for (int i = 0; i < N; i++) {
                others[i] = rig_new();
                sd_event_unref(others[i]->loop);
                others[i]->loop = sd_event_ref(r->loop);
                others[i]->config = r->config;
                assert_ok(upstream_http_new(&others[i]->u, r->loop, &others[i]->config, &rig_events, others[i], &err));
                rig_wait(others[i], &others[i]->ready);
        }
        rig_run(r, 20);
        for (int i = 0; i < N; i++)
                others[i]->u = upstream_free(others[i]->u);
        rig_run(r, 100);
        for (const char *p = w.log.data; (p = strstr(p, "DELETE")); p++)
                said++;
        assert_int_equal(said, 64);
        for (int i = 0; i < N; i++)
                rig_free(others[i]);
}

static void test_many(_unused_ void **state)
{
        enum { N = 80 };
        _cleanup_web_ struct web w = {.initialize = LEGACY, .as_events = true};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked a[N] = {0};

        web_session_ready(r, &w);
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        for (int i = 0; i < N; i++) {
                rig_wait(r, &a[i].over);
                assert_string_equal(a[i].result, "{\"ok\":true}");
                asked_deinit(&a[i]);
        }
        assert_true(w.n_conns <= N + 2);
}

static void web_half(_unused_ struct web *w, struct web_request *q)
{
        if (!str_eq(q->rpc, "tools/call")) {
                web_decent(w, q);
                return;
        }
        char *text = mem_alloc(900001);

        memset(text, 'x', 900000);
        web_stream(q->conn);
        web_put(q->conn, "e1000\r\ndata: ", 13); /* a chunk of more than will come */
        web_put(q->conn, text, 900000);
        free(text);
}

/* Answers that begin, large, and do not end: there is a bound for all of them, and others go on. */
static void test_many_halves(_unused_ void **state)
{
        enum { N = 40 };
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_half};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked a[N] = {0};
        unsigned refused = 0;

        web_session_ready(r, &w);
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        for (uint64_t until = now_us() + 20000000; refused < N - 18 && now_us() < until;) {
                rig_run(r, 20);
                refused = 0;
                for (int i = 0; i < N; i++)
                        refused += a[i].over;
        }
        assert_true(refused >= N - 18 && refused < N);
        for (int i = 0; i < N; i++) {
                if (a[i].over)
                        assert_says(a[i].why, "too many large answers");
                asked_deinit(&a[i]);
        }
        struct asked small = {0};
        w.script = web_decent;
        rig_ask(r, &small, "{}");
        rig_wait(r, &small.over);
        assert_non_null(small.result);
        asked_deinit(&small);
}

/* Nor do several servers that each hold back less than that hold back more than there is for all of them. */
static void test_halves_of_many_servers(_unused_ void **state)
{
        enum { SERVERS = 6, N = 3 }; /* of 900000 bytes; four times max_message of one server, 16 times of all */
        struct web w[SERVERS] = {0};
        struct rig *r[SERVERS] = {0};
        struct asked a[SERVERS][N] = {0};
        unsigned refused = 0;
        struct err *err = NULL;

        for (int i = 0; i < SERVERS; i++) {
                r[i] = rig_new();
                w[i] = (struct web){.discover = MODERN, .script = web_half};
                r[i]->config.limits.max_message = 920000;
                if (i == 0) {
                        web_session_ready(r[0], &w[0]);
                        continue;
                }
                sd_event_unref(r[i]->loop);
                r[i]->loop = sd_event_ref(r[0]->loop);
                web_start(&w[i], r[i]);
                r[i]->config.pool = r[0]->pool;
                assert_ok(upstream_http_new(&r[i]->u, r[i]->loop, &r[i]->config, &rig_events, r[i], &err));
                rig_wait(r[i], &r[i]->ready);
        }
        for (int i = 0; i < SERVERS; i++)
                for (int k = 0; k < N; k++)
                        rig_ask(r[i], &a[i][k], "{}");
        for (uint64_t until = now_us() + 20000000; refused < 2 && now_us() < until;) {
                rig_run(r[0], 20);
                refused = 0;
                for (int i = 0; i < SERVERS; i++)
                        for (int k = 0; k < N; k++)
                                refused += a[i][k].over;
        }
        assert_true(refused >= 2 && refused < 8);
        for (int i = 0; i < SERVERS; i++)
                for (int k = 0; k < N; k++) {
                        if (a[i][k].over)
                                assert_says(a[i][k].why, "too many large answers");
                        asked_deinit(&a[i][k]);
                }
        for (int i = SERVERS - 1; i >= 0; i--) {
                rig_free(r[i]);
                web_stop(&w[i]);
        }
}

/* A server that holds back as much as it may takes nothing from another one. */
static void test_halves_of_a_neighbour(_unused_ void **state)
{
        enum { N = 40 };
        _cleanup_web_ struct web bad = {.discover = MODERN, .script = web_half}, good = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new(), *other = rig_new();
        _cleanup_free_ char *large = mem_printf("{\"x\":\"%0900000d\"}", 0);
        struct asked a[N] = {0}, b = {0};
        struct err *err = NULL;

        web_session_ready(r, &bad);
        sd_event_unref(other->loop);
        other->loop = sd_event_ref(r->loop);
        web_start(&good, other);
        other->config.pool = r->pool;
        assert_ok(upstream_http_new(&other->u, other->loop, &other->config, &rig_events, other, &err));
        rig_wait(other, &other->ready);
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        rig_run(r, 500);
        rig_ask(other, &b, "{}");
        web_wait_held(other, &good);
        good.step = 100000;
        web_result(good.held, good.held_id, large);
        rig_wait(other, &b.over);
        assert_non_null(b.result);
        assert_string_equal(b.result, large);
        asked_deinit(&b);
        for (int i = 0; i < N; i++)
                asked_deinit(&a[i]);
}

/* Streams that stay open behind their answer are closed after a while, and there are not many of them. */
static void test_linger(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();

        web_session_ready(r, &w);
        for (int i = 0; i < 40; i++) {
                _cleanup_asked_ struct asked a = {0};
                _cleanup_free_ char *result = NULL;

                w.held = NULL;
                rig_ask(r, &a, "{}");
                web_wait_held(r, &w);
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

static void web_ignores_notes(struct web *w, struct web_request *q)
{
        if (*q->rpc == '\0' || q->id != 0 || str_eq(q->rpc, "notifications/initialized"))
                web_decent(w, q);
}

/* Notifications that are taken without a word have their time: their connections are not kept for ever, and others can be told. */
static void test_notes_nobody_takes(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.initialize = LEGACY, .script = web_ignores_notes};
        _cleanup_rig_ struct rig *r = rig_new();
        uint64_t began;
        unsigned before;

        web_session_ready(r, &w);
        rig_run(r, 20);
        for (int i = 0; i < 100; i++)
                upstream_notify(r->u, "notifications/roots/list_changed", (struct mcp_slice){0});
        for (int i = 0; w.n_open < 64 && i < 2000; i++)
                rig_run(r, 5);
        rig_run(r, 20);
        assert_true(w.n_open >= 64 && w.n_open <= 66);
        began = now_us();
        while (w.n_open > 2 && now_us() - began < 30000000)
                rig_run(r, 50);
        assert_true(w.n_open <= 2);
        assert_false(r->ended);
        before = w.n_requests;
        upstream_notify(r->u, "notifications/roots/list_changed", (struct mcp_slice){0});
        rig_wait_count(r, &w.n_requests, before + 1);
}

/* Of this process: others on the machine are no reason to fail. */
static uint64_t cpu_us(void)
{
        struct timespec t;

        assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t large_answer(size_t mib, bool as_events)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_buf_ struct buf text = {0};
        uint64_t begun;

        r->config.limits.max_message = 65U << 20;
        web_session_ready(r, &w);
        w.as_events = as_events;
        rig_ask(r, &a, "{}");
        web_wait_held(r, &w);
        buf_adds(&text, "{\"x\":\"");
        while (text.len < mib << 20)
                buf_adds(&text, "0123456789 abcdefghijklmnopqrstuvwxyz \\n ");
        buf_adds(&text, "\"}");
        web_result(w.held, w.held_id, text.data);
        begun = cpu_us();
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(strlen(a.result), text.len);
        return MAX(cpu_us() - begun, 1);
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
                        web_session(r, &w);
                rig_wait(r, &r->ready);
                if (!r->u)
                        continue;
                rig_ask(r, &a, "{}");
                web_wait_held(r, &w);
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
        _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_forget};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        r->free_in_ended = true;
        web_session_ready(r, &w);
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
                cmocka_unit_test(test_bad_answers),
                cmocka_unit_test(test_error_answers),
                cmocka_unit_test(test_error_of_another),
                cmocka_unit_test(test_too_large),
                cmocka_unit_test(test_lost_connection),
                cmocka_unit_test(test_split),
                cmocka_unit_test(test_late_server),
                cmocka_unit_test(test_no_server),
                cmocka_unit_test(test_hangs_up),
                cmocka_unit_test(test_settle_refused),
                cmocka_unit_test(test_long_session),
                cmocka_unit_test(test_many_goodbyes),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_many_halves),
                cmocka_unit_test(test_halves_of_a_neighbour),
                cmocka_unit_test(test_halves_of_many_servers),
                cmocka_unit_test(test_notes_nobody_takes),
                cmocka_unit_test(test_linger),
                cmocka_unit_test(test_large),
                cmocka_unit_test(test_bad_config),
                cmocka_unit_test(test_free_in_callbacks),
                cmocka_unit_test(test_free_in_ended),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
