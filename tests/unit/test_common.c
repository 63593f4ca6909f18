#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/text.h"

static void escapes(const char *in, const char *want)
{
        _cleanup_free_ char *got = text_escape(in);
        assert_string_equal(got, want);
}

static void test_escape(_unused_ void **state)
{
        escapes("plain \xc3\xa4", "plain \xc3\xa4");
        escapes("\x1b[31mred\x07\n", "\\x1b[31mred\\x07\\x0a");
        escapes("a\xe2\x80\xaetxt.exe", "a\\u{202e}txt.exe");
        escapes("a\xe2\x80\x8b\xef\xbb\xbf", "a\\u{200b}\\u{feff}");
        escapes("\xc2\x9b"
                "1m",
                "\\x9b1m");
        escapes("\xff\xc0\x80", "\\xff\\xc0\\x80");
        escapes("back\\slash", "back\\\\slash");
        escapes("\xf3\xa0\x81\x81", "\\u{e0041}");
}

static void test_sizes_and_spans(_unused_ void **state)
{
        struct err *err = NULL;
        uint64_t v = 0;
        char span[32];

        assert_ok(text_parse_size(&v, "256m", &err));
        assert_int_equal(v, 268435456);
        assert_fails(text_parse_size(&v, "0", &err), "not a size");
        assert_fails(text_parse_size(&v, "-1", &err), "not a size");
        assert_fails(text_parse_size(&v, "1t", &err), "not a size");
        assert_fails(text_parse_size(&v, "99999999999999999g", &err), "not a size");
        assert_fails(text_parse_size(&v, "1 m", &err), "not a size");
        assert_ok(text_parse_duration(&v, "10m", &err));
        assert_int_equal(v, 600000);
        assert_fails(text_parse_duration(&v, "10", &err), "not a duration");
        assert_fails(text_parse_duration(&v, "100000d", &err), "not a duration");
        assert_string_equal(text_format_span(span, 3725), "1h 2m");
}

static void test_times(_unused_ void **state)
{
        struct err *err = NULL;
        char out[TEXT_TIME_MAX];
        time_t t = 0;

        assert_ok(text_parse_time(&t, "2026-11-20T10:00:00Z", &err));
        assert_string_equal(text_format_time(out, t), "2026-11-20T10:00:00Z");
        assert_fails(text_parse_time(&t, "2026-02-31T10:00:00Z", &err), "not a time");
        assert_fails(text_parse_time(&t, "2026-11-20T10:00:00+01:00", &err), "not a time");
        assert_fails(text_parse_time(&t, "2026-11-20", &err), "not a time");
}

static void test_strings(_unused_ void **state)
{
        assert_true(str_is_digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"));
        assert_false(str_is_digest("sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"));
        assert_false(str_is_digest("sha256:00"));
        assert_true(str_has_suffix("a.yaml", ".yaml"));
        assert_false(str_has_suffix("l", ".yaml"));
}

static void test_errors(_unused_ void **state)
{
        struct err *err = NULL;

        assert_int_equal(err_set(&err, ERR_INVALID, "bad %s", "x"), -1);
        err_set(&err, ERR_SYSTEM, "later");
        err_wrap(&err, "reading %d", 7);
        assert_string_equal(err_msg(err), "reading 7: bad x");
        assert_int_equal(err_code(err), ERR_INVALID);
        err_free(err);
        assert_int_equal(err_set(NULL, ERR_INVALID, "nobody listens"), -1);
}

static void test_files(_unused_ void **state)
{
        char dir[] = "/tmp/bulkhead-test-XXXXXX";
        struct err *err = NULL;
        char *text = NULL;
        size_t n = 0;

        assert_non_null(mkdtemp(dir));
        _cleanup_free_ char *path = mem_printf("%s/f", dir), *link = mem_printf("%s/l", dir), *deep = mem_printf("%s/a/b/c", dir);
        assert_ok(file_write_atomic(path, "hello", 5, 0644, &err));
        assert_ok(file_read(&text, &n, path, 100, FILE_TRUSTED, &err));
        assert_string_equal(text, "hello");
        free(text);
        assert_fails(file_read(&text, &n, path, 4, FILE_ANY, &err), "more than the 4 allowed");
        assert_int_equal(symlink("f", link), 0);
        assert_fails(file_read(&text, &n, link, 100, FILE_TRUSTED, &err), "symbolic link");
        assert_fails(file_read(&text, &n, dir, 100, FILE_ANY, &err), "not a regular file");
        chmod(path, 0666);
        assert_fails(file_read(&text, &n, path, 100, FILE_TRUSTED, &err), "written by others");
        chmod(path, 0644);
        chmod(dir, 0777);
        assert_fails(file_read(&text, &n, path, 100, FILE_TRUSTED, &err), "written by others");
        chmod(dir, 0700);
        assert_ok(dir_make(deep, 0755, &err));
        assert_ok(dir_make(deep, 0755, &err));
        for (int i = 0; i < 3; i++) {
                rmdir(deep);
                *strrchr(deep, '/') = '\0';
        }
        unlink(link);
        unlink(path);
        assert_int_equal(rmdir(dir), 0);
}

static void buf_numbers(_unused_ void **state)
{
        static const uint64_t numbers[] = {0, 7, 10, 90909, UINT64_MAX};

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
                _cleanup_buf_ struct buf a = {0}, b = {0};

                buf_addu(&a, numbers[i]);
                buf_addf(&b, "%llu", (unsigned long long)numbers[i]);
                assert_string_equal(a.data, b.data);
        }
}

static void test_buf(_unused_ void **state)
{
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "%s-%d", "x", 5);
        buf_drop(&b, 2);
        assert_string_equal(b.data, "5");
        buf_drop(&b, 9);
        assert_int_equal(b.len, 0);
        _cleanup_free_ char *s = buf_take(&b);
        assert_non_null(s);
}

/* What a value says stays inside the value. */
static void test_log_line(_unused_ void **state)
{
        _cleanup_free_ char *line = NULL;
        struct err *err = NULL;
        int pair[2], before = dup(STDERR_FILENO);

        assert_int_equal(pipe(pair), 0);
        assert_true(dup2(pair[1], STDERR_FILENO) >= 0);
        log_warning("message", "plain", "x", "empty", "", "hostile", "a\" server=\"good\\\n", "equals", "a=b");
        assert_true(dup2(before, STDERR_FILENO) >= 0);
        close(before);
        close(pair[1]);
        assert_ok(fd_read_all(&line, NULL, pair[0], 4096, &err));
        close(pair[0]);
        assert_string_equal(line, "<4>message plain=x empty=\"\" hostile=\"a\\\" server=\\\"good\\\\\\x0a\" equals=\"a=b\"\n");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_escape),  cmocka_unit_test(test_sizes_and_spans), cmocka_unit_test(test_times),
                cmocka_unit_test(test_strings), cmocka_unit_test(test_errors),          cmocka_unit_test(test_files),
                cmocka_unit_test(test_buf),     cmocka_unit_test(buf_numbers),          cmocka_unit_test(test_log_line),
        };
        return cmocka_run_group_tests_name("common", tests, NULL, NULL);
}
