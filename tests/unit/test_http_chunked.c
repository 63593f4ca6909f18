/* The chunked coding: bodies come out whole however they are cut, and nothing that two readers could see differently passes. */
#include "tests/unit/test.h"

#include "common/http/chunked.h"

/* 1: the body is over, *rest bytes are behind it; 0: more is needed; -1. body: what came out. */
static int read_cut(const char *text, size_t step, struct buf *body, size_t *rest, enum http_fault *fault)
{
        struct http_chunked c = {0};
        size_t n = strlen(text), at = 0;

        while (at < n) {
                size_t end = step ? MIN(at + step, n) : n, used = 0, data_n = 0;
                const char *data = NULL;
                int r = http_chunked_read(&c, text + at, end - at, &used, &data, &data_n, fault);

                if (r < 0)
                        return -1;
                assert_true(used <= end - at);
                at += used;
                if (r == HTTP_CHUNKED_DATA) {
                        assert_true(data_n > 0 && data + data_n == text + at);
                        buf_add(body, data, data_n);
                } else if (r == HTTP_CHUNKED_END) {
                        *rest = n - at;
                        return 1;
                } else {
                        assert_true(at == end);
                }
        }
        return 0;
}

static void test_good(_unused_ void **state)
{
        static const struct {
                const char *text, *body;
                int r;
                size_t rest;
        } cases[] = {
                {"0\r\n\r\n", "", 1, 0},
                {"5\r\nhello\r\n0\r\n\r\nGET", "hello", 1, 3},
                {"5\r\nhello\r\n1;x=y\r\n \r\n05\r\nworld\r\n000\r\nX: y\r\nZ:\r\n\r\n", "hello world", 1, 0},
                {"A;a=\"b;c\"\r\n0123456789\r\na\r\n0\r\n\r\n56789\r\n0\r\n\r\n", "01234567890\r\n\r\n56789", 1, 0},
                {"3\r\nabc\r\n0\r\n", "abc", 0, 0},
                {"ffffffffffffffff\r\nabc", "abc", 0, 0},
                {"5\r\nab", "ab", 0, 0},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (size_t step = 0; step <= strlen(cases[i].text); step++) {
                        _cleanup_buf_ struct buf body = {0};
                        enum http_fault fault = HTTP_FAULT_NONE;
                        size_t rest = 0;

                        int r = read_cut(cases[i].text, step, &body, &rest, &fault);
                        if (r != cases[i].r || rest != cases[i].rest || !str_eq(body.data ? body.data : "", cases[i].body))
                                fail_msg("case %zu, step %zu: %d, %zu, %s", i, step, r, rest, body.data);
                }
}

static void test_bad(_unused_ void **state)
{
        static const struct {
                const char *text;
                enum http_fault fault;
        } cases[] = {
                {"\r\n", HTTP_FAULT_CHUNK},
                {";x\r\n", HTTP_FAULT_CHUNK},
                {"zz\r\n", HTTP_FAULT_CHUNK},
                {"-1\r\n", HTTP_FAULT_CHUNK},
                {"0x1\r\n", HTTP_FAULT_CHUNK},
                {" 1\r\n", HTTP_FAULT_CHUNK},
                {"1 \r\n", HTTP_FAULT_CHUNK},
                {"1\nx", HTTP_FAULT_CHUNK},
                {"1\rx", HTTP_FAULT_CHUNK},
                {"1;a\nx", HTTP_FAULT_CHUNK},
                {"1;a\x01\r\nx", HTTP_FAULT_CHUNK},
                {"1\r\nxyz\r\n", HTTP_FAULT_CHUNK},
                {"1\r\nx\n", HTTP_FAULT_CHUNK},
                {"1\r\nx\r1", HTTP_FAULT_CHUNK},
                {"1\r\nx0\r\n\r\n", HTTP_FAULT_CHUNK},
                {"00000000000000001\r\n", HTTP_FAULT_BODY_SIZE},
                {"fffffffffffffffff\r\n", HTTP_FAULT_BODY_SIZE},
                {"0\r\n\n", HTTP_FAULT_CHUNK},
                {"0\r\n\rx", HTTP_FAULT_CHUNK},
                {"0\r\nX\r\n", HTTP_FAULT_CHUNK},
                {"0\r\n: y\r\n", HTTP_FAULT_CHUNK},
                {"0\r\nX : y\r\n", HTTP_FAULT_CHUNK},
                {"0\r\n X: y\r\n", HTTP_FAULT_CHUNK},
                {"0\r\nX: y\r\n folded\r\n", HTTP_FAULT_CHUNK},
                {"0\r\nX: y\n\r\n", HTTP_FAULT_CHUNK},
                {"0\r\nX: \x01\r\n\r\n", HTTP_FAULT_CHUNK},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (size_t step = 0; step < 3; step++) {
                        _cleanup_buf_ struct buf body = {0};
                        enum http_fault fault = HTTP_FAULT_NONE;
                        size_t rest;

                        if (read_cut(cases[i].text, step, &body, &rest, &fault) != -1 || fault != cases[i].fault)
                                fail_msg("case %zu, step %zu: %s", i, step, http_fault_text(fault));
                }
}

/* What is thrown away has a bound, however many lines it is on. */
static void test_bounds(_unused_ void **state)
{
        static const struct {
                const char *begin, *repeated;
                size_t most;
        } cases[] = {
                {"1;", "x", HTTP_MAX_EXTENSION},
                {"0\r\nX:", "y", HTTP_MAX_TRAILERS - 2},
                {"0\r\n", "X", HTTP_MAX_TRAILERS},
                {"0\r\n", "X:\r\n", HTTP_MAX_TRAILERS / 2},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (size_t more = 0; more < 2; more++) {
                        _cleanup_buf_ struct buf text = {0}, body = {0};
                        enum http_fault fault = HTTP_FAULT_NONE;
                        size_t rest;

                        buf_adds(&text, cases[i].begin);
                        for (size_t k = 0; k < cases[i].most + more; k++)
                                buf_adds(&text, cases[i].repeated);
                        assert_int_equal(read_cut(text.data, 0, &body, &rest, &fault), more ? -1 : 0);
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_bounds),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
