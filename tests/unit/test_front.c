/* The HTTP front: what it answers by itself, what it passes on, and that nothing is left of either. */
#include "tests/unit/test_front_harness.h"

#include <sys/socket.h>
#include <unistd.h>

#define POST(headers, body) "POST /mcp HTTP/1.1\r\nHost: @\r\n" headers "\r\n" body

/* -- good requests ----------------------------------------------------------------------------------------------------------- */

static void test_echo(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_free_ char *a = rig_ask(r, POST("Content-Length: 5\r\n", "hello"));
        _cleanup_free_ char *b = rig_ask(r, "GET /servers/x/mcp?a=b HTTP/1.1\r\nHost: localhost:1\r\nHost: @\r\n\r\n");

        assert_int_equal(status_of(a), 200);
        assert_non_null(strstr(a, "X-Test: yes\r\n"));
        assert_true(str_has_suffix(a, "POST /mcp hello"));
        assert_int_equal(status_of(b), 400);
        rig_stop(r);
}

static void test_forms_of_requests(_unused_ void **state)
{
        static const struct {
                const char *request, *end;
        } cases[] = {
                {"GET /a HTTP/1.1\r\nHost: @\r\n\r\n", "GET /a "},
                {"GET /a?token=x&b=%41 HTTP/1.1\r\nHost: @\r\n\r\n", "GET /a "},
                {"GET /a HTTP/1.1\r\nhOST:   @  \r\n\r\n", "GET /a "},
                {"GET http://@/a/b HTTP/1.1\r\nHost: @\r\n\r\n", "GET /a/b "},
                {"GET http://@ HTTP/1.1\r\nHost: @\r\n\r\n", "GET / "},
                {"\r\nGET /a HTTP/1.1\r\nHost: @\r\n\r\n", "GET /a "},
                {"DELETE /a HTTP/1.0\r\nHost: @\r\n\r\n", "DELETE /a "},
                {POST("Content-Length: 0\r\n", ""), "POST /mcp "},
                {POST("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nX: y\r\n\r\n"),
                 "POST /mcp hello world"},
                {POST("Origin: http://@\r\nContent-Length: 1\r\n", "x"), "POST /mcp x"},
        };
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *a = rig_ask(r, cases[i].request);
                if (status_of(a) != 200 || !str_has_suffix(a, cases[i].end))
                        fail_msg("case %zu: %s", i, a);
        }
        rig_stop(r);
}

static void test_head_has_no_body(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);

        rig_say(r, fd, "HEAD /a HTTP/1.1\r\nHost: @\r\nConnection: close\r\n\r\n");
        _cleanup_free_ char *a = rig_hear(r, fd, 200);
        assert_int_equal(status_of(a), 200);
        assert_non_null(strstr(a, "Content-Length: 8\r\n"));
        assert_true(str_has_suffix(a, "\r\n\r\n"));
        close(fd);
        rig_stop(r);
}

static void test_connection_is_kept(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);

        for (int i = 0; i < 20; i++) {
                rig_say(r, fd, POST("Content-Length: 2\r\n", "ab"));
                _cleanup_free_ char *a = rig_hear(r, fd, 1000);
                assert_true(str_has_suffix(a, "POST /mcp ab"));
        }
        assert_int_equal(rig_counts(r).connections, 1);
        assert_int_equal(rig_counts(r).requests, 20);
        /* A refusal without body does not end it either. */
        rig_say(r, fd, "GET /%41 HTTP/1.1\r\nHost: @\r\n\r\nGET /b HTTP/1.1\r\nHost: @\r\n\r\n");
        _cleanup_free_ char *refused = rig_hear(r, fd, 1000);
        assert_int_equal(status_of(refused), 400);
        close(fd);
        rig_stop(r);
}

static void test_pipelined(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);

        r->serve = serve_hold;
        rig_say(r, fd, POST("Content-Length: 1\r\n", "1") POST("Content-Length: 1\r\n", "2") "GET /c HTTP/1.1\r\nHost: @\r\n\r\n");
        for (size_t i = 0; i < 3; i++) {
                assert_true(rig_until(r, r->n_held == i + 1));
                rig_run(r, 5);
                assert_int_equal(r->n_held, i + 1); /* one at a time */
                serve_echo(r, r->held[i]);
        }
        rig_run(r, 20);
        char all[4096] = "";
        assert_true(recv(fd, all, sizeof(all) - 1, 0) > 0);
        const char *one = strstr(all, "POST /mcp 1"), *two = strstr(all, "POST /mcp 2"), *three = strstr(all, "GET /c ");
        assert_true(one && two && three && one < two && two < three);
        close(fd);
        rig_stop(r);
}

static void test_answered_later(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fds[50];

        r->serve = serve_hold;
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                fds[i] = rig_dial(r);
                rig_say(r, fds[i], POST("Content-Length: 1\r\n", "x"));
        }
        assert_true(rig_until(r, r->n_held == ELEMENTSOF(fds)));
        assert_int_equal(rig_counts(r).open_exchanges, ELEMENTSOF(fds));
        for (size_t i = r->n_held; i-- > 0;)
                serve_echo(r, r->held[i]);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                _cleanup_free_ char *a = rig_hear(r, fds[i], 1000);
                assert_true(str_has_suffix(a, "POST /mcp x"));
                close(fds[i]);
        }
        assert_int_equal(r->left, 0);
        rig_stop(r);
}

/* A request may be the reason to answer others, and is answered itself before, in between or later. */
static void serve_all_held(struct rig *r, struct exchange *x)
{
        if (r->n_held % 2)
                serve_echo(r, x);
        else
                serve_hold(r, x);
        for (size_t i = 0; i < r->n_held; i++)
                serve_echo(r, r->held[i]);
        r->n_held = 0;
}

static void test_answered_from_inside_another(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fds[12];

        for (unsigned round = 0; round < 2; round++) {
                for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                        if (round == 0)
                                fds[i] = rig_dial(r);
                        r->serve = i + 1 < ELEMENTSOF(fds) - round ? serve_hold : serve_all_held;
                        rig_say(r, fds[i], POST("Content-Length: 1\r\n", "x"));
                        assert_true(rig_until(r, r->requests == round * ELEMENTSOF(fds) + i + 1));
                }
                for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                        _cleanup_free_ char *a = rig_hear(r, fds[i], 1000);
                        assert_true(str_has_suffix(a, "POST /mcp x"));
                }
        }
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        rig_stop(r);
}

static void test_large_answer_and_body_taken(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.max_body = 8 << 20;
        struct rig *r = rig_start(&limits, NULL, NULL);
        struct buf request = {0}, body = {0};
        int fd = rig_dial(r);

        r->serve = serve_hold;
        buf_addf(&request, "POST /mcp HTTP/1.1\r\nHost: localhost:%u\r\nContent-Length: %u\r\n\r\n", (unsigned)r->port, 8U << 20);
        size_t head = request.len;
        for (unsigned i = 0; i < (8U << 20) / 8; i++)
                buf_addf(&request, "%08x", i);
        rig_say_n(r, fd, request.data, request.len);
        assert_true(rig_until(r, r->n_held == 1));
        exchange_take_body(r->held[0], &body);
        assert_int_equal(body.len, 8U << 20);
        assert_memory_equal(body.data, request.data + head, body.len);
        exchange_answer(r->held[0], 200, "application/json", &body);
        assert_null(body.data);
        _cleanup_free_ char *a = rig_hear(r, fd, 10000);
        assert_int_equal(strlen(strstr(a, "\r\n\r\n") + 4), 8U << 20);
        buf_deinit(&request);
        close(fd);
        rig_stop(r);
}

static void test_continue(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);
        char interim[64] = "";

        rig_say(r, fd, POST("Expect: 100-continue\r\nContent-Length: 3\r\n", ""));
        assert_true(rig_until(r, recv(fd, interim, sizeof(interim) - 1, 0) > 0));
        assert_true(str_has_prefix(interim, "HTTP/1.1 100 "));
        rig_say(r, fd, "abc");
        _cleanup_free_ char *a = rig_hear(r, fd, 1000);
        assert_true(str_has_suffix(a, "POST /mcp abc"));
        close(fd);
        /* What is refused is refused before the body. */
        _cleanup_free_ char *b = rig_ask(r, POST("Expect: 100-continue\r\nContent-Length: 99999999\r\n", ""));
        assert_int_equal(status_of(b), 413);
        rig_stop(r);
}

/* -- bad requests ------------------------------------------------------------------------------------------------------------ */

static const struct bad {
        unsigned status;
        const char *request;
} bad[] = {
        {400, "GARBAGE\r\n\r\n"},
        {400, "\x16\x03\x01\x02\n\r\n"},
        {400, "GET /\r\n\r\n"},
        {400, "GET / HTTP/x\r\n\r\n"},
        {505, "GET / HTTP/2.0\r\nHost: @\r\n\r\n"},
        {400, "GET /a b HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET /%2e%2e/etc HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET /a/../b HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET /a/. HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET //a HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET a HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET * HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET /a#b HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET /\xc3\xa4 HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET ftp://@/ HTTP/1.1\r\nHost: @\r\n\r\n"},
        {403, "GET http://example.com/ HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, "GET / HTTP/1.0\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: localhost:1\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: @.example.com\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: user@@\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: @\r\nOrigin: http://example.com\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: @\r\nOrigin: null\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: @\r\nOrigin: http://@/\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\nHost: @\r\nOrigin: http://localhost:3000\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nHost: @\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nOrigin: http://@\r\norigin: http://@\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"},
        {400, POST("Content-Type: application/json\r\nContent-Type: application/json\r\nContent-Length: 2\r\n", "{}")},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nno colon here\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nX Y: z\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nX : z\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: @\r\nX: a\x01z\r\n\r\n"},
        {501, "BREW / HTTP/1.1\r\nHost: @\r\n\r\n"},
        {501, "get / HTTP/1.1\r\nHost: @\r\n\r\n"},
        {405, "PUT / HTTP/1.1\r\nHost: @\r\n\r\n"},
        {405, "TRACE / HTTP/1.1\r\nHost: @\r\n\r\n"},
        {400, POST("Content-Length: 1\r\nContent-Length: 1\r\n", "x")},
        {400, POST("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n")},
        {400, POST("Transfer-Encoding: gzip\r\n", "x")},
        {400, POST("Transfer-Encoding: gzip, chunked\r\n", "x")},
        {400, POST("Content-Length: -1\r\n", "x")},
        {400, POST("Content-Length: 1x\r\n", "x")},
        {413, POST("Content-Length: 99999999999999999999999\r\n", "x")},
        {413, POST("Content-Length: 65537\r\n", "x")},
        {413, POST("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n")},
        {400, POST("Transfer-Encoding: chunked\r\n", "zz\r\n")},
        {400, POST("Transfer-Encoding: chunked\r\n", "1\r\nxyz\r\n")},
};

static void test_bad_requests(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                uint64_t refused = rig_counts(r).refused;
                _cleanup_free_ char *a = rig_ask(r, bad[i].request);

                if (status_of(a) != bad[i].status)
                        fail_msg("case %zu: expected %u for %s, got %s", i, bad[i].status, bad[i].request, a);
                assert_true(rig_until(r, rig_counts(r).open_connections == 0));
                assert_int_equal(rig_counts(r).open_exchanges, 0);
                if (rig_counts(r).refused != refused + 1)
                        fail_msg("case %zu is counted %u times", i, (unsigned)(rig_counts(r).refused - refused));
        }
        assert_int_equal(r->requests, 0);
        rig_stop(r);
}

static void add_headers(struct buf *b, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                buf_addf(b, "X-%u: %u\r\n", i, i);
}

static void test_header_bombs(_unused_ void **state)
{
        static const unsigned counts[] = {50, 70, 5000};
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_buf_ struct buf long_path = {0}, long_header = {0};

        for (size_t i = 0; i < ELEMENTSOF(counts); i++) {
                _cleanup_buf_ struct buf b = {0};
                buf_adds(&b, "GET / HTTP/1.1\r\nHost: @\r\n");
                add_headers(&b, counts[i]);
                buf_adds(&b, "\r\n");
                _cleanup_free_ char *a = rig_ask(r, b.data);
                assert_int_equal(status_of(a), i == 0 ? 200 : 431);
        }
        buf_adds(&long_path, "GET /");
        buf_adds(&long_header, "GET / HTTP/1.1\r\nHost: @\r\nX: ");
        for (unsigned i = 0; i < 200000; i++) {
                buf_addc(&long_path, 'a');
                buf_addc(&long_header, 'a');
        }
        _cleanup_free_ char *a = rig_ask(r, long_path.data), *b = rig_ask(r, long_header.data);
        assert_int_equal(status_of(a), 414);
        assert_int_equal(status_of(b), 431);
        rig_stop(r);
}

/* The client sends on and on; it still hears why nobody listens. */
static void test_body_beyond_the_limit(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_buf_ struct buf b = {0};

        buf_adds(&b, POST("Transfer-Encoding: chunked\r\n", ""));
        for (unsigned i = 0; i < 2000; i++) {
                buf_adds(&b, "400\r\n");
                for (unsigned k = 0; k < 1024; k++)
                        buf_addc(&b, 'x');
                buf_adds(&b, "\r\n");
        }
        _cleanup_free_ char *a = rig_ask(r, b.data);
        assert_int_equal(status_of(a), 413);
        assert_int_equal(r->requests, 0);
        rig_stop(r);
}

static void test_half_closed_in_mid_request(_unused_ void **state)
{
        static const char *const parts[] = {"", "GET /", "GET / HTTP/1.1\r\nHo", POST("Content-Length: 10\r\n", "abc"),
                                            POST("Transfer-Encoding: chunked\r\n", "5\r\nab")};
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                int fd = rig_dial(r);
                rig_say(r, fd, parts[i]);
                shutdown(fd, SHUT_WR);
                assert_true(rig_is_closed(r, fd, 1000));
                close(fd);
                assert_true(rig_until(r, rig_counts(r).open_connections == 0));
        }
        assert_int_equal(r->requests, 0);
        rig_stop(r);
}

/* The end comes with the last bytes. What was asked for is answered, where that can be done at once; and nothing is waited for. */
static void test_half_closed_at_once(_unused_ void **state)
{
        static const char get[] = "GET /a HTTP/1.1\r\nHost: localhost:%u\r\n\r\n";
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (unsigned part = 1; part <= 3; part++) {
                int fd = rig_dial(r);
                char text[128];
                int n = snprintf(text, sizeof(text), get, (unsigned)r->port);

                if (part == 2)
                        rig_run(r, 3);
                r->serve = part == 3 ? serve_hold : serve_echo;
                assert_int_equal(send(fd, text, (size_t)(part == 1 ? 20 : n), 0), part == 1 ? 20 : n);
                shutdown(fd, SHUT_WR);
                _cleanup_free_ char *a = rig_hear(r, fd, 1000);
                assert_int_equal(status_of(a), part == 2 ? 200 : 0);
                assert_true(rig_is_closed(r, fd, 500));
                close(fd);
                assert_true(rig_until(r, rig_counts(r).open_connections == 0));
        }
        assert_int_equal(r->requests, 2);
        assert_int_equal(r->left, 1);
        rig_stop(r);
}

/* -- tokens ------------------------------------------------------------------------------------------------------------------ */

static void test_token(_unused_ void **state)
{
        static const struct {
                unsigned status;
                const char *request;
        } cases[] = {
                {200, "GET /a HTTP/1.1\r\nHost: @\r\nAuthorization: Bearer secret\r\n\r\n"},
                {200, "GET /a HTTP/1.1\r\nHost: @\r\nAuthorization: bearer  secret \r\n\r\n"},
                {401, "GET /a HTTP/1.1\r\nHost: @\r\n\r\n"},
                {401, "GET /a HTTP/1.1\r\nHost: @\r\nAuthorization: Bearer Secret\r\n\r\n"},
                {401, "GET /a HTTP/1.1\r\nHost: @\r\nAuthorization: Bearer \r\n\r\n"},
                {401, "GET /a HTTP/1.1\r\nHost: @\r\nAuthorization: Basic secret\r\n\r\n"},
                {401, "GET /a?access_token=secret HTTP/1.1\r\nHost: @\r\n\r\n"},
                {401, POST("Content-Length: 12\r\n", "access_token")},
                {400, "GET /a HTTP/1.1\r\nHost: @\r\nAuthorization: Bearer secret\r\nAuthorization: Bearer secret\r\n\r\n"},
                {403, "GET /a HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer secret\r\n\r\n"},
                {200, "GET /healthz HTTP/1.1\r\nHost: @\r\n\r\n"},
                {200, "GET /readyz HTTP/1.1\r\nHost: @\r\n\r\n"},
                {401, "GET /metrics HTTP/1.1\r\nHost: @\r\n\r\n"},
                {401, "GET /healthz/x HTTP/1.1\r\nHost: @\r\n\r\n"},
        };
        struct rig *r = rig_start(NULL, "secret", NULL);
        struct err *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *a = rig_ask(r, cases[i].request);
                if (status_of(a) != cases[i].status)
                        fail_msg("case %zu: %s", i, a);
                assert_true((cases[i].status == 401) == (strstr(a, "WWW-Authenticate: Bearer\r\n") != NULL));
        }
        assert_fails(front_set_token(r->front, "secret", &err), "64 lower-case hexadecimal digits");
        assert_ok(front_set_token(r->front, "0000000000000000000000000000000000000000000000000000000000000000", &err));
        _cleanup_free_ char *old = rig_ask(r, cases[0].request);
        assert_int_equal(status_of(old), 401);
        rig_stop(r);
}

static void test_configured_hosts(_unused_ void **state)
{
        char one[] = "gate.example", two[] = "other.example:99", three[] = "a b";
        char *const hosts[] = {one, two, NULL}, *const wrong[] = {three, NULL};
        static const struct {
                unsigned status;
                const char *request;
        } cases[] = {
                {200, "GET /a HTTP/1.1\r\nHost: gate.example\r\n\r\n"},
                {200, "GET /a HTTP/1.1\r\nHost: GATE.example:8443\r\nOrigin: https://gate.example\r\n\r\n"},
                {200, "GET /a HTTP/1.1\r\nHost: other.example:99\r\n\r\n"},
                {403, "GET /a HTTP/1.1\r\nHost: other.example\r\n\r\n"},
                {403, "GET /a HTTP/1.1\r\nHost: notgate.example\r\n\r\n"},
                {200, "GET /a HTTP/1.1\r\nHost: @\r\n\r\n"},
        };
        struct rig *r = rig_start(NULL, NULL, hosts);
        struct front_config config = {
                .name = "test", .address = "127.0.0.1", .listen_fd = -1, .allowed_hosts = wrong, .limits = rig_limits()};
        struct front *f = NULL;
        struct err *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *a = rig_ask(r, cases[i].request);
                if (status_of(a) != cases[i].status)
                        fail_msg("case %zu: %s", i, a);
        }
        assert_fails(front_new(&f, r->loop, &config, NULL, NULL, &err), "no host name");
        config.allowed_hosts = NULL;
        config.port = r->port;
        assert_fails(front_new(&f, r->loop, &config, NULL, NULL, &err), "Address already in use");
        config.address = "localhost";
        assert_fails(front_new(&f, r->loop, &config, NULL, NULL, &err), "no IP address");
        rig_stop(r);
}

/* -- slow and many ----------------------------------------------------------------------------------------------------------- */

static void test_slow_clients(_unused_ void **state)
{
        static const struct {
                const char *begin, *drip;
                unsigned status;
        } cases[] = {
                {"", "", 0},
                {"G", "E", 408},
                {"GET / HTTP/1.1\r\nHost: @\r\n", "X: y\r\n", 408},
                {POST("Content-Length: 100\r\n", ""), "a", 408},
                {POST("Transfer-Encoding: chunked\r\n", ""), "1\r\nx\r\n", 408},
        };
        struct front_limits limits = rig_limits();
        limits.header_timeout_ms = 150;
        struct rig *r = rig_start(&limits, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                int fd = rig_dial(r);
                rig_say(r, fd, cases[i].begin);
                /* Its time does not begin again with every byte: it is over while bytes still come. */
                for (unsigned k = 0; k < 50 && rig_counts(r).dropped_slow == i; k++) {
                        rig_say(r, fd, cases[i].drip);
                        rig_run(r, 20);
                }
                assert_int_equal(rig_counts(r).dropped_slow, i + 1);
                _cleanup_free_ char *a = rig_hear(r, fd, 500);
                if (status_of(a) != cases[i].status)
                        fail_msg("case %zu: %s", i, a);
                assert_true(rig_is_closed(r, fd, 500));
                close(fd);
        }
        assert_int_equal(rig_counts(r).dropped_slow, ELEMENTSOF(cases));
        assert_int_equal(r->requests, 0);
        rig_stop(r);
}

static void test_idle_connection_ends(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.idle_timeout_ms = 100;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = rig_dial(r);

        rig_say(r, fd, POST("Content-Length: 1\r\n", "x"));
        _cleanup_free_ char *a = rig_hear(r, fd, 1000);
        assert_int_equal(status_of(a), 200);
        assert_false(rig_is_closed(r, fd, 50));
        assert_true(rig_is_closed(r, fd, 500));
        close(fd);
        rig_stop(r);
}

static void test_client_that_does_not_read(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.header_timeout_ms = 100;
        struct rig *r = rig_start(&limits, NULL, NULL);
        struct buf body = {0};
        int fd = rig_dial(r);

        r->serve = serve_hold;
        rig_say(r, fd, "GET / HTTP/1.1\r\nHost: @\r\n\r\n");
        assert_true(rig_until(r, r->n_held == 1));
        for (unsigned i = 0; i < (16U << 20) / 16; i++)
                buf_adds(&body, "0123456789abcdef");
        exchange_answer(r->held[0], 200, "text/plain", &body);
        assert_true(rig_until(r, rig_counts(r).open_connections == 0));
        assert_int_equal(rig_counts(r).dropped_slow, 1);
        close(fd);
        rig_stop(r);
}

/* Of one address, or of all together. */
static void test_too_many(_unused_ void **state)
{
        for (int all = 0; all < 2; all++) {
                struct front_limits limits = rig_limits();
                *(all ? &limits.max_connections : &limits.max_per_address) = 3;
                struct rig *r = rig_start(&limits, NULL, NULL);
                int fds[3];

                for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                        fds[i] = rig_dial(r);
                assert_true(rig_until(r, rig_counts(r).open_connections == 3));
                int more = rig_dial(r);
                assert_true(rig_is_closed(r, more, 500));
                close(more);
                close(fds[0]);
                assert_true(rig_until(r, rig_counts(r).open_connections == 2));
                _cleanup_free_ char *a = rig_ask(r, "GET / HTTP/1.1\r\nHost: @\r\n\r\n");
                assert_int_equal(status_of(a), 200);
                close(fds[1]);
                close(fds[2]);
                rig_stop(r);
        }
}

/* -- leaving ----------------------------------------------------------------------------------------------------------------- */

static void test_left_is_told_once(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);

        r->serve = serve_hold;
        for (unsigned i = 0; i < 20; i++) {
                int fd = rig_dial(r);
                rig_say(r, fd, POST("Content-Length: 1\r\n", "x"));
                assert_true(rig_until(r, r->n_held == i + 1));
                if (i % 2)
                        shutdown(fd, SHUT_WR);
                else
                        close(fd);
                assert_true(rig_until(r, r->left == i + 1));
                assert_true(rig_until(r, rig_counts(r).open_exchanges == 0));
                if (i % 2) {
                        assert_true(rig_is_closed(r, fd, 500));
                        close(fd);
                }
        }
        rig_stop(r);
}

static void test_front_goes_away(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        struct buf body = {0};
        int fds[4];

        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                r->serve = i == 0 ? serve_stream : serve_hold;
                fds[i] = rig_dial(r);
                rig_say(r, fds[i], POST("Content-Length: 1\r\n", "x"));
                assert_true(rig_until(r, r->n_held == i + 1));
        }
        buf_adds(&body, "last words");
        exchange_answer(r->held[3], 503, "text/plain", &body);
        r->front = front_free(r->front);
        assert_int_equal(r->left, 3);
        char all[1024] = "";
        assert_true(recv(fds[3], all, sizeof(all) - 1, 0) > 0);
        assert_true(str_has_suffix(all, "last words"));
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        sd_event_unref(r->loop);
        free(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_echo),
                cmocka_unit_test(test_forms_of_requests),
                cmocka_unit_test(test_head_has_no_body),
                cmocka_unit_test(test_connection_is_kept),
                cmocka_unit_test(test_pipelined),
                cmocka_unit_test(test_answered_later),
                cmocka_unit_test(test_answered_from_inside_another),
                cmocka_unit_test(test_large_answer_and_body_taken),
                cmocka_unit_test(test_continue),
                cmocka_unit_test(test_bad_requests),
                cmocka_unit_test(test_header_bombs),
                cmocka_unit_test(test_body_beyond_the_limit),
                cmocka_unit_test(test_half_closed_in_mid_request),
                cmocka_unit_test(test_half_closed_at_once),
                cmocka_unit_test(test_token),
                cmocka_unit_test(test_configured_hosts),
                cmocka_unit_test(test_slow_clients),
                cmocka_unit_test(test_idle_connection_ends),
                cmocka_unit_test(test_client_that_does_not_read),
                cmocka_unit_test(test_too_many),
                cmocka_unit_test(test_left_is_told_once),
                cmocka_unit_test(test_front_goes_away),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
