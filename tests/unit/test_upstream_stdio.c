/* Sessions with stdio servers: the handshake of both eras, and calls. */
#include "tests/unit/test_upstream_pipe.h"

#include <sys/socket.h>

/* -- the handshake ---------------------------------------------------------------------------------------------------------------- */

static void test_modern(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = MODERN};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.capabilities = mcp_slice_of("{\"roots\":{}}");
        server_ready(r, &s);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
        assert_int_equal(upstream_revision(r->u), MCP_2026_07_28);
        assert_true(upstream_is_ready(r->u));
        assert_true(mcp_has(upstream_info(r->u)->capabilities));
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\""));
        assert_non_null(strstr(s.log.data, "\"io.modelcontextprotocol/clientCapabilities\":{\"roots\":{}}"));
        assert_non_null(strstr(s.log.data, "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"bulkhead\""));
        /* One line: no initialize, nothing behind it. */
        assert_ptr_equal(strchr(s.log.data, '\n'), s.log.data + s.log.len - 1);
        assert_false(upstream_probe_failed(r->u));
}

static void test_legacy(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        server_ready(r, &s);
        assert_int_equal(upstream_era(r->u), MCP_ERA_LEGACY);
        assert_int_equal(upstream_revision(r->u), MCP_2025_11_25);
        assert_true(mcp_is(upstream_info(r->u)->instructions, "\"be kind\""));
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"bulkhead\""));
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n"));
}

static void test_legacy_older(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2024-11-05")};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.legacy_only = true;
        server_ready(r, &s);
        assert_int_equal(upstream_revision(r->u), MCP_2024_11_05);
        assert_null(strstr(s.log.data, "server/discover"));
}

static void test_legacy_silent(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = INIT("2025-06-18")};
        _cleanup_rig_ struct rig *r = rig_new();
        uint64_t begun = now_us();

        r->config.limits.probe_ms = 150;
        server_ready(r, &s);
        assert_int_equal(upstream_revision(r->u), MCP_2025_06_18);
        assert_true(now_us() - begun >= 150000);
        /* Nothing that a server before its handshake need not expect. */
        assert_null(strstr(s.log.data, "cancelled"));
}

static void say_discovered(struct server *s, _unused_ const char *line, _unused_ long id)
{
        server_result(s, 1, MODERN);
}

/* Slow to start, not legacy: it refuses initialize, then answers the probe. */
static void test_modern_slow(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .script = say_discovered};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.limits.probe_ms = 50;
        server_start(r, &s);
        rig_run(r, 100);
        assert_non_null(strstr(s.log.data, "initialize"));
        assert_false(r->ready || r->ended);
        server_result(&s, 1, MODERN);
        rig_wait(r, &r->ready);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
}

static void test_versions(_unused_ void **state)
{
        static const struct {
                const char *supported;
                enum mcp_era era; /* MCP_ERA_UNKNOWN = it ends */
        } cases[] = {
                {"[\"2025-06-18\",\"2025-11-25\"]", MCP_ERA_LEGACY},
                {"[\"2031-01-01\"]", MCP_ERA_UNKNOWN},
                {"[\"2031-01-01\",\"2025-11-25\"]", MCP_ERA_LEGACY},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (int as_error = 0; as_error < 2; as_error++) {
                        _cleanup_free_ char *error =
                                mem_printf("{\"code\":-32022,\"message\":\"no\",\"data\":{\"supported\":%s}}", cases[i].supported);
                        _cleanup_free_ char *result = mem_printf("{\"supportedVersions\":%s}", cases[i].supported);
                        _cleanup_server_ struct server s = {
                                .discover = as_error ? NULL : result, .discover_error = error, .initialize = INIT("2025-11-25")};
                        _cleanup_rig_ struct rig *r = rig_new();

                        server_start(r, &s);
                        if (cases[i].era == MCP_ERA_UNKNOWN) {
                                assert_ends(r, "speaks no revision of MCP that we do");
                        } else {
                                rig_wait(r, &r->ready);
                                assert_int_equal(upstream_era(r->u), cases[i].era);
                        }
                }
}

/* A server that refuses the very version it names, once. */
static void test_version_again(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover_error =
                                                    "{\"code\":-32022,\"message\":\"no\",\"data\":{\"supported\":[\"2026-07-28\"]}}",
                                            .initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        server_start(r, &s);
        assert_ends(r, "speaks no revision");
        assert_non_null(strstr(s.log.data, "\"id\":2,\"method\":\"server/discover\""));
        assert_null(strstr(s.log.data, "initialize"));
}

static void test_handshake_refused(_unused_ void **state)
{
        _cleanup_server_ struct server s = {0};
        _cleanup_rig_ struct rig *r = rig_new();

        server_start(r, &s);
        assert_ends(r, "refuses initialize: Method not found (code -32601)");
        assert_true(upstream_probe_failed(r->u));
}

static void test_handshake_revision(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2019-01-01")};
        _cleanup_rig_ struct rig *r = rig_new();

        server_start(r, &s);
        assert_ends(r, "a revision of MCP that we do not speak");
}

static void test_handshake_too_large(_unused_ void **state)
{
        _cleanup_free_ char *large =
                mem_printf("{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"instructions\":\"%0300000d\"}", 0);
        _cleanup_server_ struct server s = {.initialize = large};
        _cleanup_rig_ struct rig *r = rig_new();

        server_start(r, &s);
        assert_ends(r, "answer to the handshake is over 262144 bytes");
}

static void test_handshake_timeout(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = ""};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.limits.probe_ms = 50;
        r->config.limits.handshake_ms = 150;
        server_start(r, &s);
        assert_ends(r, "did not finish the handshake within 150 ms");
        assert_int_equal(err_code(r->why), ERR_TIMEOUT);
        assert_true(upstream_probe_failed(r->u));
        assert_false(upstream_is_ready(r->u));
}

/* An error that does not say what it is about: only the handshake can be meant. */
static void test_handshake_error_without_id(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        server_start(r, &s);
        rig_run(r, 20);
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"?\"}}");
        rig_wait(r, &r->ready);
        assert_int_equal(upstream_era(r->u), MCP_ERA_LEGACY);
}

static void test_exits_on_probe(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = ""};
        _cleanup_rig_ struct rig *r = rig_new();

        server_start(r, &s);
        server_frame(&s, 2, "Error: not initialized\n", 23);
        rig_run(r, 20);
        server_leave(&s);
        assert_ends(r, "it ended; it last said: Error: not initialized");
        assert_true(upstream_probe_failed(r->u));
}

/* -- calls ------------------------------------------------------------------------------------------------------------------------ */

static void test_call(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};
        struct upstream_request odd = {.method = MCP_M_UNKNOWN, .method_name = "x/y", .timeout_ms = 5000};

        server_ready(r, &s);
        rig_ask(r, &a, "{\"name\":\"t\",\r\n\t\"arguments\":{\"x\":\n1}}");
        rig_ask_more(r, &b, &odd);
        assert_int_equal(upstream_calls(r->u), 2);
        rig_wait(r, &a.over);
        rig_wait(r, &b.over);
        assert_string_equal(a.result, "{\"ok\":true}");
        assert_non_null(strstr(s.log.data, "\"method\":\"tools/call\",\"params\":{\"name\":\"t\",  \t\"arguments\":{\"x\": 1}}}\n"));
        assert_non_null(strstr(s.log.data, "\"method\":\"x/y\"}\n"));
        assert_int_equal(upstream_calls(r->u), 0);
}

/* Answers in any order reach their own call. */
static void test_many(_unused_ void **state)
{
        enum { N = 90 };
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked a[N] = {0};

        server_ready(r, &s);
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        while (s.n_calls < N)
                rig_run(r, 5);
        for (long i = 0; i < N; i++) {
                long k = (i * 37) % N; /* 37 and 90 have no common divisor */
                _cleanup_free_ char *text = mem_printf("{\"n\":%ld}", k);
                server_result(&s, s.last_id - (N - 1) + k, text);
        }
        for (int i = 0; i < N; i++) {
                _cleanup_free_ char *text = mem_printf("{\"n\":%d}", i);
                rig_wait(r, &a[i].over);
                assert_string_equal(a[i].result, text);
                assert_int_equal(a[i].n_done, 1);
                asked_deinit(&a[i]);
        }
}

static unsigned lines_there(const struct server *s)
{
        char chunk[65536];
        ssize_t n = recv(s->fd, chunk, sizeof(chunk), MSG_PEEK | MSG_DONTWAIT);
        unsigned lines = 0;

        for (ssize_t i = 0; i < n; i++)
                lines += chunk[i] == '\n';
        return lines;
}

/* Ids only grow. */
static void assert_ordered(const char *log)
{
        long last = 0;

        while ((log = strstr(log, "\"id\":"))) {
                long id = strtol(log + 5, NULL, 10);
                assert_true(id > last);
                last = id;
                log += 5;
        }
}

static int ask_at_once(sd_event_source *source, void *user)
{
        struct asked *a = user;

        for (int i = 0; i < 9; i++)
                rig_ask(a->rig, &a[i], "{}");
        sd_event_source_disable_unref(source);
        return 0;
}

/* Calls of one turn of the loop: the first goes out at once, the others together, all in their order. */
static void test_calls_at_once(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked a[9] = {{.rig = r}};
        sd_event_source *source = NULL;

        server_ready(r, &s);
        rig_run(r, 20);
        s.io = sd_event_source_disable_unref(s.io); /* it does not read: what came can be counted */
        assert_true(sd_event_add_defer(r->loop, &source, ask_at_once, a) >= 0);
        assert_true(sd_event_run(r->loop, 0) > 0);
        assert_int_equal(lines_there(&s), 1);
        assert_true(sd_event_run(r->loop, 0) > 0);
        assert_int_equal(lines_there(&s), 9);
        server_watch(&s);
        rig_run(r, 20);
        assert_int_equal(s.n_calls, 9);
        assert_ordered(s.log.data);
        for (int i = 0; i < 9; i++)
                asked_deinit(&a[i]);
}

static void test_limits(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked early = {0}, a = {0}, b = {0}, c = {0};
        _cleanup_free_ char *large = mem_printf("{\"x\":\"%070000d\"}", 0);

        r->config.limits.max_calls = 1;
        r->config.limits.max_message = 65536;
        server_start(r, &s);
        rig_ask(r, &early, "{}");
        rig_wait(r, &early.over);
        assert_says(early.why, "there is no session");
        assert_int_equal(err_code(early.why), ERR_UNAVAILABLE);
        rig_wait(r, &r->ready);
        rig_ask(r, &a, large);
        rig_wait(r, &a.over);
        assert_says(a.why, "over the limit of 65536");
        rig_ask(r, &b, "{}");
        rig_ask(r, &c, "{}");
        rig_wait(r, &c.over);
        assert_int_equal(err_code(c.why), ERR_LIMIT);
        assert_false(b.over);
        assert_false(r->ended);
}

static void progress(struct server *s, const char *token, int value)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":%d,"
                                               "\"progressToken\":%s,\"message\":\"m\"}}",
                                               value, token);
        server_say(s, text);
}

static void test_progress(_unused_ void **state)
{
        static const char params[] = "{\"name\":\"t\",\"_meta\":{\"progressToken\":\"tok\\\"en\"},\"arguments\":{}}";
        const char *token = strstr(params, "\"tok");
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                     .params = mcp_slice_of(params),
                                     .timeout_ms = 5000,
                                     .progress_token = {token, strlen("\"tok\\\"en\"")}};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, plain = {0};
        _cleanup_free_ char *sent = NULL, *ours = NULL;

        server_ready(r, &s);
        rig_ask_more(r, &a, &q);
        rig_ask(r, &plain, "{}");
        while (s.n_calls < 2)
                rig_run(r, 5);
        sent = mem_printf("{\"name\":\"t\",\"_meta\":{\"progressToken\":%ld},\"arguments\":{}}", s.last_id - 1);
        assert_non_null(strstr(s.log.data, sent));
        ours = mem_printf("%ld", s.last_id - 1);
        progress(&s, ours, 1);
        progress(&s, "\"tok\\\"en\"", 2); /* the caller's token means nothing here */
        progress(&s, "99999", 3);
        progress(&s, "-1", 4);
        {
                _cleanup_free_ char *other = mem_printf("%ld", s.last_id); /* asked for none */
                progress(&s, other, 5);
        }
        rig_run(r, 30);
        assert_int_equal(a.n_notes, 1);
        assert_string_equal(a.note, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1,"
                                    "\"progressToken\":\"tok\\\"en\",\"message\":\"m\"}}");
        assert_int_equal(plain.n_notes, 0);
        assert_int_equal(r->n_notes, 0);
        assert_int_equal(upstream_ignored(r->u), 4);
}

static void test_timeouts(_unused_ void **state)
{
        static const char params[] = "{\"_meta\":{\"progressToken\":7}}";
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                     .params = mcp_slice_of(params),
                                     .timeout_ms = 300,
                                     .cap_ms = 1000,
                                     .progress_token = {strchr(params, '7'), 1}};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked silent = {0}, busy = {0}, other = {0};
        uint64_t begun, took;
        _cleanup_free_ char *token = NULL, *told = NULL;

        server_ready(r, &s);
        rig_ask(r, &other, "{}"); /* has a later deadline */
        begun = now_us();
        rig_ask_more(r, &silent, &q);
        rig_ask_more(r, &busy, &q);
        while (s.n_calls < 3)
                rig_run(r, 5);
        token = mem_printf("%ld", s.last_id);
        for (int i = 0; !busy.over; i++) {
                if (now_us() - begun < 800000)
                        assert_false(busy.over);
                progress(&s, token, i);
                rig_run(r, 20);
                if (silent.over && !told) {
                        took = now_us() - begun;
                        assert_true(took >= 300000);
                        told = mem_printf("\"notifications/cancelled\",\"params\":{\"requestId\":%ld,", s.last_id - 1);
                        assert_says(silent.why, "no answer to tools/call within 300 ms");
                        assert_int_equal(err_code(silent.why), ERR_TIMEOUT);
                }
                assert_true(i < 200);
        }
        assert_true(now_us() - begun >= 1000000);
        assert_says(busy.why, "took longer than 1000 ms in all");
        assert_true(busy.n_notes > 3);
        assert_non_null(told);
        assert_non_null(strstr(s.log.data, told));
        /* Late answers are nobody's, and no offence. */
        server_result(&s, s.last_id, "{}");
        server_result(&s, s.last_id - 1, "{}");
        rig_run(r, 20);
        assert_int_equal(upstream_ignored(r->u), 0);
        assert_false(r->ended || other.over);
}

static void test_cancel(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *told = NULL;

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        while (s.n_calls < 1)
                rig_run(r, 5);
        rig_cancel(&a, "not \"needed\"");
        told = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%ld,"
                          "\"reason\":\"not \\\"needed\\\"\"}}\n",
                          s.last_id);
        server_result(&s, s.last_id, "{}");
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, told));
        assert_false(a.over);
        assert_int_equal(upstream_calls(r->u), 0);
        assert_int_equal(upstream_ignored(r->u), 0);
}

static void test_server_asks(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = "", .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.limits.probe_ms = 10;
        r->answer = true;
        server_start(r, &s);
        rig_run(r, 40);
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"method\":\"roots/list\"}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
        server_result(&s, 2, INIT("2025-11-25"));
        rig_wait(r, &r->ready);
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}\n"));
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":-32600,"));
        assert_int_equal(r->n_requests, 0);
        assert_int_equal(r->n_notes, 0);
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"roots/list\"}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":5}}");
        rig_run(r, 20);
        assert_int_equal(r->n_requests, 1);
        assert_null(r->request_on);
        assert_string_equal(r->request_id, "5");
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{\"a\":1}}\n"));
        assert_string_equal(r->withdrawn, "5");
        upstream_notify(r->u, "notifications/roots/list_changed", (struct mcp_slice){0});
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/roots/list_changed\"}\n"));
}

/* Modern servers ask nothing: whoever does all the same gets no answer, and is not heard without end. */
static void test_modern_server_asks(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = MODERN, .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        size_t before;

        server_ready(r, &s);
        before = s.log.len;
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"method\":\"roots/list\"}");
        rig_run(r, 20);
        assert_int_equal(s.log.len, before);
        assert_int_equal(r->n_requests, 0);
        assert_int_equal(upstream_ignored(r->u), 2);
        for (int i = 0; i < 60; i++)
                server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"method\":\"roots/list\"}");
        assert_ends(r, "more than 50 lines in a row");
}

/* Modern: a subscription's notifications carry the call's id, and the server may end it. */
static void test_subscription(_unused_ void **state)
{
        struct upstream_request q = {.method = MCP_M_LISTEN, .params = mcp_slice_of("{\"notifications\":{}}")};
        _cleanup_server_ struct server s = {.discover = MODERN, .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *note = NULL, *end = NULL;

        server_ready(r, &s);
        rig_ask_more(r, &a, &q);
        while (s.n_calls < 1)
                rig_run(r, 5);
        note = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"_meta\":{"
                          "\"io.modelcontextprotocol/subscriptionId\":%ld}}}",
                          s.last_id);
        server_say(&s, note);
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"_meta\":{"
                       "\"io.modelcontextprotocol/subscriptionId\":77}}}");
        rig_run(r, 20);
        assert_int_equal(a.n_notes, 1);
        assert_int_equal(r->n_notes, 1);
        end = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%ld}}", s.last_id);
        server_say(&s, end);
        rig_wait(r, &a.over);
        assert_says(a.why, "ended the subscription");
        assert_false(r->ended);
}

static void test_batch(_unused_ void **state)
{
        for (int old = 0; old < 2; old++) {
                _cleanup_server_ struct server s = {.initialize = old ? INIT("2025-03-26") : INIT("2025-06-18"), .script = server_silent};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};
                _cleanup_free_ char *text = NULL;

                server_ready(r, &s);
                rig_ask(r, &a, "{}");
                rig_ask(r, &b, "{}");
                while (s.n_calls < 2)
                        rig_run(r, 5);
                text = mem_printf("[{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}},{\"jsonrpc\":\"2.0\",\"method\":\"x\"},"
                                  "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":2}}]",
                                  s.last_id, s.last_id - 1);
                server_say(&s, text);
                rig_run(r, 30);
                assert_int_equal(a.over, old);
                assert_int_equal(b.over, old);
                assert_int_equal(r->n_notes, old);
                if (old)
                        assert_string_equal(a.result, "{\"n\":2}");
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_modern),
                cmocka_unit_test(test_legacy),
                cmocka_unit_test(test_legacy_older),
                cmocka_unit_test(test_legacy_silent),
                cmocka_unit_test(test_modern_slow),
                cmocka_unit_test(test_versions),
                cmocka_unit_test(test_version_again),
                cmocka_unit_test(test_handshake_refused),
                cmocka_unit_test(test_handshake_revision),
                cmocka_unit_test(test_handshake_too_large),
                cmocka_unit_test(test_handshake_timeout),
                cmocka_unit_test(test_handshake_error_without_id),
                cmocka_unit_test(test_exits_on_probe),
                cmocka_unit_test(test_call),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_calls_at_once),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_progress),
                cmocka_unit_test(test_timeouts),
                cmocka_unit_test(test_cancel),
                cmocka_unit_test(test_server_asks),
                cmocka_unit_test(test_modern_server_asks),
                cmocka_unit_test(test_subscription),
                cmocka_unit_test(test_batch),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
