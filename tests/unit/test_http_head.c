/* Heads of HTTP messages: what is read of good ones, that bad ones are refused for their own reason, and that cutting changes nothing. */
#include "tests/unit/test.h"

#include <time.h>

#include "common/http/head.h"

#define MAX_HEAD 4096U

/* A head read in one piece, or in pieces of `step` bytes, each time at another address. */
static int read_cut(struct http_head *h, enum http_kind kind, const char *text, size_t step, enum http_fault *fault)
{
        size_t n = strlen(text);
        int r = 0;

        http_head_init(h, kind, MAX_HEAD);
        for (size_t have = step ? MIN(step, n) : n; r == 0; have = MIN(have + step, n)) {
                _cleanup_free_ char *copy = mem_dup(text, have + 1);

                r = http_head_read(h, copy, have, fault);
                if (have == n)
                        break;
        }
        return r;
}

static bool span_is(const char *text, struct http_span s, const char *expected)
{
        return s.n == strlen(expected) && memcmp(text + s.at, expected, s.n) == 0;
}

static void test_request(_unused_ void **state)
{
        static const char text[] =
                "POST /servers/x/mcp?a=b HTTP/1.1\r\nHost: localhost:8080\r\nX-Any:\r\nAccept:\t a, b \r\ncontent-LENGTH: 5\r\n"
                "x-any: 2\r\nMcp-Session-Id: s\r\n\r\nhello";

        for (size_t step = 0; step < sizeof(text); step++) {
                struct http_head h;
                enum http_fault fault;
                enum http_framing framing;
                uint64_t length;

                assert_int_equal(read_cut(&h, HTTP_REQUEST, text, step, &fault), 1);
                assert_int_equal(h.size, sizeof(text) - 1 - 5);
                assert_int_equal(h.minor, 1);
                assert_int_equal(h.n_fields, 6);
                assert_true(span_is(text, h.method, "POST"));
                assert_true(span_is(text, h.target, "/servers/x/mcp?a=b"));
                assert_true(span_is(text, http_head_known(&h, HTTP_ACCEPT)->value, "a, b"));
                assert_true(span_is(text, http_head_find(&h, text, "ACCEPT")->value, "a, b"));
                assert_true(span_is(text, http_head_find(&h, text, "X-ANY")->value, ""));
                assert_int_equal(http_head_count(&h, text, "x-any"), 2);
                assert_int_equal(http_head_count(&h, text, "mcp-session-id"), 1);
                assert_int_equal(http_head_count(&h, text, "x-an"), 0);
                assert_null(http_head_known(&h, HTTP_ORIGIN));
                assert_null(http_head_find(&h, text, "Mcp-Session-I"));
                assert_int_equal(http_head_framing(&h, text, false, &framing, &length, &fault), 0);
                assert_int_equal(framing, HTTP_SIZED);
                assert_int_equal(length, 5);
                assert_true(http_head_persists(&h, text));
        }
}

static void test_response(_unused_ void **state)
{
        static const struct {
                const char *text;
                unsigned status;
                const char *reason;
                bool bodiless;
                enum http_framing framing;
        } cases[] = {
                {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 200, "OK", false, HTTP_SIZED},
                {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 200, "OK", true, HTTP_NO_BODY},
                {"HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", 200, "", false, HTTP_CHUNKED},
                {"HTTP/1.1 599\r\n\r\n", 599, "", false, HTTP_UNTIL_CLOSE},
                {"HTTP/1.0 404 Not  Found \xc3\xa4\r\n\r\n", 404, "Not  Found \xc3\xa4", false, HTTP_UNTIL_CLOSE},
                {"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", 204, "No Content", false, HTTP_NO_BODY},
                {"HTTP/1.1 304 x\r\n\r\n", 304, "x", false, HTTP_NO_BODY},
                {"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n", 101, "UPGRADED", false, HTTP_NO_BODY},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                struct http_head h;
                enum http_fault fault;
                enum http_framing framing;
                uint64_t length;

                assert_int_equal(read_cut(&h, HTTP_RESPONSE, cases[i].text, i, &fault), 1);
                assert_int_equal(h.status, cases[i].status);
                assert_true(span_is(cases[i].text, h.reason, cases[i].reason));
                assert_int_equal(http_head_framing(&h, cases[i].text, cases[i].bodiless, &framing, &length, &fault), 0);
                assert_int_equal(framing, cases[i].framing);
                assert_int_equal(length, framing == HTTP_SIZED ? 7 : 0);
        }
}

#define LINE "GET / HTTP/1.1\r\n"

static const struct bad {
        enum http_fault fault;
        enum http_kind kind;
        const char *text;
} bad[] = {
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "\x16\x03\x01"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, " GET / HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GARBAGE\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET /\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET / \r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET  / HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET  HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET /  HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET\t/ HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET / HTTP/1.1 \r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET /a b HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET /\xc3\xa4 HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "G(T / HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET / http/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET / HTTP/1.11\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "GET / HTTP/x\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_REQUEST, "\r\n\r\nGET / HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "\r\nHTTP/1.1 200 OK\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP/1.1 20 OK\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP/1.1 2000\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP/1.1 099 OK\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP/1.1 600 OK\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP/1.1  200 OK\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP/1.1 200 O\x01K\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "ICY 200 OK\r\n\r\n"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "SSH-2.0-x"},
        {HTTP_FAULT_START_LINE, HTTP_RESPONSE, "HTTP\r"},
        {HTTP_FAULT_VERSION, HTTP_REQUEST, "GET / HTTP/2.0\r\n\r\n"},
        {HTTP_FAULT_VERSION, HTTP_REQUEST, "GET / HTTP/1.2\r\n\r\n"},
        {HTTP_FAULT_VERSION, HTTP_REQUEST, "GET / HTTP/0.9\r\n\r\n"},
        {HTTP_FAULT_VERSION, HTTP_RESPONSE, "HTTP/3.0 200 OK\r\n\r\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, "GET / HTTP/1.1\nHost: x\n\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, "\nGET / HTTP/1.1\r\n\r\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, LINE "Host: x\n\r\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, LINE "Host: x\r\n\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, LINE "X: a\nHost: x\r\n\r\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, LINE "X: a\rHost: x\r\n\r\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, LINE "X: a\r\r\n\r\n"},
        {HTTP_FAULT_LINE_END, HTTP_REQUEST, "GET / HTTP/1.1\rHost: x\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X: a\r\n b\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X: a\r\n\tb: c\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE " X: a\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X : a\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X\t: a\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X Y: a\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "no colon here\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "none\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE ": a\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X\xc3\xa4: a\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X: a\x01\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X: a\x7f\r\n\r\n"},
        {HTTP_FAULT_FIELD, HTTP_REQUEST, LINE "X: a\x0b\r\n\r\n"},
};

static void test_bad_heads(_unused_ void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                for (size_t step = 0; step < 3; step++) {
                        enum http_fault fault = HTTP_FAULT_NONE;
                        struct http_head h;

                        if (read_cut(&h, bad[i].kind, bad[i].text, step, &fault) != -1 || fault != bad[i].fault)
                                fail_msg("case %zu, step %zu: %s: %s", i, step, bad[i].text, http_fault_text(fault));
                }
}

static void test_nul(_unused_ void **state)
{
        static const char where[] = "GET /a HTTP/1.1\r\nName: value\r\n\r\n";

        for (size_t i = 0; i < sizeof(where) - 1; i++) {
                enum http_fault fault = HTTP_FAULT_NONE;
                struct http_head h;
                char text[sizeof(where)];

                memcpy(text, where, sizeof(where));
                text[i] = '\0';
                http_head_init(&h, HTTP_REQUEST, MAX_HEAD);
                assert_true(http_head_read(&h, text, sizeof(text) - 1, &fault) != 1);
        }
}

static void test_bounds(_unused_ void **state)
{
        _cleanup_buf_ struct buf line = {0}, few = {0}, many = {0}, large = {0};
        enum http_fault fault;
        struct http_head h;

        buf_adds(&few, LINE);
        for (unsigned i = 0; i < HTTP_MAX_FIELDS; i++)
                buf_adds(&few, "X: y\r\n");
        buf_add(&many, few.data, few.len);
        buf_adds(&few, "\r\n");
        buf_adds(&many, "X: y\r\n\r\n");
        buf_adds(&line, "GET /");
        buf_adds(&large, LINE "X: ");
        while (large.len < MAX_HEAD - 4)
                buf_addc(&large, 'a');
        while (line.len < MAX_HEAD + 1)
                buf_addc(&line, 'a');
        for (size_t step = 0; step < 3; step++) {
                assert_int_equal(read_cut(&h, HTTP_REQUEST, few.data, step, &fault), 1);
                assert_int_equal(read_cut(&h, HTTP_REQUEST, many.data, step, &fault), -1);
                assert_int_equal(http_fault_status(fault), 431);
                assert_int_equal(read_cut(&h, HTTP_REQUEST, line.data, step, &fault), -1);
                assert_int_equal(http_fault_status(fault), 414);
        }
        for (unsigned more = 0; more < 2; more++) {
                _cleanup_buf_ struct buf text = {0};

                buf_adds(&text, large.data);
                buf_adds(&text, more ? "a\r\n\r\n" : "\r\n\r\n");
                assert_int_equal(text.len, MAX_HEAD + more);
                assert_int_equal(read_cut(&h, HTTP_REQUEST, text.data, 1000, &fault), more ? -1 : 1);
                if (more)
                        assert_int_equal(http_fault_status(fault), 431);
        }
}

static void test_framing(_unused_ void **state)
{
        static const struct {
                const char *fields;
                int r;
                enum http_framing framing;
                uint64_t length;
                enum http_fault fault;
        } cases[] = {
                {"", 0, HTTP_NO_BODY, 0, 0},
                {"Content-Length: 0\r\n", 0, HTTP_SIZED, 0, 0},
                {"Content-Length: 0018\r\n", 0, HTTP_SIZED, 18, 0},
                {"Content-Length: 18446744073709551615\r\n", 0, HTTP_SIZED, UINT64_MAX, 0},
                {"Content-Length: 18446744073709551616\r\n", -1, 0, 0, HTTP_FAULT_BODY_SIZE},
                {"Content-Length: 99999999999999999999999999999\r\n", -1, 0, 0, HTTP_FAULT_BODY_SIZE},
                {"Content-Length: 1\r\nContent-Length: 1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: 1\r\nContent-Length: 2\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: 1, 1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: \r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: -1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: +1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: 0x1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: 1 1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Content-Length: 99999999999999999999999999999x\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: chunked\r\n", 0, HTTP_CHUNKED, 0, 0},
                {"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: gzip, chunked\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: chunked, chunked\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: xchunked\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: \"chunked\"\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: chunked;q=1\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding:\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
                {"Transfer-Encoding: identity\r\n", -1, 0, 0, HTTP_FAULT_LENGTH},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (unsigned minor = 0; minor < 2; minor++) {
                        _cleanup_free_ char *text = mem_printf("POST / HTTP/1.%u\r\n%s\r\n", minor, cases[i].fields);
                        enum http_fault fault = HTTP_FAULT_NONE;
                        enum http_framing framing;
                        struct http_head h;
                        uint64_t length;
                        bool refused = cases[i].r < 0 || (minor == 0 && cases[i].framing == HTTP_CHUNKED);

                        assert_int_equal(read_cut(&h, HTTP_REQUEST, text, 0, &fault), 1);
                        int r = http_head_framing(&h, text, false, &framing, &length, &fault);
                        if ((r < 0) != refused || (r == 0 && (framing != cases[i].framing || length != cases[i].length)) ||
                            (cases[i].r < 0 && fault != cases[i].fault))
                                fail_msg("case %zu: %d, %s", i, r, http_fault_text(fault));
                }
}

static void test_persistence(_unused_ void **state)
{
        static const struct {
                const char *fields;
                bool persists[2]; /* HTTP/1.0, HTTP/1.1 */
        } cases[] = {
                {"", {false, true}},
                {"Connection: close\r\n", {false, false}},
                {"Connection: keep-alive\r\n", {true, true}},
                {"Connection: Keep-Alive\r\nX: y\r\nconnection: foo ,\tClose\r\n", {false, false}},
                {"Connection: closed\r\n", {false, true}},
                {"Connection:\r\n", {false, true}},
                {"Connection: ,, keep-alive,\r\n", {true, true}},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (unsigned minor = 0; minor < 2; minor++) {
                        _cleanup_free_ char *text = mem_printf("GET / HTTP/1.%u\r\n%s\r\n", minor, cases[i].fields);
                        enum http_fault fault;
                        struct http_head h;

                        assert_int_equal(read_cut(&h, HTTP_REQUEST, text, 0, &fault), 1);
                        if (http_head_persists(&h, text) != cases[i].persists[minor])
                                fail_msg("case %zu, HTTP/1.%u", i, minor);
                }
}

static void test_terminate(_unused_ void **state)
{
        char text[] = "POST /a?b HTTP/1.1\r\nHost:  h \r\nX:\r\nY: z\r\n\r\nbody";
        enum http_fault fault;
        struct http_head h;

        http_head_init(&h, HTTP_REQUEST, MAX_HEAD);
        assert_int_equal(http_head_read(&h, text, sizeof(text) - 1, &fault), 1);
        http_head_terminate(&h, text);
        assert_string_equal(text + h.method.at, "POST");
        assert_string_equal(text + h.target.at, "/a?b");
        assert_string_equal(text + http_head_known(&h, HTTP_HOST)->value.at, "h");
        assert_string_equal(text + http_head_find(&h, text, "x")->value.at, "");
        assert_string_equal(text + http_head_find(&h, text, "Y")->name.at, "Y");
        assert_string_equal(text + http_head_find(&h, text, "Y")->value.at, "z");
        assert_string_equal(text + h.size, "body");
}

/* A name that is known is found by it, whatever it looks like; all others, even one letter off, are not taken for it. */
static void test_known_names(_unused_ void **state)
{
        static const char *const names[] = {
                "Accept", "Authorization", "Connection",        "Content-Encoding", "Content-Length",       "Content-Type",
                "Expect", "Host",          "Mcp-Method",        "Mcp-Name",         "Mcp-Protocol-Version", "Mcp-Session-Id",
                "Origin", "Retry-After",   "Transfer-Encoding", "Upgrade"};

        assert_int_equal(ELEMENTSOF(names), HTTP_N_KNOWN);
        for (unsigned known = 0; known < HTTP_N_KNOWN; known++)
                for (size_t i = 0; i <= strlen(names[known]); i++) {
                        _cleanup_free_ char *text = mem_printf("GET / HTTP/1.1\r\n%s: v\r\n\r\n", names[known]);
                        enum http_fault fault;
                        struct http_head h;
                        bool whole = i == strlen(names[known]);

                        if (!whole)
                                text[16 + i] = text[16 + i] == '-' ? '_' : '~';
                        assert_int_equal(read_cut(&h, HTTP_REQUEST, text, 0, &fault), 1);
                        for (unsigned k = 0; k < HTTP_N_KNOWN; k++)
                                assert_int_equal(h.count[k], whole && k == known);
                }
}

/* A byte at a time must not cost the square of their number. */
static void test_cost_of_single_bytes(_unused_ void **state)
{
        static char text[256 << 10];
        enum http_fault fault;
        struct http_head h;
        struct timespec t[3];

        memset(text, 'a', sizeof(text));
        memcpy(text, LINE "X: ", strlen(LINE) + 3);
        http_head_init(&h, HTTP_REQUEST, sizeof(text));
        for (size_t n = 1; n <= sizeof(text); n++)
                assert_int_equal(http_head_read(&h, text, n, &fault), 0);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t[0]);
        for (unsigned i = 0; i < 2; i++) {
                size_t size = i ? sizeof(text) : sizeof(text) / 8;
                http_head_init(&h, HTTP_REQUEST, sizeof(text));
                for (size_t n = 1; n <= size; n++)
                        assert_int_equal(http_head_read(&h, text, n, &fault), 0);
                clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t[i + 1]);
        }
        double few = (double)(t[1].tv_sec - t[0].tv_sec) * 1e9 + (double)(t[1].tv_nsec - t[0].tv_nsec);
        double many = (double)(t[2].tv_sec - t[1].tv_sec) * 1e9 + (double)(t[2].tv_nsec - t[1].tv_nsec);
        assert_true(many < few * 32); /* 8 times as many: 8, or 64 */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_request),     cmocka_unit_test(test_response),
                cmocka_unit_test(test_bad_heads),   cmocka_unit_test(test_nul),
                cmocka_unit_test(test_bounds),      cmocka_unit_test(test_framing),
                cmocka_unit_test(test_persistence), cmocka_unit_test(test_terminate),
                cmocka_unit_test(test_known_names), cmocka_unit_test(test_cost_of_single_bytes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
