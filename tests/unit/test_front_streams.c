/* Event streams of the HTTP front: that events go out whole and at once, to clients that read; that one who left is noticed. */
#include "tests/unit/test_front_harness.h"

#include <sys/socket.h>
#include <unistd.h>

#define GET "GET /mcp HTTP/1.1\r\nHost: @\r\nAccept: text/event-stream\r\n\r\n"

/* Opens a stream. The exchange is the last one held. */
static int open_stream(struct rig *r, const char *request)
{
        size_t n = r->n_held;
        int fd = rig_dial(r);

        r->serve = serve_stream;
        rig_say(r, fd, request);
        assert_true(rig_until(r, r->n_held == n + 1));
        return fd;
}

static void send_text(struct exchange *x, const char *text)
{
        struct buf b = {0};

        buf_adds(&b, text);
        exchange_send(x, &b);
        assert_null(b.data);
}

/* What arrives until `end` is the last of it; a second at most. Owned. */
static char *hear_until(struct rig *r, int fd, const char *end)
{
        struct buf b = {0};
        char part[65536];

        for (unsigned i = 0; i < 2000 && !(b.data && str_has_suffix(b.data, end)); i++) {
                ssize_t n = recv(fd, part, sizeof(part), 0);
                if (n > 0)
                        buf_add(&b, part, (size_t)n);
                else if (n == 0)
                        break;
                else
                        rig_turn(r);
        }
        return buf_take(&b);
}

static void test_events(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = open_stream(r, GET);
        struct exchange *x = r->held[0];

        /* The headers come before any event. */
        _cleanup_free_ char *head = hear_until(r, fd, "\r\n\r\n");
        assert_true(str_has_prefix(head, "HTTP/1.1 200 OK\r\n"));
        assert_non_null(strstr(head, "Content-Type: text/event-stream\r\n"));
        assert_non_null(strstr(head, "Transfer-Encoding: chunked\r\n"));
        assert_non_null(strstr(head, "Cache-Control: no-cache"));
        assert_true(exchange_is_stream(x));
        assert_string_equal(exchange_path(x), "/mcp");
        assert_string_equal(exchange_header(x, "accept"), "text/event-stream");
        assert_int_equal(rig_counts(r).open_streams, 1);
        assert_int_equal(rig_counts(r).open_exchanges, 0);

        send_text(x, "data: one\n\n");
        _cleanup_free_ char *one = hear_until(r, fd, "\n\n\r\n");
        assert_string_equal(one, "b\r\ndata: one\n\n\r\n");
        send_text(x, "data: 2\n\n");
        send_text(x, "data: 3\n\n");
        exchange_end(x);
        _cleanup_free_ char *rest = hear_until(r, fd, "0\r\n\r\n");
        assert_string_equal(rest, "9\r\ndata: 2\n\n\r\n9\r\ndata: 3\n\n\r\n0\r\n\r\n");
        assert_true(rig_is_closed(r, fd, 500));
        assert_int_equal(r->left, 0);
        close(fd);
        rig_stop(r);
}

static void serve_all_at_once(_unused_ struct rig *r, struct exchange *x)
{
        exchange_add_header(x, "Mcp-Session-Id", "abc");
        exchange_stream(x);
        send_text(x, "data: only\n\n");
        exchange_end(x);
}

/* A client of HTTP/1.0 knows no chunks: the end is the connection's. */
static void test_old_client(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);

        r->serve = serve_all_at_once;
        rig_say(r, fd, "GET /mcp HTTP/1.0\r\nHost: @\r\n\r\n");
        _cleanup_free_ char *all = hear_until(r, fd, "data: only\n\n");
        assert_null(strstr(all, "chunked"));
        assert_non_null(strstr(all, "Mcp-Session-Id: abc\r\n"));
        assert_true(str_has_suffix(all, "\r\n\r\ndata: only\n\n"));
        assert_true(rig_is_closed(r, fd, 500));
        close(fd);
        rig_stop(r);
}

static void test_large_events_in_order(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.max_queued = 64 << 20;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = open_stream(r, "GET /mcp HTTP/1.0\r\nHost: @\r\n\r\n");
        _cleanup_buf_ struct buf expected = {0};
        static const size_t sizes[] = {10, 20000, 3, 5000000, 1, 16384, 16383, 200000, 7};

        _cleanup_free_ char *head = hear_until(r, fd, "\r\n\r\n");

        assert_int_equal(status_of(head), 200);
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                struct buf b = {0};
                for (size_t k = 0; k < sizes[i]; k++)
                        buf_addc(&b, (char)('a' + (i + k) % 26));
                buf_add(&expected, b.data, b.len);
                exchange_send(r->held[0], &b);
        }
        exchange_end(r->held[0]);
        _cleanup_free_ char *all = hear_until(r, fd, "no such end");
        assert_int_equal(strlen(all), expected.len);
        assert_memory_equal(all, expected.data, expected.len);
        close(fd);
        rig_stop(r);
}

static void test_heartbeat(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.heartbeat_ms = 60;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = open_stream(r, GET);

        _cleanup_free_ char *head = hear_until(r, fd, "\r\n\r\n");

        assert_int_equal(status_of(head), 200);
        _cleanup_free_ char *beat = hear_until(r, fd, "\r\n3\r\n:\n\n\r\n");
        assert_string_equal(beat, "3\r\n:\n\n\r\n3\r\n:\n\n\r\n");
        exchange_end(r->held[0]);
        assert_true(rig_is_closed(r, fd, 500));
        close(fd);
        rig_stop(r);
}

static void test_client_leaves(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);

        for (unsigned i = 0; i < 20; i++) {
                int fd = open_stream(r, GET);
                if (i % 3)
                        rig_run(r, 3);
                if (i % 2)
                        shutdown(fd, SHUT_WR);
                else
                        close(fd);
                assert_true(rig_until(r, r->left == i + 1));
                assert_int_equal(rig_counts(r).open_streams, 0);
                if (i % 2)
                        close(fd);
        }
        rig_stop(r);
}

/* Events for a client that does not read wait up to a bound; left() comes later, not from inside exchange_send(). */
static void test_client_does_not_read(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = open_stream(r, GET);
        struct exchange *x = r->held[0];
        unsigned n = 0;

        for (; n < 2000 && rig_counts(r).dropped_slow == 0; n++) {
                struct buf b = {0};
                for (unsigned k = 0; k < 1000; k++)
                        buf_adds(&b, "data: 0123456789abcdef0123456789\n");
                if (n % 2)
                        rig_turn(r);
                exchange_send(x, &b);
        }
        assert_true(n > 2 && n < 2000);
        assert_int_equal(r->left, 0);
        send_text(x, "data: nobody hears this\n\n");
        assert_true(rig_until(r, r->left == 1));
        assert_int_equal(rig_counts(r).dropped_slow, 1);
        close(fd);
        rig_stop(r);
}

/* Clients that each stay below their bound: all of them together have one, too. What the kernel takes for one is half of that at most. */
static void test_clients_do_not_read(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.max_queued = 8 << 20;
        struct rig *r = rig_start(&limits, NULL, NULL);
        struct exchange *all[24];
        int fds[ELEMENTSOF(all)], small = 4096;

        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                fds[i] = open_stream(r, GET);
                all[i] = r->held[i];
                assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
        }
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                struct buf b = {0};

                buf_adds(&b, "data: ");
                buf_reserve(&b, 8000000);
                memset(b.data + b.len, 'x', 8000000);
                b.len += 8000000;
                buf_adds(&b, "\n\n");
                exchange_send(all[i], &b);
                if (i == 3)
                        assert_int_equal(rig_counts(r).dropped_slow, 0);
        }
        /* Nobody is sent a second one for it: at most 64 MiB wait, and one event. */
        assert_true(rig_counts(r).dropped_slow >= ELEMENTSOF(fds) - 64 / 4 - 1);
        assert_int_equal(r->left, 0);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                send_text(all[i], "data: more\n\n");
        /* Who comes last is not who loses. */
        assert_non_null(r->held[ELEMENTSOF(fds) - 1]);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        assert_true(rig_until(r, r->left == ELEMENTSOF(fds)));
        rig_stop(r);
}

static void test_client_stalls(_unused_ void **state)
{
        struct front_limits limits = rig_limits();
        limits.heartbeat_ms = 50;
        limits.max_queued = 64 << 20;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = open_stream(r, GET);
        struct buf b = {0};

        for (unsigned k = 0; k < 2000000; k++)
                buf_adds(&b, "data: 0\n");
        exchange_send(r->held[0], &b);
        assert_true(rig_until(r, r->left == 1));
        assert_int_equal(rig_counts(r).dropped_slow, 1);
        close(fd);
        rig_stop(r);
}

/* What it is sent meanwhile does not make it a client that reads. pause: ms between events. */
static void stall_while_events_come(unsigned pause)
{
        struct front_limits limits = rig_limits();
        limits.heartbeat_ms = 50;
        limits.max_queued = 64 << 20;
        struct rig *r = rig_start(&limits, NULL, NULL);
        int fd = open_stream(r, GET);
        uint64_t end = rig_now_ms() + 3000;
        struct buf b = {0};

        for (unsigned k = 0; k < 2000000; k++)
                buf_adds(&b, "data: 0\n");
        exchange_send(r->held[0], &b);
        while (r->held[0] && rig_now_ms() < end) {
                send_text(r->held[0], "data: x\n\n");
                rig_run(r, pause);
        }
        assert_int_equal(r->left, 1);
        assert_int_equal(rig_counts(r).dropped_slow, 1);
        close(fd);
        rig_stop(r);
}

/* Neither when they come more often than heartbeats. */
static void test_client_stalls_while_events_come(_unused_ void **state)
{
        stall_while_events_come(70);
        stall_while_events_come(20);
}

static void drop_the_other(struct exchange *x, void *user)
{
        struct rig *r = user;

        r->left++;
        if (r->held[0] && r->held[0] != x)
                exchange_end(r->held[0]);
        r->held[0] = NULL;
}

/* left() of one may end another that is due in the same turn. */
static void test_left_ends_another(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int one = open_stream(r, GET), two = open_stream(r, GET);

        for (size_t i = 0; i < 2; i++)
                exchange_on_left(r->held[i], drop_the_other, r);
        close(two);
        rig_run(r, 5);
        close(one);
        assert_true(rig_until(r, rig_counts(r).open_streams == 0));
        assert_int_equal(r->left, 1);
        rig_stop(r);
}

static void test_a_thousand_streams(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fds[1000];

        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                fds[i] = open_stream(r, GET);
                if (i % 100 == 0)
                        rig_run(r, 1);
        }
        assert_int_equal(rig_counts(r).open_connections, 0);
        assert_int_equal(rig_counts(r).open_streams, ELEMENTSOF(fds));
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                send_text(r->held[i], "data: x\n\n");
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                _cleanup_free_ char *a = hear_until(r, fds[i], "data: x\n\n\r\n");
                assert_true(str_has_suffix(a, "9\r\ndata: x\n\n\r\n"));
        }
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                close(fds[i]);
        assert_true(rig_until(r, r->left == ELEMENTSOF(fds)));
        rig_stop(r);
}

/* Bytes behind the request are nobody's: the answer arrives all the same. */
static void test_pipelined_behind_a_stream(_unused_ void **state)
{
        struct rig *r = rig_start(NULL, NULL, NULL);
        int fd = rig_dial(r);

        r->serve = serve_all_at_once;
        rig_say(r, fd, GET GET GET);
        _cleanup_free_ char *all = hear_until(r, fd, "0\r\n\r\n");
        assert_true(str_has_suffix(all, "data: only\n\n\r\n0\r\n\r\n"));
        rig_say(r, fd, GET GET GET);
        assert_true(rig_is_closed(r, fd, 500));
        assert_int_equal(r->requests, 1);
        close(fd);
        rig_stop(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_events),
                cmocka_unit_test(test_old_client),
                cmocka_unit_test(test_large_events_in_order),
                cmocka_unit_test(test_heartbeat),
                cmocka_unit_test(test_client_leaves),
                cmocka_unit_test(test_client_does_not_read),
                cmocka_unit_test(test_clients_do_not_read),
                cmocka_unit_test(test_client_stalls),
                cmocka_unit_test(test_client_stalls_while_events_come),
                cmocka_unit_test(test_left_ends_another),
                cmocka_unit_test(test_a_thousand_streams),
                cmocka_unit_test(test_pipelined_behind_a_stream),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
