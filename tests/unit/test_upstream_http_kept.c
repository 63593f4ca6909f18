/* Connections to HTTP servers: when they are used again, what becomes of requests on one that the server gives up, and of large requests.
 */
#include "tests/unit/test_upstream_web.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct upstream_request list_tools = {.method = MCP_M_TOOLS_LIST, .params = {"{}", 2}, .timeout_ms = 60000};

static void call_well(struct rig *r)
{
        _cleanup_asked_ struct asked a = {0};

        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"ok\":true}");
}

/* -- kept connections --------------------------------------------------------------------------------------------------------------- */

static void close_behind(struct web *w, struct web_request *q)
{
        web_decent(w, q);
        web_cut(q->conn);
}

/* A server that closes behind each answer without a word: nobody is asked on a closed connection. */
static void test_closes_behind(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = close_behind};
        _cleanup_rig_ struct rig *r = rig_new();

        web_session_ready(r, &w);
        for (int i = 0; i < 20; i++)
                call_well(r);
        assert_int_equal(w.n_requests, 21);
        assert_int_equal(w.n_conns, 21);
}

/* Gives up a kept connection just when it is used again. */
static void drop_second(struct web *w, struct web_request *q)
{
        if (q->conn->n_requests > 1)
                web_cut(q->conn);
        else
                web_decent(w, q);
}

static void test_race_repeatable(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = drop_second};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        rig_ask_more(r, &a, &list_tools);
        rig_wait(r, &a.over);
        assert_string_equal(a.result, "{\"ok\":true}");
        assert_string_equal(w.log.data, "POST /mcp server/discover\nPOST /mcp tools/list\nPOST /mcp tools/list\n");
}

static void test_race_tool(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = drop_second};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_says(a.why, "whether the call was carried out is not known");
        assert_string_equal(w.log.data, "POST /mcp server/discover\nPOST /mcp tools/call\n");
        call_well(r);
}

static void drop_lists(struct web *w, struct web_request *q)
{
        if (str_eq(q->rpc, "tools/list"))
                web_cut(q->conn);
        else
                web_decent(w, q);
}

/* Once more, and not again and again. */
static void test_lost_twice(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = drop_lists};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        rig_ask_more(r, &a, &list_tools);
        rig_wait(r, &a.over);
        assert_says(a.why, "HTTP: the connection was lost before the answer");
        assert_int_equal(w.n_requests, 3);
        rig_run(r, 20);
        assert_int_equal(w.n_open, 0);
}

/* Part of an answer is an answer: it is not asked for again. */
static void half_second(struct web *w, struct web_request *q)
{
        if (q->conn->n_requests == 1) {
                web_decent(w, q);
                return;
        }
        web_put(q->conn, "HTTP/1.1 200", 12);
        q->conn->closing = true;
        web_put(q->conn, "", 0);
}

static void test_half_is_not_repeated(_unused_ void **state)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = half_second};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        web_session_ready(r, &w);
        rig_ask_more(r, &a, &list_tools);
        rig_wait(r, &a.over);
        assert_says(a.why, "HTTP: the connection ended in the middle of the answer");
        assert_int_equal(w.n_requests, 2);
}

/* What a server says unasked is the answer to nothing, least of all to the next request. */
static void test_unasked(_unused_ void **state)
{
        static const char answer[] =
                "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":\"no\"}}";

        for (int turn = 0; turn < 2; turn++) {
                _cleanup_web_ struct web w = {.discover = MODERN};
                _cleanup_rig_ struct rig *r = rig_new();

                web_session_ready(r, &w);
                web_put(w.conns, answer, sizeof(answer) - 1);
                /* It is closed at once, or at the latest when it would be used. */
                for (int i = 0; turn && w.n_open > 0 && i < 200; i++)
                        rig_run(r, 5);
                assert_int_equal(w.n_open, turn ? 0 : 1);
                call_well(r);
                assert_int_equal(w.n_conns, 2);
                rig_run(r, 20);
                assert_int_equal(w.n_open, 1);
        }
}

static void test_many_kept(_unused_ void **state)
{
        enum { N = 400 };
        _cleanup_web_ struct web w = {.discover = MODERN};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked *a = NEW_N(struct asked, N);

        r->config.limits.max_calls = N;
        web_session_ready(r, &w);
        memset(a, 0, N * sizeof(*a));
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        for (int i = 0; i < N; i++) {
                rig_wait(r, &a[i].over);
                assert_string_equal(a[i].result, "{\"ok\":true}");
                asked_deinit(&a[i]);
        }
        free(a);
        rig_run(r, 20);
        assert_int_equal(w.n_conns, N);
        assert_int_equal(w.n_open, 256);
}

/* -- large requests ------------------------------------------------------------------------------------------------------------------ */

enum { LARGE = 12 << 20 }; /* more than sockets take */

static char *large_params(void)
{
        return mem_printf("{\"x\":\"%0*d\"}", LARGE, 0);
}

static void ask_large(struct rig *r, struct asked *a)
{
        _cleanup_free_ char *params = large_params();

        rig_ask(r, a, params);
}

static void test_large_request(_unused_ void **state)
{
        for (int kept = 0; kept < 2; kept++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};
                _cleanup_free_ char *params = large_params();

                r->config.limits.max_message = LARGE + 1000;
                web_session_ready(r, &w);
                if (!kept)
                        web_cut(w.conns);
                ask_large(r, &a);
                web_wait_held(r, &w);
                assert_non_null(strstr(w.held_body, params)); /* every byte of it */
                web_result(w.held, w.held_id, "{\"ok\":true}");
                rig_wait(r, &a.over);
                assert_string_equal(a.result, "{\"ok\":true}");
                assert_int_equal(w.n_conns, kept ? 1 : 2);
                w.script = web_decent;
                call_well(r);
                assert_int_equal(w.n_conns, kept ? 1 : 2);
        }
}

static void say_no(struct web_conn *c)
{
        web_reply(c, "413 Content Too Large", NULL, NULL, "no");
}

static void say_no_and_close(struct web_conn *c)
{
        static const char answer[] = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";

        c->closing = true;
        web_put(c, answer, sizeof(answer) - 1);
}

static void close_early(struct web_conn *c)
{
        web_cut(c);
}

static void say_nothing(_unused_ struct web_conn *c)
{
}

/* An answer before the request was sent is its answer; what is left of the request is not sent. */
static void test_early_answer(_unused_ void **state)
{
        static const struct {
                void (*early)(struct web_conn *c);
                const char *why;
        } cases[] = {
                {say_no, "HTTP status 413 and no message"},
                {say_no_and_close, ""}, /* a reset may overtake it */
                {close_early, "whether the call was carried out is not known"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_web_ struct web w = {.discover = MODERN};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                r->config.limits.max_message = LARGE + 1000;
                web_session_ready(r, &w);
                w.early = cases[i].early;
                ask_large(r, &a);
                rig_wait(r, &a.over);
                assert_says(a.why, cases[i].why);
                assert_int_equal(w.n_requests, 1);
                w.early = NULL;
                call_well(r);
                assert_int_equal(w.n_conns, 2);
        }
}

/* Who does not read holds up nobody else, and his call ends. */
static void test_never_reads(_unused_ void **state)
{
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL, .timeout_ms = 300};
        _cleanup_free_ char *params = large_params();
        _cleanup_web_ struct web w = {.discover = MODERN};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        r->config.limits.max_message = LARGE + 1000;
        web_session_ready(r, &w);
        w.early = say_nothing;
        q.params = mcp_slice_of(params);
        rig_ask_more(r, &a, &q);
        call_well(r);
        assert_false(a.over);
        rig_wait(r, &a.over);
        assert_int_equal(err_code(a.why), ERR_TIMEOUT);
        call_well(r);
}

/* -- time ------------------------------------------------------------------------------------------------------------------------------ */

static void ignore_goodbye(struct web *w, struct web_request *q)
{
        if (!str_eq(q->method, "DELETE"))
                web_decent(w, q);
}

/* A port that accepts nobody. */
static void fill(struct web *w, struct rig *r)
{
        web_reserve(w, r);
        assert_int_equal(listen(w->fd, 0), 0);
        for (int i = 0; i < 4; i++) {
                struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = r->config.address, .sin_port = htons(w->port)};
                struct web_conn *c = NEW(struct web_conn);

                c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                assert_true(c->fd >= 0);
                (void)!connect(c->fd, (struct sockaddr *)&a, sizeof(a));
                c->web = w;
                c->next = w->conns;
                w->conns = c;
                w->n_open++;
        }
}

static uint64_t wait_until_closed(struct rig *r, const struct web *w)
{
        uint64_t began = now_us();

        while (w->n_open > 0 && now_us() - began < 30000000)
                rig_run(r, 20);
        return (now_us() - began) / 1000;
}

/* What nobody uses is closed before servers do it, a goodbye has its time, and a connection that does not come, too. */
static void test_time(_unused_ void **state)
{
        _cleanup_web_ struct web full = {0}, w = {.initialize = LEGACY, .session = "s", .script = ignore_goodbye};
        _cleanup_rig_ struct rig *connecting = rig_new(), *r = rig_new();
        uint64_t began = now_us(), ms;

        sd_event_unref(connecting->loop);
        connecting->loop = sd_event_ref(r->loop);
        fill(&full, connecting);
        connecting->config.limits.handshake_ms = 7000;
        web_session(connecting, &full);
        web_session_ready(r, &w);
        ms = wait_until_closed(r, &w);
        assert_true(ms >= 1000 && ms < 10000);
        assert_false(r->ended);
        r->u = upstream_free(r->u);
        rig_run(r, 100);
        assert_int_equal(w.n_open, 1);
        ms = wait_until_closed(r, &w);
        assert_true(ms >= 1000 && ms < 10000);
        assert_true(str_has_suffix(w.log.data, "DELETE /mcp \n"));
        assert_ends(connecting, "Failed to connect to 127.0.0.1");
        assert_true(now_us() - began >= 5000000);
        assert_says(connecting->why, "timed out");
}

/* The broker ends: its loop is over, and then its sessions are. Nothing can be waited for any more, and that is no reason to fall. */
static void test_ends_behind_the_loop(_unused_ void **state)
{
        for (int waiting = 0; waiting < 2; waiting++) {
                _cleanup_web_ struct web w = {.initialize = LEGACY, .session = "s", .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                web_session_ready(r, &w);
                rig_run(r, 50);
                if (waiting)
                        rig_ask(r, &a, "{}");
                for (struct web_conn *c = w.conns; c && !waiting; c = c->next)
                        web_cut(c);
                rig_run(r, waiting ? 20 : 2500); /* no tick is due any more */
                assert_true(sd_event_exit(r->loop, 0) >= 0);
                assert_true(sd_event_loop(r->loop) >= 0);
                r->u = upstream_free(r->u);
                assert_int_equal(a.over, waiting);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_closes_behind),
                cmocka_unit_test(test_race_repeatable),
                cmocka_unit_test(test_race_tool),
                cmocka_unit_test(test_lost_twice),
                cmocka_unit_test(test_half_is_not_repeated),
                cmocka_unit_test(test_unasked),
                cmocka_unit_test(test_many_kept),
                cmocka_unit_test(test_large_request),
                cmocka_unit_test(test_early_answer),
                cmocka_unit_test(test_never_reads),
                cmocka_unit_test(test_time),
                cmocka_unit_test(test_ends_behind_the_loop),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
