#include "common/mcp/sse.h"
#include "tests/unit/test.h"

static int note(const char *type, const char *data, size_t n, void *user, _unused_ struct err **err)
{
        assert_int_equal(data[n], '\0');
        buf_addf(user, "<%s:%s:%zu>", type, data, n);
        return 0;
}

/* The whole text, cut after k and after l bytes. */
static void assert_events(const char *text, size_t n, size_t k, size_t l, const char *want)
{
        struct sse_reader s = {.max = 64};
        _cleanup_buf_ struct buf got = {0};
        _cleanup_err_ struct err *err = NULL;

        assert_ok(sse_reader_feed(&s, text, k, note, &got, &err));
        assert_ok(sse_reader_feed(&s, text + k, l - k, note, &got, &err));
        assert_ok(sse_reader_feed(&s, text + l, n - l, note, &got, &err));
        assert_string_equal(got.data, want);
        sse_reader_deinit(&s);
}

static void events_come_out_however_the_stream_is_cut(_unused_ void **state)
{
        static const char text[] =
                "\xef\xbb\xbf: hello\r\nevent: endpoint\r\ndata: /x\r\n\r\ndata:a\rdata: b\r\rid: 1\ndata\n\nevent: lost\n\n"
                "event: a\nevent\ndata:  c\ndatabases: no\ndata-and-a-long-name: no\n:\n\n";
        static const char want[] = "<endpoint:/x:2><message:a\nb:3><message::0><message: c:2>";

        for (size_t k = 0; k < sizeof(text); k++)
                for (size_t l = k; l < sizeof(text); l++)
                        assert_events(text, sizeof(text) - 1, MIN(k, sizeof(text) - 1), MIN(l, sizeof(text) - 1), want);
}

static void an_unfinished_event_is_none(_unused_ void **state)
{
        struct sse_reader s = {.max = 64};
        _cleanup_buf_ struct buf got = {0};
        _cleanup_err_ struct err *err = NULL;

        assert_ok(sse_reader_feed(&s, "data: x\n", 8, note, &got, &err));
        assert_int_equal(got.len, 0);
        sse_reader_deinit(&s);
}

static void an_event_has_an_end(_unused_ void **state)
{
        struct sse_reader s = {.max = 16};
        _cleanup_buf_ struct buf got = {0};
        _cleanup_err_ struct err *err = NULL;

        assert_ok(sse_reader_feed(&s, "data: 0123456789abcde\n\n", 23, note, &got, &err));
        assert_fails(sse_reader_feed(&s, "data: 0123456789abcdef", 22, note, &got, &err), "more than 16 bytes");
        sse_reader_deinit(&s);
        s = (struct sse_reader){.max = 16};
        assert_fails(sse_reader_feed(&s, "data: 12345678\ndata: 12345678\n", 30, note, &got, &err), "more than 16 bytes");
        sse_reader_deinit(&s);
        /* Lines without a byte of data are some of it: each has its line break. */
        s = (struct sse_reader){.max = 16};
        for (int i = 0; i < 16; i++)
                assert_ok(sse_reader_feed(&s, "data\n", 5, note, &got, &err));
        assert_fails(sse_reader_feed(&s, "data\n", 5, note, &got, &err), "more than 16 bytes");
        sse_reader_deinit(&s);
        /* Nothing is kept of a line that says nothing. */
        s = (struct sse_reader){.max = 16};
        for (int i = 0; i < 100; i++)
                assert_ok(sse_reader_feed(&s, ": 0123456789", 12, note, &got, &err));
        assert_int_equal(s.data.cap + s.type.cap, 0);
        sse_reader_deinit(&s);
        /* Nor of the rest of a type, an id or a time that are too long. */
        for (const char *const *field = (const char *const[]){"event:", "id:", "retry:", NULL}; *field; field++) {
                s = (struct sse_reader){.max = 16};
                assert_ok(sse_reader_feed(&s, *field, strlen(*field), note, &got, &err));
                for (int i = 0; i < 10000; i++)
                        assert_ok(sse_reader_feed(&s, "0123456789", 10, note, &got, &err));
                assert_true(s.type.len + s.next_id.len + s.next_retry.len <= SSE_MAX_ID + 1);
                sse_reader_deinit(&s);
        }
}

static void feed_all(struct sse_reader *s, const char *text)
{
        _cleanup_buf_ struct buf got = {0};
        _cleanup_err_ struct err *err = NULL;

        for (; *text; text++)
                assert_ok(sse_reader_feed(s, text, 1, note, &got, &err));
}

/* For Last-Event-ID: of events that came whole only, and it stays until another comes. */
static void an_id_is_remembered(_unused_ void **state)
{
        struct sse_reader s = {.max = 64};
        char line[SSE_MAX_ID + 20];

        feed_all(&s, "id: one\n");
        assert_int_equal(s.id.len, 0);
        feed_all(&s, "retry: 500\ndata\n\n");
        assert_string_equal(s.id.data, "one");
        assert_int_equal(s.retry_ms, 500);
        feed_all(&s, "data: x\n\nid: two\nretry: 5s\nretry\nretry: 99999999999\n");
        assert_string_equal(s.id.data, "one");
        assert_int_equal(s.retry_ms, 500);
        feed_all(&s, "\n");
        assert_string_equal(s.id.data, "two");
        snprintf(line, sizeof(line), "id: %0*d\n\n", (int)SSE_MAX_ID + 1, 0);
        feed_all(&s, line);
        assert_string_equal(s.id.data, "two");
        snprintf(line, sizeof(line), "id: %0*d\n\n", (int)SSE_MAX_ID, 0);
        feed_all(&s, line);
        assert_int_equal(s.id.len, SSE_MAX_ID);
        feed_all(&s, "id: three\nid\n\n");
        assert_int_equal(s.id.len, 0);
        sse_reader_deinit(&s);
}

static void an_endpoint_is_on_the_servers_own_address(_unused_ void **state)
{
        static const char origin[] = "http://10.0.0.2:8080";
        static const char *const foreign[] = {"http://10.0.0.3:8080/x", "http://10.0.0.2:80801/x", "//evil/x", "x", "", "ftp://10.0.0.2/"};
        static const char *const bad[] = {"/a b", "/a#b", "/a\\b", "/a\nb", "/\xc3\xa4"};
        _cleanup_err_ struct err *err = NULL;
        char *path = sse_endpoint("http://10.0.0.2:8080/m?s=1", origin, &err);

        assert_string_equal(path, "/m?s=1");
        mem_replace(&path, sse_endpoint("/m?s=2", origin, &err));
        assert_string_equal(path, "/m?s=2");
        free(path);
        for (size_t i = 0; i < ELEMENTSOF(foreign); i++)
                assert_fails(sse_endpoint(foreign[i], origin, &err) ? 0 : -1, "not on its own address");
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_fails(sse_endpoint(bad[i], origin, &err) ? 0 : -1, "unusable endpoint");
}

static int stop(_unused_ const char *type, _unused_ const char *data, _unused_ size_t n, _unused_ void *user, struct err **err)
{
        return err_set(err, ERR_INVALID, "enough");
}

static void the_receiver_can_stop(_unused_ void **state)
{
        struct sse_reader s = {.max = 16};
        _cleanup_err_ struct err *err = NULL;

        assert_fails(sse_reader_feed(&s, "data\n\ndata\n\n", 12, stop, NULL, &err), "enough");
        sse_reader_deinit(&s);
}

static void a_large_event_leaves_nothing_behind(_unused_ void **state)
{
        struct sse_reader s = {.max = 1U << 20};
        _cleanup_buf_ struct buf text = {0}, got = {0};
        _cleanup_err_ struct err *err = NULL;

        for (int i = 0; i < 50000; i++)
                buf_adds(&text, "data:0123456789\r");
        buf_addc(&text, '\r');
        assert_ok(sse_reader_feed(&s, text.data, text.len, note, &got, &err));
        assert_true(got.len > 50000 * 11);
        assert_int_equal(s.data.cap, 0);
        sse_reader_deinit(&s);
}

static void what_is_written_is_read(_unused_ void **state)
{
        static const char text[] = "{\r\n\"a\":\n1,\r2}";
        _cleanup_buf_ struct buf b = {0};

        sse_add_event(&b, NULL, NULL, "", 0);
        sse_add_event(&b, "message", "s-1", text, strlen(text));
        sse_add_event(&b, NULL, NULL, "x\n", 2);
        assert_string_equal(b.data, "data: \n\nevent: message\nid: s-1\ndata: {\ndata: \"a\":\ndata: 1,\ndata: 2}\n\ndata: x\ndata: \n\n");
        assert_events(b.data, b.len, 0, b.len, "<message::0><message:{\n\"a\":\n1,\n2}:12><message:x\n:2>");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(events_come_out_however_the_stream_is_cut),
                cmocka_unit_test(an_unfinished_event_is_none),
                cmocka_unit_test(an_event_has_an_end),
                cmocka_unit_test(an_endpoint_is_on_the_servers_own_address),
                cmocka_unit_test(an_id_is_remembered),
                cmocka_unit_test(the_receiver_can_stop),
                cmocka_unit_test(a_large_event_leaves_nothing_behind),
                cmocka_unit_test(what_is_written_is_read),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
