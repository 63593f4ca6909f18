#include "tests/unit/test_engine.h"

#include <unistd.h>

/* -- answers -------------------------------------------------------------------------------------------------------------------- */

struct script {
        const char *status, *json; /* fake_reply() */
        const char *raw;           /* or these bytes, n of them, then close */
        size_t n;
};

static void play(struct fake_request *r)
{
        const struct script *s = r->user;

        if (!s->raw) {
                fake_reply(r, s->status, s->json);
                return;
        }
        fake_send(r, s->raw, s->n ? s->n : strlen(s->raw));
        fake_close(r);
}

static void test_ok(_unused_ void **state)
{
        struct script s = {
                .status = "201 Created",
                .json = "{\"Id\":\"abc\",\"n\":18446744073709551615,\"f\":1.25,\"s\":\"1234567890123456789 \\\"1234567890123456789\"}\n"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        struct err *err = NULL;

        assert_int_equal(engine_api_minor(x.engine), 0);
        assert_string_equal(engine_version(x.engine), "");
        assert_ok(get(&x, 5000, &w, &err));
        assert_int_equal(w.status, 201);
        assert_string_equal(json_str(w.body, "Id"), "abc");
        assert_string_equal(json_str(w.body, "n"), "18446744073709551615"); /* beyond 2^53: its digits */
        assert_string_equal(json_str(w.body, "s"), "1234567890123456789 \"1234567890123456789");
        assert_true(json_object_get_double(json_get(w.body, "f")) == 1.25);
        assert_int_equal(engine_api_minor(x.engine), 41);
        assert_string_equal(engine_version(x.engine), "20.10.24");
        assert_false(engine_is_podman(x.engine));
        assert_int_equal(fake_engine_count(x.fake, "GET /v1.41/x"), 1);
        assert_int_equal(fake_engine_count(x.fake, "GET /version"), 1);
}

static void test_empty(_unused_ void **state)
{
        static const char *const statuses[] = {"204 No Content", "200 OK", "304 Not Modified"};

        for (size_t i = 0; i < ELEMENTSOF(statuses); i++) {
                struct script s = {.status = statuses[i]};
                _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
                _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
                struct err *err = NULL;
                assert_ok(get(&x, 5000, &w, &err));
                assert_null(w.body);
                assert_int_equal(w.status, atoi(statuses[i]));
        }
}

static void test_refusals(_unused_ void **state)
{
        static const struct {
                const char *status, *json;
                enum err_code code;
                const char *part;
        } t[] = {
                {"404 Not Found", "{\"message\":\"No such container: x\"}", ERR_NOT_FOUND,
                 "GET /x: the Engine says: No such container: x (HTTP 404)"},
                {"409 Conflict", "{\"message\":\"The container name \\\"/a\\\" is already in use\"}", ERR_CONFLICT, "already in use"},
                {"400 Bad Request", "{\"message\":\"invalid\"}", ERR_INVALID, "invalid (HTTP 400)"},
                {"401 Unauthorized", "{\"message\":\"who are you\"}", ERR_DENIED, "who are you"},
                {"403 Forbidden", "{\"message\":\"no\"}", ERR_DENIED, "no (HTTP 403)"},
                {"403 Forbidden", "{\"message\":\"Pool overlaps with other one on this address space\"}", ERR_CONFLICT, "overlaps"},
                {"500 Internal Server Error", "{\"message\":\"boom\"}", ERR_UNAVAILABLE, "boom (HTTP 500)"},
                {"500 Internal Server Error",
                 "{\"cause\":\"that name is already in use\",\"message\":\"container name is already in use\",\"response\":500}",
                 ERR_CONFLICT, "already in use"},
                {"503 Service Unavailable", "", ERR_UNAVAILABLE, "no message (HTTP 503)"},
                {"500 Internal Server Error", "plain text\nsecond line", ERR_UNAVAILABLE, "says: plain text (HTTP 500)"},
                {"500 Internal Server Error", "{\"message\":17}", ERR_UNAVAILABLE, "{\"message\":17}"},
                {"500 Internal Server Error", "<html>\r\n", ERR_UNAVAILABLE, "<html> (HTTP 500)"},
                {"301 Moved Permanently", "", ERR_INVALID, "HTTP 301"},
        };

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                struct script s = {.status = t[i].status, .json = t[i].json};
                _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
                get_fails(&x, t[i].code, t[i].part);
        }
}

static void long_message(struct fake_request *r)
{
        _cleanup_buf_ struct buf b = {0};

        buf_adds(&b, "{\"message\":\"");
        for (unsigned i = 0; i < 9000; i++)
                buf_adds(&b, "ä");
        buf_adds(&b, "\"}");
        fake_reply(r, "500 Oh", b.data);
}

static void test_long_message(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(long_message, NULL);
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        _cleanup_err_ struct err *err = NULL;

        assert_int_equal(get(&x, 5000, &w, &err), -1);
        assert_true(strlen(err_msg(err)) < 1200);
        assert_non_null(strstr(err_msg(err), "ä (HTTP 500)")); /* cut between characters */
}

/* -- what is not an answer -------------------------------------------------------------------------------------------------------- */

#define HEAD(n) "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " #n "\r\n\r\n"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void test_garbage(_unused_ void **state)
{
        static const struct {
                const char *raw;
                enum err_code code;
                const char *part;
        } t[] = {
                {"\x16\x03\x01garbage\r\n\r\n", ERR_INVALID, "not HTTP"},
                {"SSH-2.0-OpenSSH_9.2\r\n", ERR_INVALID, "not HTTP"},
                {HEAD(7) "{\"a\":1}", 0, NULL},
                {HEAD(6) "{\"a\":1", ERR_INVALID, "GET /x"},
                {HEAD(9) "{\"a\":1} x", ERR_INVALID, "GET /x"},
                {HEAD(15) "{\"a\":1,\"a\":2}\r\n", ERR_INVALID, "a"},
                {HEAD(9) "{\"a\":\"\xff\"}", ERR_INVALID, "UTF-8"},
                {HEAD(70) "{\"a\":1}", ERR_UNAVAILABLE, "cut off"},
                {CHUNKED "7\r\n{\"a\":1}\r\n0\r\n\r\n", 0, NULL},
                {CHUNKED "7\r\n{\"a\":1}\r\n", ERR_UNAVAILABLE, "cut off"},
                {CHUNKED "zz\r\n{\"a\":1}\r\n0\r\n\r\n", ERR_INVALID, "not HTTP"},
                {CHUNKED "ffffffffffffffffffff\r\n{}\r\n0\r\n\r\n", ERR_INVALID, "not HTTP"},
                {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}", ERR_INVALID, "not HTTP"},
                {"", ERR_UNAVAILABLE, "cut off"},
        };

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                struct script s = {.raw = t[i].raw};
                _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
                if (t[i].part)
                        get_fails(&x, t[i].code, t[i].part);
                else
                        get_ok(&x);
        }
}

/* Whatever byte the connection ends after: an error of the right kind, and the next call works. */
static void test_cut_at_every_byte(_unused_ void **state)
{
        static const char whole[] = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\":1}\n";
        struct script s = {.raw = whole};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);

        for (size_t n = 1; n < sizeof(whole) - 1; n++) {
                _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
                _cleanup_err_ struct err *err = NULL;
                s.n = n;
                assert_int_equal(get(&x, 5000, &w, &err), -1);
                /* Half a status line may be anything. */
                if (err_code(err) != ERR_INVALID || n > strlen("HTTP/1.1 200"))
                        assert_code(err, ERR_UNAVAILABLE);
                assert_int_equal(w.status, 0);
        }
        s.n = 0;
        get_ok(&x);
}

static void byte_by_byte(struct fake_request *r)
{
        static const char text[] = CHUNKED "3\r\n{\"a\r\n1;x=y\r\n\"\r\n3\r\n:1}\r\n0\r\nTrailer: x\r\n\r\n";

        for (size_t i = 0; i + 1 < sizeof(text); i++) {
                fake_send(r, text + i, 1);
                fake_pause_ms(1);
        }
}

static void test_split(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(byte_by_byte, NULL);
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        struct err *err = NULL;

        assert_ok(get(&x, 5000, &w, &err));
        assert_int_equal(json_int(w.body, "a", 0), 1);
}

static void endless_body(struct fake_request *r)
{
        fake_stream(r);
        while (!r->close)
                fake_chunk(r, "                                                                ");
}

static void endless_header(struct fake_request *r)
{
        fake_sends(r, "HTTP/1.1 200 OK\r\n");
        while (!r->close)
                fake_sends(r, "X-Filler: 0123456789012345678901234567890123456789\r\n");
}

static void endless_header_line(struct fake_request *r)
{
        fake_sends(r, "HTTP/1.1 200 OK\r\nX-Filler: ");
        while (!r->close)
                fake_sends(r, "0123456789012345678901234567890123456789012345678901234567890123456789");
}

static void endless_early_answers(struct fake_request *r)
{
        while (!r->close)
                fake_sends(r, "HTTP/1.1 102 Processing\r\n\r\n");
}

static void drip(struct fake_request *r)
{
        fake_stream(r);
        while (!r->close) {
                fake_chunk(r, " ");
                fake_pause_ms(20);
        }
}

static void half_then_hang(struct fake_request *r)
{
        fake_sends(r, HEAD(100) "{\"a\":");
        fake_hang(r);
}

static void test_bounds(_unused_ void **state)
{
        static const struct {
                fake_handler handler;
                uint64_t timeout_ms;
                enum err_code code;
        } t[] = {
                {endless_body, 10000, ERR_LIMIT},
                {endless_header, 10000, ERR_LIMIT},
                {endless_header_line, 10000, ERR_LIMIT},
                {endless_early_answers, 10000, ERR_LIMIT},
                {fake_hang, 150, ERR_TIMEOUT},
                {half_then_hang, 150, ERR_TIMEOUT},
                {drip, 150, ERR_TIMEOUT},
        };

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                _cleanup_fixture_ struct fixture x = fixture_new(t[i].handler, NULL);
                _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
                _cleanup_err_ struct err *err = NULL;
                assert_int_equal(get(&x, t[i].timeout_ms, &w, &err), -1);
                assert_code(err, t[i].code);
        }
}

static void test_no_engine(_unused_ void **state)
{
        struct script s = {.status = "200 OK", .json = "{}"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
        _cleanup_free_ char *aside = mem_printf("%s.aside", fake_engine_path(x.fake));
        struct engine *none = NULL;
        struct err *err = NULL;

        assert_int_equal(rename(fake_engine_path(x.fake), aside), 0);
        get_fails(&x, ERR_UNAVAILABLE, "is it running?");
        assert_int_equal(rename(aside, fake_engine_path(x.fake)), 0);
        get_ok(&x);
        assert_fails(engine_new(&none, x.loop, "docker.sock", &err), "absolute path");
        assert_fails(engine_new(&none, x.loop,
                                "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                "aaaaaaaaaaaaaaaaa",
                                &err),
                     "107");
}

/* -- versions -------------------------------------------------------------------------------------------------------------------- */

#define VERSION(api, min) "{\"Version\":\"9.9\",\"ApiVersion\":\"" api "\",\"MinAPIVersion\":\"" min "\"}"

static void test_versions(_unused_ void **state)
{
        static const struct {
                const char *json;
                unsigned minor; /* 0 = refused */
                enum err_code code;
                const char *part;
        } t[] = {
                {VERSION("1.41", "1.12"), 41, 0, NULL},
                {VERSION("1.48", "1.24"), 48, 0, NULL},
                {VERSION("1.99", "1.44"), ENGINE_API_NEWEST, 0, NULL},
                {VERSION("1.99", "1.51"), ENGINE_API_NEWEST, 0, NULL},
                {VERSION("1.40", "1.12"), 0, ERR_UNAVAILABLE, "1.40, and 1.41 (Docker 20.10) is the oldest"},
                {VERSION("1.60", "1.52"), 0, ERR_UNAVAILABLE, "1.52 and newer only"},
                {VERSION("2.0", "1.12"), 0, ERR_INVALID, "no container engine"},
                {VERSION("1.41x", "1.12"), 0, ERR_INVALID, "no container engine"},
                {VERSION("1.99999999999", "1.12"), 0, ERR_INVALID, "no container engine"},
                {"{\"Version\":\"1\"}", 0, ERR_INVALID, "no container engine"},
                {"[]", 0, ERR_INVALID, "no container engine"},
                {"{\"Version\":", 0, ERR_INVALID, "GET /version"},
                {"{\"Version\":\"4.3.1\",\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.24\",\"Components\":[{\"Name\":\"Podman Engine\"}]}",
                 41, 0, NULL},
        };
        struct script s = {.status = "200 OK", .json = "{}"};

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
                fake_engine_set_version(x.fake, t[i].json);
                if (t[i].minor) {
                        _cleanup_free_ char *path = mem_printf("GET /v1.%u/x", t[i].minor);
                        get_ok(&x);
                        assert_int_equal(engine_api_minor(x.engine), t[i].minor);
                        assert_int_equal(fake_engine_count(x.fake, path), 1);
                        assert_int_equal(engine_is_podman(x.engine), strstr(t[i].json, "Podman") != NULL);
                } else {
                        get_fails(&x, t[i].code, t[i].part);
                        assert_int_equal(fake_engine_count(x.fake, "/x"), 0);
                }
        }
}

/* An Engine that went away and came back is asked again; so is one that refuses the version. */
static void test_version_again(_unused_ void **state)
{
        struct script s = {.status = "200 OK", .json = "{}"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);

        get_ok(&x);
        fake_engine_down(x.fake, true);
        get_fails(&x, ERR_UNAVAILABLE, "GET /x");
        fake_engine_down(x.fake, false);
        fake_engine_set_version(x.fake, VERSION("1.45", "1.24"));
        get_ok(&x);
        assert_int_equal(engine_api_minor(x.engine), 45);
        assert_int_equal(fake_engine_count(x.fake, "GET /v1.45/x"), 1);
}

static void too_new(struct fake_request *r)
{
        if (strstr(r->path, "/v1.48/")) {
                fake_engine_set_version(r->user ? *(struct fake_engine **)r->user : NULL, VERSION("1.44", "1.24"));
                fake_reply(r, "400 Bad Request", "{\"message\":\"client version 1.48 is too new. Maximum supported API version is 1.44\"}");
        } else
                fake_reply(r, "200 OK", "{}");
}

static void test_version_refused(_unused_ void **state)
{
        struct script s = {
                .status = "400 Bad Request",
                .json = "{\"message\":\"client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade\"}"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
        struct fake_engine *fake = NULL;
        _cleanup_fixture_ struct fixture y = fixture_new(too_new, &fake);

        get_fails(&x, ERR_INVALID, "refuses API version 1.41");
        assert_int_equal(fake_engine_count(x.fake, "/x"), 2);
        fake = y.fake;
        fake_engine_set_version(y.fake, VERSION("1.48", "1.24"));
        get_ok(&y);
        assert_int_equal(engine_api_minor(y.engine), 44);
}

static void hang_on_version(struct fake_request *r)
{
        fake_hang(r);
}

static void test_version_hangs(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(hang_on_version, NULL);
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        _cleanup_err_ struct err *err = NULL;

        fake_engine_set_version(x.fake, "");
        assert_int_equal(get(&x, 150, &w, &err), -1);
        assert_code(err, ERR_TIMEOUT);
}

/* -- connections and callbacks ---------------------------------------------------------------------------------------------------- */

static void test_keep_alive(_unused_ void **state)
{
        struct script s = {.status = "200 OK", .json = "{}"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);

        for (unsigned i = 0; i < 50; i++)
                get_ok(&x);
        assert_int_equal(fake_engine_connections(x.fake), 1);
}

static void test_many(_unused_ void **state)
{
        enum { N = 600 };
        struct script s = {.status = "200 OK", .json = "{}"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
        struct engine_waiter *w = mem_alloc(N * sizeof(*w));
        struct err *err = NULL;

        for (unsigned i = 0; i < N; i++)
                engine_container_inspect(x.engine, "some", engine_waiter_done, &w[i]);
        for (unsigned i = 0; i < N; i++) {
                assert_ok(engine_waiter_wait(x.engine, &w[i], &err));
                engine_waiter_deinit(&w[i]);
        }
        free(w);
        assert_in_range(fake_engine_connections(x.fake), 2, 16);
        assert_int_equal(fake_engine_count(x.fake, "/version"), 1);
}

/* connect() says EAGAIN to most of these: the Engine is busy, not away. */
static void test_busy(_unused_ void **state)
{
        enum { N = 10 };
        struct script s = {.status = "200 OK", .json = "{}"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &s);
        struct engine_waiter w[N] = {0};
        struct err *err = NULL;

        fake_engine_busy(x.fake, 10);
        for (unsigned i = 0; i < N; i++)
                engine_container_start(x.engine, "some", engine_waiter_done, &w[i]);
        for (unsigned i = 0; i < N; i++) {
                assert_ok(engine_waiter_wait(x.engine, &w[i], &err));
                engine_waiter_deinit(&w[i]);
        }
        assert_int_equal(fake_engine_count(x.fake, "/start"), N);
}

static void answer_gets_only(struct fake_request *r)
{
        if (str_eq(r->method, "GET"))
                fake_reply(r, "200 OK", "{}");
        else
                fake_close(r);
}

/* A mutation whose answer was lost may have been done: it is never sent twice, kept connections or not. */
static void test_no_repeat(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(answer_gets_only, NULL);
        struct err *err = NULL;

        for (unsigned i = 0; i < 5; i++) {
                _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
                get_ok(&x);
                engine_network_create(x.engine, NULL, engine_waiter_done, &w);
                assert_fails(engine_waiter_wait(x.engine, &w, &err), "cut off");
                assert_int_equal(fake_engine_count(x.fake, "POST /v1.41/networks/create"), i + 1);
        }
}

struct chain {
        struct fixture *x;
        struct engine_call *victim;
        unsigned n, n_victim;
};

static void on_victim(_unused_ int status, _unused_ json_object *body, _unused_ struct err *err, void *user)
{
        ((struct chain *)user)->n_victim++;
}

static void on_link(_unused_ int status, _unused_ json_object *body, struct err *err, void *user)
{
        struct chain *c = user;

        assert_null(err);
        c->victim = engine_call_cancel(c->victim);
        if (++c->n < 5)
                engine_container_inspect(c->x->engine, "next", on_link, c);
        else
                c->x->engine = engine_free(c->x->engine); /* with itself in the air, too */
}

static void hang_on_victim(struct fake_request *r)
{
        if (strstr(r->path, "victim"))
                fake_hang(r);
        else
                fake_reply(r, "200 OK", "{}");
}

static void test_callbacks(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(hang_on_victim, NULL);
        struct chain c = {.x = &x};

        for (unsigned i = 0; i < 3; i++)
                engine_container_inspect(x.engine, "victim", on_victim, &c);
        engine_call_start(x.engine, &c.victim, &(struct engine_request){.method = "GET", .path = "/victim"}, on_victim, &c);
        engine_container_inspect(x.engine, "first", on_link, &c);
        while (x.engine)
                assert_true(sd_event_run(x.loop, UINT64_MAX) >= 0);
        run_ms(&x, 20);
        assert_int_equal(c.n, 5);
        assert_int_equal(c.n_victim, 0);
}

static void test_escape(_unused_ void **state)
{
        _cleanup_free_ char *a = engine_escape("a b/c?d&e=ü%._~-"), *b = engine_escape_reference("127.0.0.1:5000/a/b@sha256:00?x"),
                            *c = engine_filters("label", "k=v\"");

        assert_string_equal(a, "a%20b%2Fc%3Fd%26e%3D%C3%BC%25._~-");
        assert_string_equal(b, "127.0.0.1:5000/a/b@sha256:00%3Fx");
        assert_string_equal(c, "%7B%22label%22%3A%5B%22k%3Dv%5C%22%22%5D%7D");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_ok),
                cmocka_unit_test(test_empty),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_long_message),
                cmocka_unit_test(test_garbage),
                cmocka_unit_test(test_cut_at_every_byte),
                cmocka_unit_test(test_split),
                cmocka_unit_test(test_bounds),
                cmocka_unit_test(test_no_engine),
                cmocka_unit_test(test_versions),
                cmocka_unit_test(test_version_again),
                cmocka_unit_test(test_version_refused),
                cmocka_unit_test(test_version_hangs),
                cmocka_unit_test(test_keep_alive),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_busy),
                cmocka_unit_test(test_no_repeat),
                cmocka_unit_test(test_callbacks),
                cmocka_unit_test(test_escape),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
