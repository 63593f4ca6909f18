/* The Engine client's long answers: pulls, event streams, attach. */
#include "tests/unit/test_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define REF    "127.0.0.1:5000/some/name@" DIGEST
#define IMAGE  "{\"Id\":\"sha256:ff\",\"Size\":5000,\"RepoDigests\":[\"127.0.0.1:5000/some/name@" DIGEST "\"]}"

/* -- pull ---------------------------------------------------------------------------------------------------------------------- */

enum ending { ENDS, BREAKS_OFF, HANGS };

struct pull_script {
        const char *stream;
        enum ending ending;
        const char *status; /* NULL = a 200 stream; else this and `stream` as its JSON */
        const char *image;  /* the inspect after it; NULL = 404 */
};

static void play_pull(struct fake_request *r)
{
        const struct pull_script *s = r->user;

        if (str_eq(r->method, "GET")) {
                fake_reply(r, s->image ? "200 OK" : "404 Not Found", s->image ? s->image : "{\"message\":\"No such image\"}");
                return;
        }
        if (s->status) {
                fake_reply(r, s->status, s->stream);
                return;
        }
        fake_stream(r);
        fake_chunk(r, s->stream);
        if (s->ending == ENDS)
                fake_stream_end(r);
        else if (s->ending == BREAKS_OFF)
                fake_close(r);
        else
                fake_hang(r);
}

struct pulled {
        struct engine_waiter w; /* first: it is what engine_waiter_done() sees */
        uint64_t current, total;
        unsigned n;
};

static void on_progress(uint64_t current, uint64_t total, _unused_ const char *status, void *user)
{
        struct pulled *p = user;

        p->current = current;
        p->total = total;
        p->n++;
}

static int pull(struct fixture *x, struct pulled *p, uint64_t max_bytes, uint64_t timeout_ms, struct err **err)
{
        engine_image_pull(x->engine, NULL, REF, "linux/amd64", max_bytes, timeout_ms, on_progress, engine_waiter_done, p);
        return engine_waiter_wait(x->engine, &p->w, err);
}

#define LAYER(what, id, current, total)                                                                                                    \
        "{\"status\":\"" what "\",\"progressDetail\":{\"current\":" #current ",\"total\":" #total "},\"id\":\"" id "\"}\r\n"

static void test_pull(_unused_ void **state)
{
        struct pull_script s = {.stream = "{\"status\":\"Pulling from some/name\",\"id\":\"x\"}\r\n" LAYER("Downloading", "aa", 10, 100)
                                        LAYER("Downloading", "bb", 5, 50) LAYER("Downloading", "aa", 100, 100)
                                                LAYER("Extracting", "aa", 1,
                                                      100) "{\"status\":\"Download complete\",\"progressDetail\":{},\"id\":\"aa\"}\r\n",
                                .image = IMAGE};
        _cleanup_fixture_ struct fixture x = fixture_new(play_pull, &s);
        struct pulled p = {0};
        struct err *err = NULL;

        assert_ok(pull(&x, &p, 10000, 5000, &err));
        assert_int_equal(p.current, 105);
        assert_int_equal(p.total, 150);
        assert_string_equal(json_str(p.w.body, "Id"), "sha256:ff");
        assert_int_equal(
                fake_engine_count(
                        x.fake,
                        "POST /v1.41/images/create?fromImage=127.0.0.1%3A5000%2Fsome%2Fname&tag=sha256%3A0123456789abcdef0123456789abcdef"
                        "0123456789abcdef0123456789abcdef&platform=linux%2Famd64"),
                1);
        assert_int_equal(fake_engine_count(x.fake, "GET /v1.41/images/" REF "/json"), 1);
        engine_waiter_deinit(&p.w);
}

static void test_pull_endings(_unused_ void **state)
{
        static const struct {
                struct pull_script script;
                uint64_t max_bytes;
                enum err_code code; /* 0 = done */
                const char *part;
        } t[] = {
                /* errors inside a 200 */
                {{.stream = "{\"errorDetail\":{\"message\":\"manifest unknown: x\"},\"error\":\"manifest unknown: x\"}\r\n",
                  .image = IMAGE},
                 0,
                 ERR_NOT_FOUND,
                 "the Engine says: manifest unknown: x"},
                {{.stream = "{\"error\":\"unauthorized: authentication required\"}\n"}, 0, ERR_DENIED, "authentication required"},
                {{.stream = "{\"status\":\"ok\"}\n{\"errorDetail\":{\"code\":1}}"}, 0, ERR_UNAVAILABLE, "an error without a message"},
                {{.stream = "{\"error\":\"disk full\"}\n", .ending = BREAKS_OFF}, 0, ERR_UNAVAILABLE, "disk full"},
                /* the same as a status */
                {{.status = "404 Not Found", .stream = "{\"message\":\"manifest for x not found\"}", .image = IMAGE},
                 0,
                 ERR_NOT_FOUND,
                 "manifest for x not found"},
                {{.status = "500 Oh", .stream = "{\"message\":\"boom\"}", .image = IMAGE}, 0, ERR_UNAVAILABLE, "boom"},
                /* broken off: only the inspect knows */
                {{.stream = "{\"status\":\"Pulling\"}\n", .ending = BREAKS_OFF, .image = IMAGE}, 0, 0, NULL},
                {{.stream = "{\"status\":\"Pulling\"}\n", .ending = BREAKS_OFF}, 0, ERR_UNAVAILABLE, "cut off"},
                {{.stream = "{\"sta", .ending = ENDS}, 0, ERR_INVALID, "not JSON messages"},
                {{.stream = "{\"status\":\"Pulling\"}\n", .ending = ENDS}, 0, ERR_UNAVAILABLE, "the image is not there"},
                {{.stream = "{\"status\":\"Pulling\"}\n", .image = "{\"Id\":\"sha256:ff\",\"RepoDigests\":[\"a@sha256:00\"]}"},
                 0,
                 ERR_NOT_FOUND,
                 "not that digest"},
                {{.stream = "{\"status\":\"Pulling\"}\n", .image = "[]"}, 0, ERR_NOT_FOUND, "not that digest"},
                {{.stream = "garbage\n\xff\xfe\n[1]\n17\n", .image = IMAGE}, 0, 0, NULL},
                /* bounds */
                {{.stream = LAYER("Downloading", "aa", 1, 101), .ending = HANGS, .image = IMAGE},
                 100,
                 ERR_LIMIT,
                 "101 bytes are over the limit of 100"},
                {{.stream = LAYER("Downloading", "aa", 101, -1), .ending = HANGS, .image = IMAGE}, 100, ERR_LIMIT, "101 bytes"},
                {{.stream = LAYER("Downloading", "aa", 50, 100), .image = IMAGE}, 100, ERR_LIMIT, "5000 bytes"},
                {{.stream = "{}\n", .ending = HANGS, .image = IMAGE}, 0, ERR_TIMEOUT, "not complete within 300 ms"},
        };

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                struct pull_script s = t[i].script;
                _cleanup_fixture_ struct fixture x = fixture_new(play_pull, &s);
                struct pulled p = {0};
                struct err *err = NULL;
                int r = pull(&x, &p, t[i].max_bytes, t[i].code == ERR_TIMEOUT ? 300 : 5000, &err);
                if (t[i].part) {
                        assert_code(err, t[i].code);
                        assert_fails(r, t[i].part);
                } else
                        assert_ok(r);
                engine_waiter_deinit(&p.w);
        }
}

static void endless_pull(struct fake_request *r)
{
        fake_stream(r);
        while (!r->close)
                fake_chunk(r, r->user ? "no message\n" : "0123456789012345678901234567890123456789012345678901234567890123456789");
}

static void test_pull_endless(_unused_ void **state)
{
        for (int lines = 0; lines < 2; lines++) {
                _cleanup_fixture_ struct fixture x = fixture_new(endless_pull, lines ? &lines : NULL);
                struct pulled p = {0};
                _cleanup_err_ struct err *err = NULL;
                assert_int_equal(pull(&x, &p, 0, 400, &err), -1);
                assert_code(err, lines ? ERR_INVALID : ERR_TIMEOUT); /* one line without an end: nothing is kept of it */
                engine_waiter_deinit(&p.w);
        }
}

static void test_pull_reference(_unused_ void **state)
{
        static const char *const bad[] = {"name", "127.0.0.1:5000/name", "name@sha256:12", "name@", ":tag", "@" DIGEST, ""};
        struct pull_script s = {.stream = "{}\n", .image = IMAGE};
        _cleanup_fixture_ struct fixture x = fixture_new(play_pull, &s);
        struct err *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                struct pulled p = {0};
                engine_image_pull(x.engine, NULL, bad[i], NULL, 0, 0, NULL, engine_waiter_done, &p.w);
                assert_false(p.w.finished);
                assert_fails(engine_waiter_wait(x.engine, &p.w, &err), "name@sha256:digest");
                engine_waiter_deinit(&p.w);
        }
        assert_int_equal(fake_engine_count(x.fake, "images"), 0);
        struct pulled p = {0};
        engine_image_pull(x.engine, NULL, "host:5000/n:tag@" DIGEST, NULL, 0, 0, NULL, engine_waiter_done, &p.w);
        assert_ok(engine_waiter_wait(x.engine, &p.w, &err));
        assert_int_equal(fake_engine_count(x.fake, "fromImage=host%3A5000%2Fn&tag=sha256%3A0123"), 1);
        engine_waiter_deinit(&p.w);
}

static void cancel_in_progress(_unused_ uint64_t current, _unused_ uint64_t total, _unused_ const char *status, void *user)
{
        struct engine_call **call = user;

        *call = engine_call_cancel(*call);
}

static void never(_unused_ int status, _unused_ json_object *body, _unused_ struct err *err, _unused_ void *user)
{
        fail();
}

static void test_pull_cancel(_unused_ void **state)
{
        struct pull_script s = {.stream = "{\"status\":\"a\"}\n{\"status\":\"b\"}\n", .ending = HANGS};
        _cleanup_fixture_ struct fixture x = fixture_new(play_pull, &s);
        struct engine_call *call = NULL;

        engine_image_pull(x.engine, &call, REF, NULL, 0, 5000, cancel_in_progress, never, &call);
        while (call)
                assert_true(sd_event_run(x.loop, UINT64_MAX) >= 0);
        run_ms(&x, 20);
}

/* -- events --------------------------------------------------------------------------------------------------------------------- */

struct watch {
        struct fixture x;
        struct engine_events *events;
        struct buf seen; /* one letter per happening: L lost, D down, else the event's Action */
        bool free_on_event;
};

static void on_event(json_object *event, void *user)
{
        struct watch *w = user;

        buf_adds(&w->seen, json_str(event, "Action") ? json_str(event, "Action") : "?");
        if (w->free_on_event)
                w->events = engine_events_free(w->events);
}

static void on_lost(void *user)
{
        buf_addc(&((struct watch *)user)->seen, 'L');
}

static void on_down(void *user)
{
        buf_addc(&((struct watch *)user)->seen, 'D');
}

static struct watch watch_new(fake_handler handler, void *user)
{
        return (struct watch){.x = fixture_new(handler, user)};
}

static void watch_start(struct watch *w)
{
        struct err *err = NULL;

        assert_ok(engine_events_new(&w->events, w->x.engine, "filters=%7B%7D", on_event, on_lost, on_down, w, &err));
        assert_int_equal(w->seen.len, 0);
}

static void watch_deinit(struct watch *w)
{
        engine_events_free(w->events);
        fixture_deinit(&w->x);
        buf_deinit(&w->seen);
}

static void watch_until(struct watch *w, const char *seen)
{
        for (unsigned i = 0; i < 400 && !(w->seen.data && strstr(w->seen.data, seen)); i++)
                assert_true(sd_event_run(w->x.loop, 10000) >= 0);
        if (!w->seen.data || strcmp(w->seen.data, seen) != 0)
                print_error("wanted %s, saw %s\n", seen, w->seen.data ? w->seen.data : "");
        assert_non_null(w->seen.data);
        assert_string_equal(w->seen.data, seen);
}

static void play_events(struct fake_request *r)
{
        assert_non_null(strstr(r->path, "/events?since="));
        assert_non_null(strstr(r->path, "&filters=%7B%7D"));
        fake_stream(r);
        fake_chunk(r, "{\"Action\":\"a\",\"timeNano\":1700000000123456789}\n{\"Acti");
        fake_pause_ms(20);
        fake_chunk(r, "on\":\"b\"}\r\nnot JSON\n{\"Action\":\"c\"}\n");
        if (r->n == 0)
                fake_close(r); /* breaks off once, then stays */
        else
                fake_hang(r);
}

/* Subscribe first, then list: "lost" comes with every subscription, before its events, and for a line that cannot be read. */
static void test_events(_unused_ void **state)
{
        _cleanup_(watch_deinit) struct watch w = watch_new(play_events, NULL);

        watch_start(&w);
        watch_until(&w, "LabLcDLabLc");
        assert_int_equal(fake_engine_count(w.x.fake, "/version"), 2);
}

static void test_events_engine_away(_unused_ void **state)
{
        _cleanup_(watch_deinit) struct watch w = watch_new(play_events, NULL);

        fake_engine_down(w.x.fake, true);
        watch_start(&w);
        watch_until(&w, "D");
        run_ms(&w.x, 400);
        assert_string_equal(w.seen.data, "D");                     /* tries again, tells once */
        assert_in_range(fake_engine_connections(w.x.fake), 2, 16); /* and not in a hurry */
        fake_engine_down(w.x.fake, false);
        watch_until(&w, "DLabLcDLabLc");
}

static void silent_events(struct fake_request *r)
{
        fake_hang(r);
}

static void test_events_late_header(_unused_ void **state)
{
        _cleanup_(watch_deinit) struct watch w = watch_new(silent_events, NULL);

        watch_start(&w);
        watch_until(&w, "L"); /* after 2 s: the owner's list does not wait for a header */
}

static void garbage_events(struct fake_request *r)
{
        if (r->n > 0) {
                fake_reply(r, "500 Oh", "{\"message\":\"no\"}");
                return;
        }
        fake_stream(r);
        while (!r->close)
                fake_chunk(r, "garbage\ngarbage\n");
}

static void test_events_garbage(_unused_ void **state)
{
        _cleanup_(watch_deinit) struct watch w = watch_new(garbage_events, NULL);

        watch_start(&w);
        for (unsigned i = 0; i < 400 && !(w.seen.data && strchr(w.seen.data, 'D')); i++)
                assert_true(sd_event_run(w.x.loop, 10000) >= 0);
        assert_int_equal(w.seen.data[w.seen.len - 1], 'D'); /* gave the stream up */
        assert_in_range(w.seen.len, 50, 150);
}

static void test_events_free_inside(_unused_ void **state)
{
        _cleanup_(watch_deinit) struct watch w = watch_new(play_events, NULL);

        w.free_on_event = true;
        watch_start(&w);
        watch_until(&w, "La");
        run_ms(&w.x, 50);
        assert_string_equal(w.seen.data, "La");
        assert_null(w.events);
}

/* -- attach --------------------------------------------------------------------------------------------------------------------- */

#define UPGRADED "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

struct attach_script {
        const char *raw;
        size_t cut;   /* the first piece ends after so many bytes */
        bool stay;    /* then wait for what the client writes */
        bool hang;    /* then nothing more */
        char got[16]; /* what the client wrote after the upgrade */
};

static void play_attach(struct fake_request *r)
{
        struct attach_script *s = r->user;
        size_t n = strlen(s->raw);

        fake_send(r, s->raw, s->cut);
        if (s->cut > 0 && s->cut < n)
                fake_pause_ms(1);
        fake_send(r, s->raw + s->cut, n - s->cut);
        if (s->stay) {
                ssize_t k = read(r->fd, s->got, sizeof(s->got) - 1);
                if (k >= 0)
                        s->got[k] = '\0';
                fake_sends(r, "bye");
        }
        if (s->hang)
                fake_hang(r);
        fake_close(r);
}

struct attached {
        bool finished;
        int fd;
        enum err_code code;
        struct buf early;
        char *why;
};

static void on_attached(int fd, const void *early, size_t n, struct err *err, void *user)
{
        struct attached *a = user;

        assert_false(a->finished);
        a->finished = true;
        a->fd = fd;
        a->code = err ? err_code(err) : 0;
        a->why = err ? mem_strdup(err_msg(err)) : NULL;
        if (n > 0)
                buf_add(&a->early, early, n);
        assert_int_equal(fd >= 0, err == NULL);
}

static void attached_deinit(struct attached *a)
{
        if (a->fd >= 0)
                close(a->fd);
        buf_deinit(&a->early);
        free(a->why);
}

static struct attached attach(struct fixture *x)
{
        struct attached a = {.fd = -1};

        engine_container_attach(x->engine, NULL, "some/id", on_attached, &a);
        assert_false(a.finished);
        while (!a.finished)
                assert_true(sd_event_run(x->loop, UINT64_MAX) >= 0);
        return a;
}

/* Split anywhere, with bytes of the stream right behind the header: all of them arrive, whether early or late. */
static void test_attach_split(_unused_ void **state)
{
        for (size_t cut = 0; cut <= strlen(UPGRADED "early"); cut++) {
                struct attach_script s = {.raw = UPGRADED "early", .cut = cut, .stay = true};
                _cleanup_fixture_ struct fixture x = fixture_new(play_attach, &s);
                _cleanup_(attached_deinit) struct attached a = attach(&x);
                char c;

                assert_null(a.why);
                assert_true(fcntl(a.fd, F_GETFL) & O_NONBLOCK);
                assert_true(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
                assert_int_equal(write(a.fd, "hello", 5), 5);
                for (ssize_t n; (n = read(a.fd, &c, 1)) != 0;)
                        if (n == 1)
                                buf_addc(&a.early, c);
                        else if (errno == EAGAIN)
                                fake_pause_ms(1);
                        else
                                break;
                assert_string_equal(a.early.data, "earlybye");
                assert_string_equal(s.got, "hello");
        }
}

static void test_attach_refused(_unused_ void **state)
{
        static const struct {
                const char *raw;
                bool hang;
                enum err_code code;
                const char *part;
        } t[] = {
                {"HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nNo such container: some/id\r\n", false,
                 ERR_NOT_FOUND, "says: No such container: some/id (HTTP 404)"},
                {"HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{\"message\":\"not here\"}", true, ERR_NOT_FOUND,
                 "says: not here (HTTP 404)"},
                {"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n17\r\n{\"message\":\"is paused\"}\r\n0\r\n\r\n", true,
                 ERR_CONFLICT, "says: is paused (HTTP 409)"},
                {"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", true, ERR_UNAVAILABLE, "no message (HTTP 500)"},
                {"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nContent-Length: 0\r\n\r\n", true, ERR_INVALID,
                 "did not switch"},
                {"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n", true, ERR_INVALID, "HTTP 304"},
                {"SSH-2.0-x\r\n", true, ERR_INVALID, "not HTTP"},
                {"HTTP/1.1 999999\r\n\r\n", true, ERR_INVALID, "not HTTP"},
                {"HTTP/1.1 101 UPGRADED\nUpgrade: tcp\n\n", true, ERR_INVALID, "stands alone"},
                {"HTTP/1.1 403 No\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", true, ERR_INVALID,
                 "neither exactly one Content-Length"},
                {"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n", false, ERR_UNAVAILABLE, "before it answered"},
                {"", false, ERR_UNAVAILABLE, "before it answered"},
        };

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                struct attach_script s = {.raw = t[i].raw, .hang = t[i].hang};
                _cleanup_fixture_ struct fixture x = fixture_new(play_attach, &s);
                _cleanup_(attached_deinit) struct attached a = attach(&x);
                assert_int_equal(a.fd, -1);
                if (a.code != t[i].code || !strstr(a.why, t[i].part))
                        print_error("wanted %d %s, got %d %s\n", (int)t[i].code, t[i].part, (int)a.code, a.why);
                assert_int_equal(a.code, t[i].code);
                assert_non_null(strstr(a.why, t[i].part));
        }
}

static void test_attach_continue(_unused_ void **state)
{
        struct attach_script s = {.raw = "HTTP/1.1 100 Continue\r\n\r\n" UPGRADED, .stay = true};
        _cleanup_fixture_ struct fixture x = fixture_new(play_attach, &s);
        _cleanup_(attached_deinit) struct attached a = attach(&x);

        assert_null(a.why);
        assert_true(a.fd >= 0);
}

static void endless_attach_header(struct fake_request *r)
{
        fake_sends(r, "HTTP/1.1 101 UPGRADED\r\n");
        while (!r->close)
                fake_sends(r, "X-Filler: 0123456789012345678901234567890123456789\r\n");
}

static void test_attach_bounds(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(endless_attach_header, NULL), none = fixture_new(endless_attach_header, NULL);
        _cleanup_(attached_deinit) struct attached a = attach(&x), b = {.fd = -1};

        assert_int_equal(a.code, ERR_LIMIT);
        fake_engine_down(none.fake, true);
        b = attach(&none);
        assert_int_equal(b.code, ERR_UNAVAILABLE);
}

static void hang_attach(struct fake_request *r)
{
        fake_hang(r);
}

static void test_attach_cancel(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(hang_attach, NULL);
        struct attached a = {.fd = -1};
        struct engine_call *call;

        engine_container_attach(x.engine, &call, "x", on_attached, &a);
        run_ms(&x, 50);
        assert_int_equal(fake_engine_count(x.fake, "/attach?stream=1&stdin=1&stdout=1&stderr=1"), 1);
        (void)engine_call_cancel(call);
        run_ms(&x, 50);
        assert_false(a.finished);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pull),
                cmocka_unit_test(test_pull_endings),
                cmocka_unit_test(test_pull_endless),
                cmocka_unit_test(test_pull_reference),
                cmocka_unit_test(test_pull_cancel),
                cmocka_unit_test(test_events),
                cmocka_unit_test(test_events_engine_away),
                cmocka_unit_test(test_events_late_header),
                cmocka_unit_test(test_events_garbage),
                cmocka_unit_test(test_events_free_inside),
                cmocka_unit_test(test_attach_split),
                cmocka_unit_test(test_attach_refused),
                cmocka_unit_test(test_attach_continue),
                cmocka_unit_test(test_attach_bounds),
                cmocka_unit_test(test_attach_cancel),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
