/* Sessions with stdio servers that misbehave, and owners that free the session while it tells them something. */
#include "tests/unit/test_upstream_pipe.h"

#include <unistd.h>

/* -- hostile servers ---------------------------------------------------------------------------------------------------------------- */

static void test_split(_unused_ void **state)
{
        for (int raw = 0; raw < 2; raw++) {
                _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .step = 1};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                r->config.raw = raw;
                server_ready(r, &s);
                rig_ask(r, &a, "{}");
                rig_wait(r, &a.over);
                assert_string_equal(a.result, "{\"ok\":true}");
        }
}

/* A message over many frames, standard error between them, several messages in one frame. */
static void test_frames(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0}, c = {0};
        _cleanup_free_ char *text = NULL;

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        rig_ask(r, &b, "{}");
        rig_ask(r, &c, "{}");
        while (s.n_calls < 3)
                rig_run(r, 5);
        text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}}\n{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":2}}\r\n"
                          "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":3}}\n",
                          s.last_id - 2, s.last_id - 1, s.last_id);
        server_frame(&s, 1, text, 20);
        server_frame(&s, 2, "noise\n", 6);
        server_frame(&s, 1, text + 20, 0);
        server_frame(&s, 1, text + 20, strlen(text) - 30);
        server_frame(&s, 1, text + strlen(text) - 10, 10);
        rig_wait(r, &c.over);
        assert_string_equal(a.result, "{\"n\":1}");
        assert_string_equal(b.result, "{\"n\":2}");
        assert_string_equal(c.result, "{\"n\":3}");
}

static void test_bad_frame(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        buf_add(&s.out, "HTTP/1.1", 8);
        server_flush(&s);
        assert_ends(r, "is not the beginning of a frame");
        assert_true(a.over);
        assert_says(a.why, "is not the beginning of a frame");
}

static void test_noise(_unused_ void **state)
{
        static const char *const lines[] = {
                "Server listening on stdio", "", "  \t ", "{\"level\":\"info\"}", "[1,2]", "{", "\xff\xfe", "null"};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        server_ready(r, &s);
        for (int round = 0; round < 8; round++)
                for (size_t i = 0; i < ELEMENTSOF(lines); i++)
                        server_say(&s, lines[i]);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(upstream_ignored(r->u), 48); /* but for the empty ones; the bound is 50 in a row */
        for (int i = 0; i < 60; i++)
                server_say(&s, "la la la");
        assert_ends(r, "more than 50 lines in a row");
        assert_false(b.over);
}

static void test_strays(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};
        uint64_t before;

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        before = upstream_ignored(r->u);
        server_result(&s, s.last_id, "{\"again\":true}");
        server_result(&s, 12345678, "{}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":-3,\"result\":{}}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}");
        server_say(&s, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"?\"}}");
        rig_ask(r, &b, "{}");
        rig_wait(r, &b.over);
        assert_string_equal(b.result, "{\"ok\":true}");
        assert_int_equal(a.n_done, 1);
        assert_int_equal(upstream_ignored(r->u) - before, 6);
        for (long i = 0; i < 60; i++)
                server_result(&s, 1000 + i, "{}");
        assert_ends(r, "answers to nothing that was asked");
}

/* An answer that two parsers could read differently is none, and its caller hears so now. */
static void test_refused_answer(_unused_ void **state)
{
        static const char *const forms[] = {
                "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"a\":1,\"a\":2}}",
                "{\"result\":{\"id\":1,\"x\":{\"id\":\"}\\\"\"},\"n\":99999999999999999999},\"jsonrpc\":\"2.0\",\"id\" : %ld}",
                "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{},\"error\":{\"code\":1,\"message\":\"\"}}",
                "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"x\":\"\\ud800\"}}",
        };
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();

        server_ready(r, &s);
        for (size_t i = 0; i < ELEMENTSOF(forms); i++) {
                _cleanup_asked_ struct asked a = {0}, other = {0};
                char text[256];

                rig_ask(r, &other, "{}");
                rig_ask(r, &a, "{}");
                s.n_calls = 0;
                while (s.n_calls < 2)
                        rig_run(r, 5);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                snprintf(text, sizeof(text), forms[i], s.last_id);
#pragma GCC diagnostic pop
                server_say(&s, text);
                rig_wait(r, &a.over);
                assert_says(a.why, "server web: its answer to tools/call is refused: ");
                assert_false(other.over);
                rig_cancel(&other, NULL);
        }
}

static void test_endless_line(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *part = mem_printf("{\"x\":\"%030000d", 0);

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        for (int i = 0; i < 40; i++)
                server_frame(&s, 1, part, strlen(part));
        assert_ends(r, "a line of more than 1048576 bytes (gateway.max_message)");
        assert_int_equal(err_code(r->why), ERR_LIMIT);
        assert_int_equal(a.n_done, 1);
}

static void test_flood(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        server_ready(r, &s);
        for (int i = 0; i < 20000; i++)
                server_say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}");
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(r->n_notes, 20000);
}

static void test_mid_frame(_unused_ void **state)
{
        static const char header[8] = {1, 0, 0, 0, 0, 0, 1, 0};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        server_frame(&s, 2, "panic: \x1b[31mout of luck\n\tat line 3\n", 36);
        buf_add(&s.out, header, sizeof(header));
        buf_adds(&s.out, "{\"jsonrpc\":\"2.0\",");
        server_flush(&s);
        rig_run(r, 20);
        server_leave(&s);
        assert_ends(r, "it ended in the middle of a message; it last said: panic: \\x1b[31mout of luck");
        assert_says(a.why, "in the middle of a message");
        assert_false(upstream_probe_failed(r->u));
}

static void test_mid_header(_unused_ void **state)
{
        static const char header[8] = {1, 0, 0, 0, 0, 0, 1, 0};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();

        server_ready(r, &s);
        buf_add(&s.out, header, 5);
        server_flush(&s);
        rig_run(r, 20);
        server_leave(&s);
        assert_ends(r, "it ended in the middle of a message");
}

/* What it answered before it closed its input is not lost. */
static void test_last_answers(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        while (s.n_calls < 1)
                rig_run(r, 5);
        server_result(&s, s.last_id, "{\"done\":1}");
        server_leave(&s);
        rig_ask(r, &b, "{}"); /* finds out */
        rig_wait(r, &r->ended);
        assert_string_equal(a.result, "{\"done\":1}");
        assert_says(b.why, "server web: ");
}

static void test_never_reads(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_free_ char *params = mem_printf("{\"x\":\"%0100000d\"}", 0);
        struct asked a[60] = {0};
        unsigned refused = 0;

        r->config.limits.max_queued = 1000000;
        server_ready(r, &s);
        rig_run(r, 20);
        assert_true(sd_event_source_set_enabled(s.io, SD_EVENT_OFF) >= 0);
        for (size_t i = 0; i < ELEMENTSOF(a); i++)
                rig_ask(r, &a[i], params);
        rig_run(r, 30);
        for (size_t i = 0; i < ELEMENTSOF(a); i++)
                if (a[i].over) {
                        assert_says(a[i].why, "does not read its input");
                        refused++;
                }
        assert_true(refused >= 40 && refused <= 55);
        /* Once it reads again, nothing is lost and nothing is cut. */
        assert_true(sd_event_source_set_enabled(s.io, SD_EVENT_ON) >= 0);
        for (size_t i = 0; i < ELEMENTSOF(a); i++) {
                rig_wait(r, &a[i].over);
                assert_true(a[i].why || a[i].result);
                asked_deinit(&a[i]);
        }
        assert_int_equal(s.n_calls, ELEMENTSOF(a) - refused);
}

static void test_stderr_flood(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *tail = NULL, *text = mem_printf("%050000d\n", 0);

        server_ready(r, &s);
        for (int i = 0; i < 100; i++)
                server_frame(&s, 2, text, strlen(text));
        server_frame(&s, 2, "the \xc3\xa4nd\n\n", 11);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        tail = upstream_stderr_tail(r->u);
        assert_true(strlen(tail) <= 500);
        assert_true(str_has_suffix(tail, "0000 the \xc3\xa4nd"));
        server_frame(&s, 2, text, 0);
        for (int i = 0; i < 300; i++)
                server_frame(&s, 2, "\x1b\x01", 2);
        rig_run(r, 20);
        mem_replace(&tail, upstream_stderr_tail(r->u));
        assert_true(strlen(tail) <= 500 && str_has_suffix(tail, "\\x1b\\x01"));
}

/* Answers of 4 and of 64 MiB: sixteen times as much costs about sixteen times the time. */
static uint64_t large_answer(size_t mib, size_t per_frame)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_buf_ struct buf text = {0};
        size_t n = mib << 20;
        uint64_t begun;

        r->config.limits.max_message = 65U << 20;
        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        while (s.n_calls < 1)
                rig_run(r, 1);
        buf_addf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"x\":\"", s.last_id);
        while (text.len < n)
                buf_adds(&text, "0123456789 abcdefghijklmnopqrstuvwxyz \\n ");
        buf_adds(&text, "\"}}\n");
        begun = now_us();
        for (size_t at = 0; at < text.len; at += per_frame)
                server_frame(&s, 1, text.data + at, MIN(per_frame, text.len - at));
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_true(strlen(a.result) > n - 100);
        return MAX(now_us() - begun, 1);
}

static void test_large(_unused_ void **state)
{
        uint64_t small = large_answer(4, 32768), large = large_answer(64, 32768);

        print_message("4 MiB in %llu us, 64 MiB in %llu us\n", (unsigned long long)small, (unsigned long long)large);
        assert_true(large < 16 * 6 * small);
}

/* -- freed from inside ---------------------------------------------------------------------------------------------------------------- */

static void test_free_in_ready(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        r->free_in_ready = true;
        server_start(r, &s);
        rig_wait(r, &r->ready);
        rig_wait(r, &s.gone);
        assert_null(r->u);
        assert_false(r->ended);
}

static void test_free_in_ended(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_exit};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        r->free_in_ended = true;
        server_ready(r, &s);
        rig_ask(r, &a, "{}");
        rig_ask(r, &b, "{}");
        rig_wait(r, &r->ended);
        assert_true(a.over && b.over);
        assert_null(r->u);
}

static void test_free_in_done(_unused_ void **state)
{
        for (int by_end = 0; by_end < 2; by_end++) {
                _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = by_end ? server_exit : NULL};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {.free_in_done = true}, b = {.free_in_done = true};

                server_ready(r, &s);
                rig_ask(r, &a, "{}");
                rig_ask(r, &b, "{}");
                rig_wait(r, &b.over);
                assert_true(a.over);
                assert_int_equal(a.n_done + b.n_done, 2);
                assert_false(r->ended);
                rig_wait(r, &s.gone);
        }
}

/* Two messages in one frame: the second finds nobody. */
static void test_free_in_others(_unused_ void **state)
{
        for (int i = 0; i < 5; i++) {
                static const char params[] = "{\"_meta\":{\"progressToken\":7}}";
                struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                             .params = mcp_slice_of(params),
                                             .timeout_ms = 5000,
                                             .progress_token = {strchr(params, '7'), 1}};
                _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = server_silent};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {.free_in_note = i == 3, .cancel_in_note = i == 4};
                _cleanup_free_ char *text = NULL;

                r->free_in_note = i == 0;
                r->free_in_request = i == 1;
                r->free_in_withdrawn = i == 2;
                server_ready(r, &s);
                rig_ask_more(r, &a, &q);
                while (s.n_calls < 1)
                        rig_run(r, 5);
                text = mem_printf("%s\n{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%ld,"
                                  "\"progress\":1}}\n{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n",
                                  i == 0   ? "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}"
                                  : i == 1 ? "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}"
                                           : "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}",
                                  s.last_id);
                server_frame(&s, 1, text, strlen(text));
                if (i == 4) {
                        rig_run(r, 20);
                        assert_false(a.over);
                        assert_non_null(strstr(s.log.data, "\"reason\":\"enough\""));
                        continue;
                }
                rig_wait(r, &s.gone);
                assert_null(r->u);
                assert_int_equal(a.n_done, 1);
                assert_says(a.why, "the session was closed");
                assert_int_equal(r->n_notes, i == 0);
                assert_false(r->ended);
        }
}

/* A descriptor that cannot be used stays the caller's. */
static void test_bad_descriptor(_unused_ void **state)
{
        _cleanup_rig_ struct rig *r = rig_new();
        struct err *err = NULL;
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        r->config.fd = fds[0];
        assert_fails(upstream_stdio_new(&r->u, r->loop, &r->config, &rig_events, r, &err), "is no socket");
        assert_null(r->u);
        assert_int_equal(close(fds[0]), 0);
        assert_int_equal(close(fds[1]), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_split),          cmocka_unit_test(test_frames),       cmocka_unit_test(test_bad_frame),
                cmocka_unit_test(test_noise),          cmocka_unit_test(test_strays),       cmocka_unit_test(test_refused_answer),
                cmocka_unit_test(test_endless_line),   cmocka_unit_test(test_flood),        cmocka_unit_test(test_mid_frame),
                cmocka_unit_test(test_mid_header),     cmocka_unit_test(test_last_answers), cmocka_unit_test(test_never_reads),
                cmocka_unit_test(test_stderr_flood),   cmocka_unit_test(test_large),        cmocka_unit_test(test_free_in_ready),
                cmocka_unit_test(test_free_in_ended),  cmocka_unit_test(test_free_in_done), cmocka_unit_test(test_free_in_others),
                cmocka_unit_test(test_bad_descriptor),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
