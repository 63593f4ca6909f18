/* The HTTP front and bytes: requests cut anywhere, behind each other, and in shapes that another program might read differently. */
#include "tests/unit/test_front_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define POST(headers, body) "POST /mcp HTTP/1.1\r\nHost: @\r\n" headers "\r\n" body
#define GET(path)           "GET " path " HTTP/1.1\r\nHost: @\r\n\r\n"

/* All that comes until nothing has come for 20 ms, or the other side closes. Owned. */
static char *hear_all(struct rig *r, int fd)
{
        struct buf b = {0};
        char part[65536];

        for (unsigned quiet = 0; quiet < 20;) {
                ssize_t n = recv(fd, part, sizeof(part), 0);
                if (n > 0)
                        buf_add(&b, part, (size_t)n);
                else if (n == 0 || errno != EAGAIN)
                        break;
                else
                        rig_turn(r);
                quiet = n > 0 ? 0 : quiet + 1;
        }
        return buf_take(&b);
}

static size_t allocated(void)
{
        struct mallinfo2 m = mallinfo2();

        return m.uordblks + m.hblkhd;
}

static unsigned count_of(const char *text, const char *part)
{
        unsigned n = 0;

        for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
                n++;
        return n;
}

/* -- strictness -------------------------------------------------------------------------------------------------------------- */

/* Each has a second request in it for whoever reads it in another way. Nobody may ever see that one. */
static void test_smuggled_requests(_unused_ void **state)
{
        static const char *const shapes[] = {
                "GET / HTTP/1.1\nHost: @\n\nGET /evil HTTP/1.1\r\nHost: @\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: @\n\r\nGET /evil HTTP/1.1\r\nHost: @\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: @\r\n\nGET /evil HTTP/1.1\r\nHost: @\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: @\r\nX: a\rY: b\r\n\r\n" GET("/evil"),
                "GET / HTTP/1.1\r\nHost: @\r\nX: a\r\n folded\r\n\r\n" GET("/evil"),
                "GET / HTTP/1.1\r\nHost: @\r\n Content-Length: 5\r\n\r\n" GET("/evil"),
                "GET / HTTP/1.1\r\nHost: @\r\n: nameless\r\n\r\n" GET("/evil"),
                POST("Content-Length : 0\r\n", "") GET("/evil"),
                POST("Content-Length: 0\r\nContent-Length: 60\r\n", "") GET("/evil"),
                POST("Content-Length: 0, 0\r\n", "") GET("/evil"),
                POST("Content-Length: 0x0\r\n", "") GET("/evil"),
                POST("Content-Length: +0\r\n", "") GET("/evil"),
                POST("Content-Length:\r\n", "") GET("/evil"),
                POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding : chunked\r\n", "0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding:\x0b chunked\r\n", "0\r\n\r\n") GET("/evil"),
                "POST / HTTP/1.0\r\nHost: @\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "0\n\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "1\nx\r\n0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "1 \r\nx\r\n0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "1;a\nx\r\n0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "1\r\nx\n0\r\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "0\r\nX: y\n\r\n") GET("/evil"),
                POST("Transfer-Encoding: chunked\r\n", "0\r\n\r") GET("/evil"),
        };
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(shapes); i++) {
                int fd = rig_dial(r);

                rig_say(r, fd, shapes[i]);
                _cleanup_free_ char *a = hear_all(r, fd);
                if (status_of(a) != 400 || count_of(a, "HTTP/1.1 ") != 1 || !strstr(a, "Connection: close\r\n"))
                        fail_msg("case %zu: %s: %s", i, shapes[i], a);
                close(fd);
        }
        assert_int_equal(r->requests, 0);
        rig_stop(r);
}

/* What is right with one and with two readers: the second request stands where both see it. */
static void test_second_request_stays_where_it_is(_unused_ void **state)
{
        static const struct {
                const char *request, *one, *two;
        } cases[] = {
                {GET("/a") GET("/b"), "GET /a ", "GET /b "},
                {POST("Content-Length: 7\r\n", "GET / H") GET("/b"), "POST /mcp GET / H", "GET /b "},
                {POST("Transfer-Encoding: chunked\r\n", "5\r\nGET /\r\n0\r\n\r\n") GET("/b"), "POST /mcp GET /", "GET /b "},
                {POST("Content-Length: 2\r\n", "ab") "\r\n" GET("/b"), "POST /mcp ab", "GET /b "},
                {GET("/%41") GET("/b"), "\"}}", "GET /b "},
        };
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                int fd = rig_dial(r);

                rig_say(r, fd, cases[i].request);
                _cleanup_free_ char *all = hear_all(r, fd);
                char *second = strstr(all + 1, "HTTP/1.1 200");
                if (!second || !str_has_suffix(all, cases[i].two))
                        fail_msg("case %zu: %s", i, all);
                *second = '\0';
                assert_true(str_has_suffix(all, cases[i].one));
                close(fd);
        }
        rig_stop(r);
}

/* -- cut anywhere ------------------------------------------------------------------------------------------------------------ */

static void test_one_byte_at_a_time(_unused_ void **state)
{
        static const char text[] =
                "POST /a?q HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
                "POST /b HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"
                "GET /c HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nConnection: close\r\n\r\n";
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_free_ char *request = mem_printf(text, (unsigned)r->port, (unsigned)r->port, (unsigned)r->port);
        size_t n = strlen(request);

        for (size_t step = 1; step < n; step += step < 20 ? 1 : 37) {
                int fd = rig_dial(r);
                for (size_t at = 0; at < n; at += step)
                        rig_say_n(r, fd, request + at, MIN(step, n - at));
                _cleanup_free_ char *all = hear_all(r, fd);
                const char *a = strstr(all, "POST /a hello"), *b = strstr(all, "POST /b abcde"), *c = strstr(all, "GET /c ");
                if (!a || !b || !c || a > b || b > c || count_of(all, "HTTP/1.1 200") != 3)
                        fail_msg("step %zu: %s", step, all);
                assert_true(rig_is_closed(r, fd, 500));
                close(fd);
        }
        rig_stop(r);
}

/* More requests than one connection gets done in a turn, all in one piece: each is answered once, in order. */
static void test_many_pipelined(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_buf_ struct buf text = {0};
        int fd = rig_dial(r), other = rig_dial(r);

        for (unsigned i = 0; i < 500; i++)
                buf_addf(&text, "POST /p%u HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Length: 3\r\n\r\nabc", i, (unsigned)r->port);
        rig_say_n(r, fd, text.data, text.len);
        rig_say(r, other, GET("/other"));
        _cleanup_free_ char *all = hear_all(r, fd), *answer = rig_hear(r, other, 1000);
        const char *at = all;
        for (unsigned i = 0; i < 500; i++) {
                _cleanup_free_ char *expected = mem_printf("POST /p%u abc", i);
                at = strstr(at, expected);
                if (!at)
                        fail_msg("no answer to %u", i);
        }
        assert_int_equal(count_of(all, "HTTP/1.1 200"), 500);
        assert_true(str_has_suffix(answer, "GET /other "));
        close(fd);
        close(other);
        rig_stop(r);
}

/* While one request waits, what is sent behind it waits in the socket: the client is not let to fill our memory. */
static void test_pipelined_is_not_read_ahead(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        static char junk[64 << 10];
        size_t sent = 0;
        int fd = rig_dial(r);

        r->serve = serve_hold;
        rig_say(r, fd, POST("Content-Length: 1\r\n", "x"));
        assert_true(rig_until(r, r->n_held == 1));
        size_t before = allocated();
        memset(junk, 'x', sizeof(junk));
        for (unsigned quiet = 0; quiet < 10; rig_turn(r)) {
                ssize_t n = send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
                quiet = n > 0 ? 0 : quiet + 1;
                sent += n > 0 ? (size_t)n : 0;
        }
        assert_true(sent > sizeof(junk));
        assert_true(allocated() < before + (32 << 10));
        serve_echo(r, r->held[0]);
        _cleanup_free_ char *all = hear_all(r, fd);
        assert_non_null(strstr(all, "POST /mcp x"));
        assert_int_equal(count_of(all, "HTTP/1.1 4"), 1); /* the junk is no request */
        close(fd);
        rig_stop(r);
}

/* -- connections ------------------------------------------------------------------------------------------------------------- */

static void test_which_connections_live_on(_unused_ void **state)
{
        static const struct {
                const char *request, *header;
                bool lives;
        } cases[] = {
                {GET("/"), NULL, true},
                {"GET / HTTP/1.1\r\nHost: @\r\nConnection: x, Close\r\n\r\n", "Connection: close\r\n", false},
                {"GET / HTTP/1.0\r\nHost: @\r\n\r\n", "Connection: close\r\n", false},
                {"GET / HTTP/1.0\r\nHost: @\r\nConnection: Keep-Alive\r\n\r\n", "Connection: keep-alive\r\n", true},
                {POST("Content-Length: 1\r\n", "x"), NULL, true},
                {"PUT / HTTP/1.1\r\nHost: @\r\n\r\n", NULL, true},
                {"PUT / HTTP/1.1\r\nHost: @\r\nContent-Length: 1\r\n\r\nx", "Connection: close\r\n", false},
                {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", NULL, true},
                {"GARBAGE\r\n\r\n", "Connection: close\r\n", false},
        };
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                int fd = rig_dial(r);

                rig_say(r, fd, cases[i].request);
                _cleanup_free_ char *a = hear_all(r, fd);
                if (cases[i].header ? !strstr(a, cases[i].header) : strstr(a, "Connection:") != NULL)
                        fail_msg("case %zu: %s", i, a);
                if (rig_is_closed(r, fd, 30) == cases[i].lives)
                        fail_msg("case %zu: the connection %s", i, cases[i].lives ? "ended" : "lives on");
                close(fd);
        }
        rig_stop(r);
}

/* Who is refused in the middle of what it says, and goes on, hears the answer and then an end, and no reset that could overtake it. */
static void test_refused_while_it_sends(_unused_ void **state)
{
        static const char *const begun[] = {"GARBAGE\r\n", POST("Content-Length: 70000\r\n", ""),
                                            POST("Transfer-Encoding: chunked\r\n", "x"),
                                            POST("Transfer-Encoding: chunked\r\n", "20000\r\n")};
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_buf_ struct buf more = {0};
        char byte;

        while (more.len < 70000)
                buf_adds(&more, "0123456789");
        for (size_t i = 0; i < ELEMENTSOF(begun); i++) {
                int fd = rig_dial(r);

                rig_say(r, fd, begun[i]);
                rig_run(r, 5);
                if (rig_counts(r).refused == i)
                        rig_say_n(r, fd, more.data, more.len);
                _cleanup_free_ char *a = rig_hear(r, fd, 1000);
                assert_true(status_of(a) == 400 || status_of(a) == 413);
                rig_say_n(r, fd, more.data, more.len);
                rig_run(r, 5);
                assert_int_equal(recv(fd, &byte, 1, 0), 0);
                close(fd);
        }
        assert_int_equal(r->requests, 0);
        rig_stop(r);
}

/* But not for ever: there is an end to what is read of it for nothing, before its time is over. */
static void test_refused_and_sends_on(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_free_ char *more = mem_printf("%0100000d", 0);
        uint64_t until = rig_now_ms() + 1500;
        int fd = rig_dial(r);
        ssize_t n = 1;

        rig_say(r, fd, "GARBAGE\r\n");
        _cleanup_free_ char *a = rig_hear(r, fd, 1000);
        assert_int_equal(status_of(a), 400);
        while (n > 0 && rig_now_ms() < until) {
                n = send(fd, more, 100000, MSG_NOSIGNAL);
                if (n < 0 && errno == EAGAIN)
                        n = 1;
                rig_turn(r);
        }
        assert_true(n < 0);
        close(fd);
        rig_stop(r);
}

/* Bytes that come too slowly end it, however regularly they come. */
static void test_dripping_body(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.header_timeout_ms = 100;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = rig_dial(r);
        uint64_t end = rig_now_ms() + 3000;

        rig_say(r, fd, POST("Content-Length: 60000\r\n", ""));
        while (rig_counts(r).dropped_slow == 0 && rig_now_ms() < end) {
                rig_say(r, fd, "a");
                rig_run(r, 5);
        }
        assert_int_equal(rig_counts(r).dropped_slow, 1);
        _cleanup_free_ char *a = rig_hear(r, fd, 1000);
        assert_int_equal(status_of(a), 408);
        close(fd);
        rig_stop(r);
}

/* Bodies that do not come to their end fill the room that there is for all: others have some all the same, and those lose it. */
static void test_bodies_have_a_bound(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        _cleanup_free_ char *most = mem_printf("POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 65536\r\n\r\n%065535d", 0);
        _cleanup_free_ char *whole = mem_printf("%s%d", most, 0), *third = mem_printf(POST("Content-Length: 20000\r\n", "%020000d"), 0);
        int fds[10];
        unsigned refused = 0;

        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                fds[i] = rig_dial(r);
                rig_say(r, fds[i], most);
                rig_run(r, 2);
        }
        for (unsigned i = 0; i < 20; i++) {
                _cleanup_free_ char *a = rig_ask(r, whole), *b = rig_ask(r, third);
                assert_int_equal(status_of(a), 200);
                assert_int_equal(status_of(b), 200);
        }
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                _cleanup_free_ char *a = rig_hear(r, fds[i], 20);
                refused += status_of(a) == 503;
                close(fds[i]);
        }
        /* Room for eight, and one at a time of those that came to their end. */
        assert_int_equal(refused, 3);
        rig_stop(r);
}

/* Some clients send a line end behind a body. It is no request that comes too slowly: no answer to it may be taken for the next one's. */
static void test_line_end_behind_a_body(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.header_timeout_ms = 300;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = rig_dial(r), other = rig_dial(r);

        rig_say(r, fd, POST("Content-Length: 1\r\n", "x") "\r\n");
        rig_say(r, other, POST("Content-Length: 1\r\n", "x") "\r\nG");
        _cleanup_free_ char *a = rig_hear(r, fd, 1000), *b = rig_hear(r, other, 1000);
        assert_int_equal(status_of(a), 200);
        assert_int_equal(status_of(b), 200);
        rig_run(r, 700);
        _cleanup_free_ char *none = hear_all(r, fd), *late = hear_all(r, other);
        assert_string_equal(none, "");
        assert_int_equal(status_of(late), 408);
        close(fd);
        close(other);
        rig_stop(r);
}

static void serve_with_headers(_unused_ struct rig *r, struct exchange *x)
{
        struct buf none = {0};

        exchange_add_header(x, "X-One", "1");
        exchange_add_header(x, "X-Bad", "a\r\nX-Injected: b");
        exchange_add_header(x, "X-Worse\r\nX-Injected", "b");
        exchange_add_header(x, "X-Two", "\t2 \xc3\xa4");
        exchange_answer(x, 202, NULL, &none);
}

static void test_headers_of_answers(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);

        r->serve = serve_with_headers;
        _cleanup_free_ char *a = rig_ask(r, GET("/"));
        assert_true(str_has_prefix(a, "HTTP/1.1 202 Accepted\r\nDate: "));
        assert_non_null(strstr(a, " GMT\r\nContent-Length: 0\r\nX-One: 1\r\nX-Two: \t2 \xc3\xa4\r\n\r\n"));
        assert_null(strstr(a, "Injected"));
        rig_stop(r);
}

/* A connection that is kept costs little while nobody asks anything on it, whatever was asked before. */
static void test_idle_connections_are_small(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        struct rig *r = rig_start(&limits, NULL, NULL);
        _cleanup_buf_ struct buf request = {0};
        int fds[400];

        buf_addf(&request, "POST / HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Length: 60000\r\n\r\n", (unsigned)r->port);
        for (size_t head = request.len; request.len < head + 60000;)
                buf_adds(&request, "0123456789");
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                fds[i] = rig_dial(r);
        assert_true(rig_until(r, rig_counts(r).open_connections == ELEMENTSOF(fds)));
        size_t before = allocated();
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                rig_say_n(r, fds[i], request.data, request.len);
                _cleanup_free_ char *a = rig_hear(r, fds[i], 1000);
                assert_int_equal(status_of(a), 200);
        }
        size_t after = allocated();
        assert_true(after < before + ELEMENTSOF(fds) * 512);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        rig_stop(r);
}

/* So are those with the half of a head in them, of which each client may have as many as it likes. */
static void test_half_heads_are_small(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fds[300];
        size_t before;

        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                fds[i] = rig_dial(r);
        assert_true(rig_until(r, rig_counts(r).open_connections == ELEMENTSOF(fds)));
        before = allocated();
        for (const char *p = "GET"; *p; p++)
                for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                        rig_say_n(r, fds[i], p, 1);
        assert_true(allocated() - before < ELEMENTSOF(fds) * 4096);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        rig_stop(r);
}

/* There is a bound for all of them, which heads that come whole know nothing of. */
static void test_half_heads_have_a_bound(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.max_connections = 10;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fds[6];

        for (unsigned round = 0; round < 3; round++) {
                for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                        fds[i] = rig_dial(r);
                        rig_say(r, fds[i], "GET /half HT");
                }
                _cleanup_free_ char *none = rig_ask(r, "GET /half HT"), *whole = rig_ask(r, GET("/whole"));
                assert_int_equal(status_of(none), 503);
                assert_int_equal(status_of(whole), 200);
                /* The others are all still there: the halves of the round before are no longer counted. */
                assert_true(rig_until(r, rig_counts(r).open_connections == ELEMENTSOF(fds)));
                for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                        if (i % 2)
                                rig_say(r, fds[i], i % 3 ? "TP/1.1\r\nHost: @\r\n\r\n" : "TP nonsense\r\n");
                        close(fds[i]);
                }
                assert_true(rig_until(r, rig_counts(r).open_connections == 0));
        }
        rig_stop(r);
}

/* The last descriptor is taken: clients wait, and we do not spin over them. When there are some again, they are served. */
static void test_no_descriptor_left(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r), last = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        struct rlimit old, none;
        uint64_t before = 0, after = 0;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
        none = (struct rlimit){(rlim_t)last, old.rlim_max};
        close(last);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        assert_int_equal(send(fd, "x", 1, 0), 1);
        assert_true(sd_event_get_iteration(r->loop, &before) >= 0);
        rig_run(r, 60);
        assert_true(sd_event_get_iteration(r->loop, &after) >= 0);
        assert_int_equal(rig_counts(r).connections, 0);
        /* Each turn takes a millisecond when there is nothing to do. */
        assert_true(after - before < 300);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        assert_true(rig_until(r, rig_counts(r).connections == 1));
        close(fd);
        rig_stop(r);
}

/* -- answers that are not read ----------------------------------------------------------------------------------------------- */

static void answer_megabytes(struct exchange *x, size_t n)
{
        struct buf body = {0};

        buf_reserve(&body, n << 20);
        memset(body.data, 'x', n << 20);
        body.len = n << 20;
        body.data[body.len] = '\0';
        exchange_answer(x, 200, "text/plain", &body);
}

static void serve_large(_unused_ struct rig *r, struct exchange *x)
{
        answer_megabytes(x, 8);
}

/* All that do not read share a bound; who reads gets through between them, whole. */
static void test_answers_nobody_reads_have_a_bound(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.max_body = 4 << 20;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fds[24], small = 4096;

        r->serve = serve_large;
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                fds[i] = rig_dial(r);
                assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
                rig_say(r, fds[i], GET("/"));
                assert_true(rig_until(r, r->requests == i + 1));
                if (i == 3)
                        assert_int_equal(rig_counts(r).dropped_slow, 0);
        }
        assert_true(rig_counts(r).dropped_slow >= ELEMENTSOF(fds) - 14);
        _cleanup_free_ char *a = rig_ask(r, GET("/"));
        assert_int_equal(strlen(strstr(a, "\r\n\r\n") + 4), 8 << 20);
        /* The last one to come was not the one to go. */
        assert_false(rig_is_closed(r, fds[ELEMENTSOF(fds) - 1], 1));
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        rig_stop(r);
}

/* It has ended its side after asking, and while the answer was on its way: the answer is whole all the same. */
static void test_half_closed_while_it_reads(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);

        r->serve = serve_large;
        rig_say(r, fd, GET("/"));
        assert_true(rig_until(r, r->requests == 1));
        shutdown(fd, SHUT_WR);
        rig_run(r, 5);
        _cleanup_free_ char *a = rig_hear(r, fd, 5000);
        assert_int_equal(status_of(a), 200);
        assert_int_equal(strlen(strstr(a, "\r\n\r\n") + 4), 8 << 20);
        assert_true(rig_is_closed(r, fd, 500));
        close(fd);
        rig_stop(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_smuggled_requests),
                cmocka_unit_test(test_second_request_stays_where_it_is),
                cmocka_unit_test(test_one_byte_at_a_time),
                cmocka_unit_test(test_many_pipelined),
                cmocka_unit_test(test_pipelined_is_not_read_ahead),
                cmocka_unit_test(test_which_connections_live_on),
                cmocka_unit_test(test_refused_while_it_sends),
                cmocka_unit_test(test_refused_and_sends_on),
                cmocka_unit_test(test_dripping_body),
                cmocka_unit_test(test_line_end_behind_a_body),
                cmocka_unit_test(test_headers_of_answers),
                cmocka_unit_test(test_idle_connections_are_small),
                cmocka_unit_test(test_no_descriptor_left),
                cmocka_unit_test(test_answers_nobody_reads_have_a_bound),
                cmocka_unit_test(test_half_closed_while_it_reads),
                cmocka_unit_test(test_half_heads_are_small),
                cmocka_unit_test(test_bodies_have_a_bound),
                cmocka_unit_test(test_half_heads_have_a_bound),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
