/* What HTTP servers say, byte for byte: what is no HTTP is refused and costs one call and one connection, what is HTTP is understood. */
#include "tests/unit/test_upstream_web.h"

#define OK(fields)    "HTTP/1.1 200 OK\r\n" fields "\r\n"
#define RESULT        "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":true}}"
#define RESULT_LENGTH "Content-Length: 45\r\n"
#define CHUNKED       "Transfer-Encoding: chunked\r\n"
#define CHUNKED_REST  "2d\r\n" RESULT "\r\n"

static const char *raw;
static size_t raw_n;
static bool raw_closes;

static void say_raw(struct web *w, struct web_request *q)
{
        if (!str_eq(q->rpc, "tools/call")) {
                web_decent(w, q);
                return;
        }
        web_put(q->conn, raw, raw_n);
        q->conn->closing = raw_closes;
        web_put(q->conn, "", 0);
}

/* One call that is answered with `raw`, and one behind it that is answered well. The second one's number of connections is returned. */
static unsigned ask_raw(struct asked *a, size_t step)
{
        _cleanup_web_ struct web w = {.discover = MODERN, .script = say_raw, .step = step};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked b = {0};

        web_session_ready(r, &w);
        rig_ask(r, a, "{}");
        rig_wait(r, &a->over);
        assert_int_equal(w.n_requests, 2); /* nobody asks a tool twice */
        w.script = web_decent;
        w.step = 0;
        rig_run(r, 20); /* the end of an event stream comes behind the answer in it */
        rig_ask(r, &b, "{}");
        rig_wait(r, &b.over);
        assert_string_equal(b.result, "{\"ok\":true}");
        assert_false(r->ended);
        a->rig = NULL;
        return w.n_conns;
}

/* -- what is refused ----------------------------------------------------------------------------------------------------------------- */

static void test_refused(_unused_ void **state)
{
        static const char *const answers[] = {
                /* the status line */
                "\r\n" OK(RESULT_LENGTH) RESULT,
                "HTTP/2.0 200 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.2 200 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "http/1.1 200 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1  200 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1 20 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1 2000 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1 099 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1 600 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" OK(RESULT_LENGTH) RESULT,
                "ICY 200 OK\r\n" RESULT_LENGTH "\r\n" RESULT,
                "{\"jsonrpc\":\"2.0\"}\r\n\r\n",
                /* lines */
                "HTTP/1.1 200 OK\n" RESULT_LENGTH "\r\n" RESULT,
                "HTTP/1.1 200 OK\nContent-Length: 45\n\n" RESULT,
                OK("X: a\nContent-Length: 45\r\n") RESULT,
                OK("X: a\rContent-Length: 45\r\n") RESULT,
                OK("X: a\r\n b\r\n" RESULT_LENGTH) RESULT,
                OK(" X: a\r\n" RESULT_LENGTH) RESULT,
                /* fields */
                OK("no colon\r\n" RESULT_LENGTH) RESULT,
                OK(": no name\r\n" RESULT_LENGTH) RESULT,
                OK("X : a\r\n" RESULT_LENGTH) RESULT,
                OK("X y: a\r\n" RESULT_LENGTH) RESULT,
                OK("X: \x01\r\n" RESULT_LENGTH) RESULT,
                OK("X: \x7f\r\n" RESULT_LENGTH) RESULT,
                /* lengths */
                OK("Content-Length: 45\r\nContent-Length: 46\r\n") RESULT,
                OK("Content-Length: 45, 46\r\n") RESULT,
                OK("Content-Length: 45, 45\r\n") RESULT,
                OK("Content-Length: -1\r\n") RESULT,
                OK("Content-Length: +45\r\n") RESULT,
                OK("Content-Length: 0x2d\r\n") RESULT,
                OK("Content-Length: 45 45\r\n") RESULT,
                OK("Content-Length:\r\n") RESULT,
                OK("Content-Length: 99999999999999999999999\r\n") RESULT,
                OK(RESULT_LENGTH CHUNKED) CHUNKED_REST "0\r\n\r\n",
                OK("Transfer-Encoding: gzip\r\n") RESULT,
                OK("Transfer-Encoding: chunked, gzip\r\n") CHUNKED_REST "0\r\n\r\n",
                OK("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") CHUNKED_REST "0\r\n\r\n",
                OK("Transfer-Encoding: xchunked\r\n") CHUNKED_REST "0\r\n\r\n",
                /* chunks */
                OK(CHUNKED) "\r\n" CHUNKED_REST "0\r\n\r\n",
                OK(CHUNKED) " 2d\r\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) "-2d\r\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) "0x2d\r\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) "2d\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) "2d\r\n" RESULT "0\r\n\r\n",
                OK(CHUNKED) "2d\r\n" RESULT "\n0\r\n\r\n",
                OK(CHUNKED) "2c\r\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) "0000000000000002d\r\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) "ffffffffffffffffff\r\n" RESULT "\r\n0\r\n\r\n",
                OK(CHUNKED) CHUNKED_REST "0\r\nno trailer\r\n\r\n",
                OK(CHUNKED) CHUNKED_REST "0\r\nX: a\n\r\n",
                /* the connection ends too early */
                "HTTP/1.1",
                "HTTP/1.1 200 OK\r\n",
                OK(RESULT_LENGTH) "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":true}",
                OK(CHUNKED) "2d\r\n{\"jsonrpc\"",
                OK(CHUNKED) CHUNKED_REST,
                OK(CHUNKED) CHUNKED_REST "0\r\n",
                OK("Content-Type: text/event-stream\r\n" CHUNKED) "40\r\ndata: {\"jsonrpc\"",
                "HTTP/1.1 100 Continue\r\n\r\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(answers); i++)
                for (size_t step = 0; step < 2; step++) {
                        _cleanup_asked_ struct asked a = {0};

                        raw = answers[i];
                        raw_n = strlen(raw);
                        raw_closes = true;
                        (void)ask_raw(&a, step);
                        if (!a.why)
                                print_error("%s\n", raw);
                        assert_says(a.why, "server web: HTTP: ");
                        assert_int_equal(err_code(a.why), ERR_UNAVAILABLE);
                }
}

static void test_nul(_unused_ void **state)
{
        static const char answer[] = "HTTP/1.1 200 OK\r\nX: a\0b\r\n" RESULT_LENGTH "\r\n" RESULT;
        _cleanup_asked_ struct asked a = {0};

        raw = answer;
        raw_n = sizeof(answer) - 1;
        raw_closes = true;
        (void)ask_raw(&a, 0);
        assert_says(a.why, "HTTP: its answer is no HTTP");
}

static void repeat(struct web_conn *c, const char *text, unsigned n)
{
        for (unsigned i = 0; i < n && !c->gone; i++)
                web_put(c, text, strlen(text));
}

/* What has no end is cut off at its bound, while it comes. */
static void test_endless(_unused_ void **state)
{
        static const struct {
                const char *begin, *again, *why;
                enum err_code code;
        } cases[] = {
                {"", "HTTP/1.1 103 Early Hints\r\n\r\n", "headers", ERR_LIMIT},
                {"HTTP/1.1 200 ", "OOOOOOOOOOOOOOOOOOOOOOOOO", "headers", ERR_LIMIT},
                {"HTTP/1.1 200 OK\r\nX: ", "xxxxxxxxxxxxxxxxxxxxxxxxx", "headers", ERR_LIMIT},
                {"HTTP/1.1 200 OK\r\n", "X: y\r\n", "headers", ERR_LIMIT},
                {"HTTP/1.1 200 OK\r\n", "xxxxxxxxxxxxxxxxxxxxxxxxx", "headers", ERR_LIMIT},
                {OK(CHUNKED) "2d;", "extension", "a chunk", ERR_UNAVAILABLE},
                {OK(CHUNKED) CHUNKED_REST "0\r\n", "X: trailer\r\n", "a chunk", ERR_UNAVAILABLE},
                {OK(""), "until the connection ends", "its answer is over 65536 bytes", ERR_LIMIT},
                {OK(CHUNKED), "1\r\n \r\n", "its answer is over 65536 bytes", ERR_LIMIT},
                {OK("Content-Length: 99999999999\r\n"), "                         ", "its answer is over 65536 bytes", ERR_LIMIT},
                {OK("Content-Type: text/event-stream\r\n"), "data: x\n", "an event of more than 65537 bytes", ERR_LIMIT},
                {OK("Content-Type: text/event-stream\r\n") "data: ", "x", "an event of more than 65537 bytes", ERR_LIMIT},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_web_ struct web w = {.discover = MODERN, .script = web_hold};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};

                r->config.limits.max_message = 65536;
                web_session_ready(r, &w);
                rig_ask(r, &a, "{}");
                web_wait_held(r, &w);
                web_put(w.held, cases[i].begin, strlen(cases[i].begin));
                repeat(w.held, cases[i].again, 400000 / (unsigned)strlen(cases[i].again));
                rig_wait(r, &a.over);
                assert_says(a.why, cases[i].why);
                assert_int_equal(err_code(a.why), cases[i].code);
                w.script = web_decent;
                rig_ask(r, &b, "{}");
                rig_wait(r, &b.over);
                assert_non_null(b.result);
        }
}

/* -- what is understood -------------------------------------------------------------------------------------------------------------- */

static void test_understood(_unused_ void **state)
{
        static const struct {
                const char *answer;
                unsigned n_conns; /* with that of the next call: 1 = it was used again */
        } cases[] = {
                {OK(RESULT_LENGTH) RESULT, 1},
                {"HTTP/1.1 200\r\n" RESULT_LENGTH "\r\n" RESULT, 1},
                {"HTTP/1.1 200 \r\n" RESULT_LENGTH "\r\n" RESULT, 1},
                {"HTTP/1.1 200 Tr\xc3\xa8s bien\r\n" RESULT_LENGTH "\r\n" RESULT, 1},
                {OK("content-length:45\r\nEmpty:\r\nX:\ta b\t \r\n") RESULT, 1},
                {OK("Content-Length: 0045\r\n") RESULT, 1},
                {OK(RESULT_LENGTH "Connection: close\r\n") RESULT, 2},
                {OK(RESULT_LENGTH "Connection: x, Close\r\n") RESULT, 2},
                {OK(RESULT_LENGTH "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n") RESULT, 1},
                {OK(CHUNKED) CHUNKED_REST "0\r\n\r\n", 1},
                {OK("Transfer-Encoding: Chunked\r\n") "2D\r\n" RESULT "\r\n0\r\n\r\n", 1},
                {OK(CHUNKED) "002d\r\n" RESULT "\r\n00\r\n\r\n", 1},
                {OK(CHUNKED) "2d;a=b\r\n" RESULT "\r\n0;c\r\n\r\n", 1},
                {OK(CHUNKED) "1\r\n{\r\n1\r\n\"\r\n2b\r\njsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":true}}\r\n0\r\n\r\n", 1},
                {OK(CHUNKED) CHUNKED_REST "0\r\nX-Digest: abc\r\nY:\r\n\r\n", 1},
                {"HTTP/1.1 100 Continue\r\n\r\n" OK(RESULT_LENGTH) RESULT, 1},
                {"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" OK(CHUNKED) CHUNKED_REST "0\r\n\r\n", 1},
                {OK("Content-Type: text/event-stream; charset=utf-8\r\n" CHUNKED) "35\r\ndata: " RESULT "\n\n\r\n0\r\n\r\n", 1},
                {OK("Content-Type: Text/Event-Stream\r\n" CHUNKED) "6\r\ndata: \r\n2d\r\n" RESULT "\r\n2\r\n\n\n\r\n0\r\n\r\n", 1},
                {OK("Content-Type: text/event-stream\r\nContent-Length: 53\r\n") "data: " RESULT "\n\n", 1},
                /* bytes behind it: it is not asked again on this connection */
                {OK(RESULT_LENGTH) RESULT "\r\n", 2},
                {OK(RESULT_LENGTH) RESULT OK("Content-Length: 0\r\n"), 2},
                {OK(CHUNKED) CHUNKED_REST "0\r\n\r\nHTTP", 2},
                /* version 1.0 */
                {"HTTP/1.0 200 OK\r\n" RESULT_LENGTH "\r\n" RESULT, 2},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (size_t step = 0; step < 2; step++) {
                        _cleanup_asked_ struct asked a = {0};
                        unsigned n;

                        raw = cases[i].answer;
                        raw_n = strlen(raw);
                        raw_closes = false;
                        n = ask_raw(&a, step);
                        if (!a.result)
                                print_error("%s\n%s\n", raw, err_msg(a.why));
                        assert_string_equal(a.result, "{\"ok\":true}");
                        assert_int_equal(n, cases[i].n_conns);
                }
}

/* The body ends with the connection. */
static void test_until_close(_unused_ void **state)
{
        static const char *const answers[] = {
                "HTTP/1.0 200 OK\r\n\r\n" RESULT,
                "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: " RESULT "\n\n",
                OK("") RESULT,
                OK("Connection: close\r\n") RESULT,
                OK("Content-Type: text/event-stream\r\n") "data: " RESULT "\n\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(answers); i++)
                for (size_t step = 0; step < 2; step++) {
                        _cleanup_asked_ struct asked a = {0};

                        raw = answers[i];
                        raw_n = strlen(raw);
                        raw_closes = true;
                        assert_int_equal(ask_raw(&a, step), 2);
                        assert_string_equal(a.result, "{\"ok\":true}");
                }
}

/* Neither 204 nor 304 have a body, whatever they say of it. */
static void test_no_body(_unused_ void **state)
{
        static const char *const answers[] = {"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n"};

        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                _cleanup_asked_ struct asked a = {0};

                raw = answers[i];
                raw_n = strlen(raw);
                raw_closes = false;
                assert_int_equal(ask_raw(&a, 0), 1);
                assert_non_null(a.why);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_refused),    cmocka_unit_test(test_nul),         cmocka_unit_test(test_endless),
                cmocka_unit_test(test_understood), cmocka_unit_test(test_until_close), cmocka_unit_test(test_no_body),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
