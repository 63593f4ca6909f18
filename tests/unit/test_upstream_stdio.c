/* Sessions with stdio servers: both eras, and every way in which a server can misbehave. */
#include "tests/unit/test_upstream.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define INIT(version)                                                                                                                      \
        "{\"protocolVersion\":\"" version "\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"},"          \
        "\"instructions\":\"be kind\"}"
#define MODERN                                                                                                                             \
        "{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},\"ttlMs\":0,"                 \
        "\"cacheScope\":\"public\"}"
#define UNKNOWN "{\"code\":-32601,\"message\":\"Method not found\"}"

/* -- a scripted server on the other end of the stream ---------------------------------------------------------------------------- */

struct server {
        struct rig *rig;
        int fd;
        sd_event_source *io;
        struct buf in, out;
        size_t out_at;
        size_t step; /* bytes per write; 0 = as many as go */
        bool gone;
        struct buf log; /* every line that came */
        void (*script)(struct server *s, const char *line, long id);
        const char *discover, *initialize; /* results; NULL = UNKNOWN, "" = silence */
        const char *discover_error;
        long n_calls;
        long last_id;
};

static void server_leave(struct server *s)
{
        s->io = sd_event_source_disable_unref(s->io);
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
        s->gone = true;
}

static void server_flush(struct server *s)
{
        while (s->fd >= 0 && s->out_at < s->out.len) {
                size_t n = s->out.len - s->out_at;
                ssize_t k = send(s->fd, s->out.data + s->out_at, s->step ? MIN(s->step, n) : n, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (k < 0 && errno == EAGAIN)
                        break;
                if (k < 0) {
                        server_leave(s);
                        return;
                }
                s->out_at += (size_t)k;
                if (s->step)
                        break; /* the rest from the loop, so that each piece is read by itself */
        }
        if (s->fd >= 0)
                assert_true(sd_event_source_set_io_events(s->io, EPOLLIN | (s->out_at < s->out.len ? EPOLLOUT : 0)) >= 0);
}

static void frame(struct server *s, int stream, const char *data, size_t n)
{
        unsigned char h[8] = {(unsigned char)stream, 0, 0, 0, (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
                              (unsigned char)n};

        if (!s->rig->config.raw)
                buf_add(&s->out, h, sizeof(h));
        buf_add(&s->out, data, n);
        server_flush(s);
}

static void say(struct server *s, const char *text)
{
        _cleanup_free_ char *line = mem_printf("%s\n", text);

        frame(s, 1, line, strlen(line));
}

static void say_result(struct server *s, long id, const char *result)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}", id, result);

        say(s, text);
}

static void say_error(struct server *s, long id, const char *error)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"error\":%s}", id, error);

        say(s, text);
}

static bool is(const char *line, const char *method)
{
        _cleanup_free_ char *text = mem_printf("\"method\":\"%s\"", method);

        return strstr(line, text) != NULL;
}

static void answer(struct server *s, long id, const char *result, const char *error)
{
        if (!result)
                say_error(s, id, error ? error : UNKNOWN);
        else if (*result)
                say_result(s, id, result);
}

static void server_line(struct server *s, const char *line)
{
        const char *p = strstr(line, "\"id\":");
        long id = p ? strtol(p + 5, NULL, 10) : 0;

        buf_adds(&s->log, line);
        buf_addc(&s->log, '\n');
        if (is(line, "server/discover")) {
                answer(s, id, s->discover, s->discover_error);
                return;
        }
        if (is(line, "initialize")) {
                answer(s, id, s->initialize, NULL);
                return;
        }
        s->n_calls += id > 0;
        s->last_id = id > 0 ? id : s->last_id;
        if (s->script)
                s->script(s, line, id);
        else if (id > 0)
                say_result(s, id, "{\"ok\":true}");
}

static void server_read(struct server *s)
{
        char chunk[65536], *end;
        ssize_t n = recv(s->fd, chunk, sizeof(chunk), MSG_DONTWAIT);

        if (n <= 0) {
                if (n == 0 || errno != EAGAIN)
                        server_leave(s);
                return;
        }
        buf_add(&s->in, chunk, (size_t)n);
        while (s->in.len > 0 && (end = memchr(s->in.data, '\n', s->in.len))) {
                *end = '\0';
                server_line(s, s->in.data);
                buf_drop(&s->in, (size_t)(end - s->in.data) + 1);
        }
}

static int on_server_io(_unused_ sd_event_source *source, _unused_ int fd, uint32_t revents, void *user)
{
        struct server *s = user;

        if (revents & EPOLLOUT)
                server_flush(s);
        if (s->fd >= 0 && revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
                server_read(s);
        return 0;
}

static void server_deinit(struct server *s)
{
        server_leave(s);
        buf_deinit(&s->in);
        buf_deinit(&s->out);
        buf_deinit(&s->log);
}
#define _cleanup_server_ _cleanup_(server_deinit)

static void connect_pair(struct rig *r, struct server *s)
{
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        s->rig = r;
        s->fd = fds[1];
        r->server = s;
        r->config.fd = fds[0];
        assert_true(sd_event_add_io(r->loop, &s->io, s->fd, EPOLLIN, on_server_io, s) >= 0);
}

static void start(struct rig *r, struct server *s)
{
        struct err *err = NULL;

        connect_pair(r, s);
        assert_ok(upstream_stdio_new(&r->u, r->loop, &r->config, &rig_events, r, &err));
        assert_false(r->ready);
}

static void start_ready(struct rig *r, struct server *s)
{
        start(r, s);
        rig_wait(r, &r->ready);
}

static void assert_says(const struct err *err, const char *part)
{
        assert_non_null(err);
        if (!strstr(err_msg(err), part))
                print_error("expected \"%s\" in: %s\n", part, err_msg(err));
        assert_non_null(strstr(err_msg(err), part));
}

/* The session is over, and this is why. */
static void assert_ends(struct rig *r, const char *part)
{
        rig_wait(r, &r->ended);
        assert_says(r->why, part);
        assert_says(r->why, "server web: ");
}

/* -- the handshake ---------------------------------------------------------------------------------------------------------------- */

static void test_modern(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = MODERN};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.capabilities = mcp_slice_of("{\"roots\":{}}");
        start_ready(r, &s);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
        assert_int_equal(upstream_revision(r->u), MCP_2026_07_28);
        assert_true(upstream_is_ready(r->u));
        assert_true(mcp_has(upstream_info(r->u)->capabilities));
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\""));
        assert_non_null(strstr(s.log.data, "\"io.modelcontextprotocol/clientCapabilities\":{\"roots\":{}}"));
        assert_non_null(strstr(s.log.data, "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"bulkhead\""));
        /* One line: no initialize, nothing behind it. */
        assert_ptr_equal(strchr(s.log.data, '\n'), s.log.data + s.log.len - 1);
        assert_false(upstream_probe_failed(r->u));
}

static void test_legacy(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        start_ready(r, &s);
        assert_int_equal(upstream_era(r->u), MCP_ERA_LEGACY);
        assert_int_equal(upstream_revision(r->u), MCP_2025_11_25);
        assert_true(mcp_is(upstream_info(r->u)->instructions, "\"be kind\""));
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"bulkhead\""));
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n"));
}

static void test_legacy_older(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2024-11-05")};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.legacy_only = true;
        start_ready(r, &s);
        assert_int_equal(upstream_revision(r->u), MCP_2024_11_05);
        assert_null(strstr(s.log.data, "server/discover"));
}

static void test_legacy_silent(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = INIT("2025-06-18")};
        _cleanup_rig_ struct rig *r = rig_new();
        uint64_t begun = now_us();

        r->config.limits.probe_ms = 150;
        start_ready(r, &s);
        assert_int_equal(upstream_revision(r->u), MCP_2025_06_18);
        assert_true(now_us() - begun >= 150000);
        /* Nothing that a server before its handshake need not expect. */
        assert_null(strstr(s.log.data, "cancelled"));
}

static void say_discovered(struct server *s, _unused_ const char *line, _unused_ long id)
{
        say_result(s, 1, MODERN);
}

/* Slow to start, not legacy: it refuses initialize, then answers the probe. */
static void test_modern_slow(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .script = say_discovered};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.limits.probe_ms = 50;
        start(r, &s);
        rig_run(r, 100);
        assert_non_null(strstr(s.log.data, "initialize"));
        assert_false(r->ready || r->ended);
        say_result(&s, 1, MODERN);
        rig_wait(r, &r->ready);
        assert_int_equal(upstream_era(r->u), MCP_ERA_MODERN);
}

static void test_versions(_unused_ void **state)
{
        static const struct {
                const char *supported;
                enum mcp_era era; /* MCP_ERA_UNKNOWN = it ends */
        } cases[] = {
                {"[\"2025-06-18\",\"2025-11-25\"]", MCP_ERA_LEGACY},
                {"[\"2031-01-01\"]", MCP_ERA_UNKNOWN},
                {"[\"2031-01-01\",\"2025-11-25\"]", MCP_ERA_LEGACY},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                for (int as_error = 0; as_error < 2; as_error++) {
                        _cleanup_free_ char *error =
                                mem_printf("{\"code\":-32022,\"message\":\"no\",\"data\":{\"supported\":%s}}", cases[i].supported);
                        _cleanup_free_ char *result = mem_printf("{\"supportedVersions\":%s}", cases[i].supported);
                        _cleanup_server_ struct server s = {
                                .discover = as_error ? NULL : result, .discover_error = error, .initialize = INIT("2025-11-25")};
                        _cleanup_rig_ struct rig *r = rig_new();

                        start(r, &s);
                        if (cases[i].era == MCP_ERA_UNKNOWN) {
                                assert_ends(r, "speaks no revision of MCP that we do");
                        } else {
                                rig_wait(r, &r->ready);
                                assert_int_equal(upstream_era(r->u), cases[i].era);
                        }
                }
}

/* A server that refuses the very version it names, once. */
static void test_version_again(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover_error =
                                                    "{\"code\":-32022,\"message\":\"no\",\"data\":{\"supported\":[\"2026-07-28\"]}}",
                                            .initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        start(r, &s);
        assert_ends(r, "speaks no revision");
        assert_non_null(strstr(s.log.data, "\"id\":2,\"method\":\"server/discover\""));
        assert_null(strstr(s.log.data, "initialize"));
}

static void test_handshake_refused(_unused_ void **state)
{
        _cleanup_server_ struct server s = {0};
        _cleanup_rig_ struct rig *r = rig_new();

        start(r, &s);
        assert_ends(r, "refuses initialize: Method not found (code -32601)");
        assert_true(upstream_probe_failed(r->u));
}

static void test_handshake_revision(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2019-01-01")};
        _cleanup_rig_ struct rig *r = rig_new();

        start(r, &s);
        assert_ends(r, "a revision of MCP that we do not speak");
}

static void test_handshake_timeout(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = ""};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.limits.probe_ms = 50;
        r->config.limits.handshake_ms = 150;
        start(r, &s);
        assert_ends(r, "did not finish the handshake within 150 ms");
        assert_int_equal(err_code(r->why), ERR_TIMEOUT);
        assert_true(upstream_probe_failed(r->u));
        assert_false(upstream_is_ready(r->u));
}

/* An error that does not say what it is about: only the handshake can be meant. */
static void test_handshake_error_without_id(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        start(r, &s);
        rig_run(r, 20);
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,\"message\":\"?\"}}");
        rig_wait(r, &r->ready);
        assert_int_equal(upstream_era(r->u), MCP_ERA_LEGACY);
}

static void leave_at_once(struct server *s, _unused_ const char *line, _unused_ long id)
{
        server_leave(s);
}

static void test_exits_on_probe(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = ""};
        _cleanup_rig_ struct rig *r = rig_new();

        start(r, &s);
        frame(&s, 2, "Error: not initialized\n", 23);
        rig_run(r, 20);
        server_leave(&s);
        assert_ends(r, "it ended; it last said: Error: not initialized");
        assert_true(upstream_probe_failed(r->u));
}

/* -- calls ------------------------------------------------------------------------------------------------------------------------ */

static void test_call(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};
        struct upstream_request odd = {.method = MCP_M_UNKNOWN, .method_name = "x/y", .timeout_ms = 5000};

        start_ready(r, &s);
        rig_ask(r, &a, "{\"name\":\"t\",\r\n\t\"arguments\":{\"x\":\n1}}");
        rig_ask_more(r, &b, &odd);
        assert_int_equal(upstream_calls(r->u), 2);
        rig_wait(r, &a.over);
        rig_wait(r, &b.over);
        assert_string_equal(a.result, "{\"ok\":true}");
        assert_non_null(strstr(s.log.data, "\"method\":\"tools/call\",\"params\":{\"name\":\"t\",  \t\"arguments\":{\"x\": 1}}}\n"));
        assert_non_null(strstr(s.log.data, "\"method\":\"x/y\"}\n"));
        assert_int_equal(upstream_calls(r->u), 0);
}

static void say_many(struct server *s, _unused_ const char *line, long id)
{
        if (id > 0)
                s->last_id = id;
}

/* Answers in any order reach their own call. */
static void test_many(_unused_ void **state)
{
        enum { N = 90 };
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        struct asked a[N] = {0};

        start_ready(r, &s);
        for (int i = 0; i < N; i++)
                rig_ask(r, &a[i], "{}");
        while (s.n_calls < N)
                rig_run(r, 5);
        for (long i = 0; i < N; i++) {
                long k = (i * 37) % N; /* 37 and 90 have no common divisor */
                _cleanup_free_ char *text = mem_printf("{\"n\":%ld}", k);
                say_result(&s, s.last_id - (N - 1) + k, text);
        }
        for (int i = 0; i < N; i++) {
                _cleanup_free_ char *text = mem_printf("{\"n\":%d}", i);
                rig_wait(r, &a[i].over);
                assert_string_equal(a[i].result, text);
                assert_int_equal(a[i].n_done, 1);
                asked_deinit(&a[i]);
        }
}

static void test_limits(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked early = {0}, a = {0}, b = {0}, c = {0};
        _cleanup_free_ char *large = mem_printf("{\"x\":\"%070000d\"}", 0);

        r->config.limits.max_calls = 1;
        r->config.limits.max_message = 65536;
        start(r, &s);
        rig_ask(r, &early, "{}");
        rig_wait(r, &early.over);
        assert_says(early.why, "there is no session");
        assert_int_equal(err_code(early.why), ERR_UNAVAILABLE);
        rig_wait(r, &r->ready);
        rig_ask(r, &a, large);
        rig_wait(r, &a.over);
        assert_says(a.why, "over the limit of 65536");
        rig_ask(r, &b, "{}");
        rig_ask(r, &c, "{}");
        rig_wait(r, &c.over);
        assert_int_equal(err_code(c.why), ERR_LIMIT);
        assert_false(b.over);
        assert_false(r->ended);
}

static void progress(struct server *s, const char *token, int value)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":%d,"
                                               "\"progressToken\":%s,\"message\":\"m\"}}",
                                               value, token);
        say(s, text);
}

static void test_progress(_unused_ void **state)
{
        static const char params[] = "{\"name\":\"t\",\"_meta\":{\"progressToken\":\"tok\\\"en\"},\"arguments\":{}}";
        const char *token = strstr(params, "\"tok");
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                     .params = mcp_slice_of(params),
                                     .timeout_ms = 5000,
                                     .progress_token = {token, strlen("\"tok\\\"en\"")}};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, plain = {0};
        _cleanup_free_ char *sent = NULL, *ours = NULL;

        start_ready(r, &s);
        rig_ask_more(r, &a, &q);
        rig_ask(r, &plain, "{}");
        while (s.n_calls < 2)
                rig_run(r, 5);
        sent = mem_printf("{\"name\":\"t\",\"_meta\":{\"progressToken\":%ld},\"arguments\":{}}", s.last_id - 1);
        assert_non_null(strstr(s.log.data, sent));
        ours = mem_printf("%ld", s.last_id - 1);
        progress(&s, ours, 1);
        progress(&s, "\"tok\\\"en\"", 2); /* the caller's token means nothing here */
        progress(&s, "99999", 3);
        progress(&s, "-1", 4);
        {
                _cleanup_free_ char *other = mem_printf("%ld", s.last_id); /* asked for none */
                progress(&s, other, 5);
        }
        rig_run(r, 30);
        assert_int_equal(a.n_notes, 1);
        assert_string_equal(a.note, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":1,"
                                    "\"progressToken\":\"tok\\\"en\",\"message\":\"m\"}}");
        assert_int_equal(plain.n_notes, 0);
        assert_int_equal(r->n_notes, 0);
        assert_int_equal(upstream_ignored(r->u), 4);
}

static void test_timeouts(_unused_ void **state)
{
        static const char params[] = "{\"_meta\":{\"progressToken\":7}}";
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                     .params = mcp_slice_of(params),
                                     .timeout_ms = 300,
                                     .cap_ms = 1000,
                                     .progress_token = {strchr(params, '7'), 1}};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked silent = {0}, busy = {0}, other = {0};
        uint64_t begun, took;
        _cleanup_free_ char *token = NULL, *told = NULL;

        start_ready(r, &s);
        rig_ask(r, &other, "{}"); /* has a later deadline */
        begun = now_us();
        rig_ask_more(r, &silent, &q);
        rig_ask_more(r, &busy, &q);
        while (s.n_calls < 3)
                rig_run(r, 5);
        token = mem_printf("%ld", s.last_id);
        for (int i = 0; !busy.over; i++) {
                if (now_us() - begun < 800000)
                        assert_false(busy.over);
                progress(&s, token, i);
                rig_run(r, 20);
                if (silent.over && !told) {
                        took = now_us() - begun;
                        assert_true(took >= 300000);
                        told = mem_printf("\"notifications/cancelled\",\"params\":{\"requestId\":%ld,", s.last_id - 1);
                        assert_says(silent.why, "no answer to tools/call within 300 ms");
                        assert_int_equal(err_code(silent.why), ERR_TIMEOUT);
                }
                assert_true(i < 200);
        }
        assert_true(now_us() - begun >= 1000000);
        assert_says(busy.why, "took longer than 1000 ms in all");
        assert_true(busy.n_notes > 3);
        assert_non_null(told);
        assert_non_null(strstr(s.log.data, told));
        /* Late answers are nobody's, and no offence. */
        say_result(&s, s.last_id, "{}");
        say_result(&s, s.last_id - 1, "{}");
        rig_run(r, 20);
        assert_int_equal(upstream_ignored(r->u), 0);
        assert_false(r->ended || other.over);
}

static void test_cancel(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *told = NULL;

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        while (s.n_calls < 1)
                rig_run(r, 5);
        rig_cancel(&a, "not \"needed\"");
        told = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%ld,"
                          "\"reason\":\"not \\\"needed\\\"\"}}\n",
                          s.last_id);
        say_result(&s, s.last_id, "{}");
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, told));
        assert_false(a.over);
        assert_int_equal(upstream_calls(r->u), 0);
        assert_int_equal(upstream_ignored(r->u), 0);
}

static void test_server_asks(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.discover = "", .initialize = "", .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();

        r->config.limits.probe_ms = 10;
        r->answer = true;
        start(r, &s);
        rig_run(r, 40);
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}");
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"method\":\"roots/list\"}");
        say_result(&s, 2, INIT("2025-11-25"));
        rig_wait(r, &r->ready);
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}\n"));
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"id\":\"r\",\"error\":{\"code\":-32600,"));
        assert_int_equal(r->n_requests, 0);
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"roots/list\"}");
        say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":5}}");
        rig_run(r, 20);
        assert_int_equal(r->n_requests, 1);
        assert_null(r->request_on);
        assert_string_equal(r->request_id, "5");
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{\"a\":1}}\n"));
        assert_string_equal(r->withdrawn, "5");
        upstream_notify(r->u, "notifications/roots/list_changed", (struct mcp_slice){0});
        rig_run(r, 20);
        assert_non_null(strstr(s.log.data, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/roots/list_changed\"}\n"));
}

/* Modern: a subscription's notifications carry the call's id, and the server may end it. */
static void test_subscription(_unused_ void **state)
{
        struct upstream_request q = {.method = MCP_M_LISTEN, .params = mcp_slice_of("{\"notifications\":{}}")};
        _cleanup_server_ struct server s = {.discover = MODERN, .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *note = NULL, *end = NULL;

        start_ready(r, &s);
        rig_ask_more(r, &a, &q);
        while (s.n_calls < 1)
                rig_run(r, 5);
        note = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"_meta\":{"
                          "\"io.modelcontextprotocol/subscriptionId\":%ld}}}",
                          s.last_id);
        say(&s, note);
        say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\",\"params\":{\"_meta\":{"
                "\"io.modelcontextprotocol/subscriptionId\":77}}}");
        rig_run(r, 20);
        assert_int_equal(a.n_notes, 1);
        assert_int_equal(r->n_notes, 1);
        end = mem_printf("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%ld}}", s.last_id);
        say(&s, end);
        rig_wait(r, &a.over);
        assert_says(a.why, "ended the subscription");
        assert_false(r->ended);
}

static void test_batch(_unused_ void **state)
{
        for (int old = 0; old < 2; old++) {
                _cleanup_server_ struct server s = {.initialize = old ? INIT("2025-03-26") : INIT("2025-06-18"), .script = say_many};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0}, b = {0};
                _cleanup_free_ char *text = NULL;

                start_ready(r, &s);
                rig_ask(r, &a, "{}");
                rig_ask(r, &b, "{}");
                while (s.n_calls < 2)
                        rig_run(r, 5);
                text = mem_printf("[{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}},{\"jsonrpc\":\"2.0\",\"method\":\"x\"},"
                                  "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":2}}]",
                                  s.last_id, s.last_id - 1);
                say(&s, text);
                rig_run(r, 30);
                assert_int_equal(a.over, old);
                assert_int_equal(b.over, old);
                assert_int_equal(r->n_notes, old);
                if (old)
                        assert_string_equal(a.result, "{\"n\":2}");
        }
}

/* -- hostile servers ---------------------------------------------------------------------------------------------------------------- */

static void test_split(_unused_ void **state)
{
        for (int raw = 0; raw < 2; raw++) {
                _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .step = 1};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {0};

                r->config.raw = raw;
                start_ready(r, &s);
                rig_ask(r, &a, "{}");
                rig_wait(r, &a.over);
                assert_string_equal(a.result, "{\"ok\":true}");
        }
}

/* A message over many frames, standard error between them, several messages in one frame. */
static void test_frames(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0}, c = {0};
        _cleanup_free_ char *text = NULL;

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        rig_ask(r, &b, "{}");
        rig_ask(r, &c, "{}");
        while (s.n_calls < 3)
                rig_run(r, 5);
        text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":1}}\n{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":2}}\r\n"
                          "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"n\":3}}\n",
                          s.last_id - 2, s.last_id - 1, s.last_id);
        frame(&s, 1, text, 20);
        frame(&s, 2, "noise\n", 6);
        frame(&s, 1, text + 20, 0);
        frame(&s, 1, text + 20, strlen(text) - 30);
        frame(&s, 1, text + strlen(text) - 10, 10);
        rig_wait(r, &c.over);
        assert_string_equal(a.result, "{\"n\":1}");
        assert_string_equal(b.result, "{\"n\":2}");
        assert_string_equal(c.result, "{\"n\":3}");
}

static void test_bad_frame(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        buf_add(&s.out, "HTTP/1.1", 8);
        server_flush(&s);
        assert_ends(r, "is not the beginning of a frame");
        assert_true(a.over);
        assert_says(a.why, "is not the beginning of a frame");
}

static void test_noise(_unused_ void **state)
{
        static const char *const lines[] = {
                "Server listening on stdio", "", "  \t ", "{\"level\":\"info\"}", "[1,2]", "{", "\xff\xfe", "null"};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        start_ready(r, &s);
        for (int round = 0; round < 8; round++)
                for (size_t i = 0; i < ELEMENTSOF(lines); i++)
                        say(&s, lines[i]);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(upstream_ignored(r->u), 48); /* but for the empty ones; the bound is 50 in a row */
        for (int i = 0; i < 60; i++)
                say(&s, "la la la");
        assert_ends(r, "more than 50 lines in a row");
        assert_false(b.over);
}

static void test_strays(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};
        uint64_t before;

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        before = upstream_ignored(r->u);
        say_result(&s, s.last_id, "{\"again\":true}");
        say_result(&s, 12345678, "{}");
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}");
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":-3,\"result\":{}}");
        say(&s, "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}");
        say(&s, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"?\"}}");
        rig_ask(r, &b, "{}");
        rig_wait(r, &b.over);
        assert_string_equal(b.result, "{\"ok\":true}");
        assert_int_equal(a.n_done, 1);
        assert_int_equal(upstream_ignored(r->u) - before, 6);
        for (long i = 0; i < 60; i++)
                say_result(&s, 1000 + i, "{}");
        assert_ends(r, "answers to nothing that was asked");
}

/* An answer that two parsers could read differently is none, and its caller hears so now. */
static void test_refused_answer(_unused_ void **state)
{
        static const char *const forms[] = {
                "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"a\":1,\"a\":2}}",
                "{\"result\":{\"id\":1,\"x\":{\"id\":\"}\\\"\"},\"n\":99999999999999999999},\"jsonrpc\":\"2.0\",\"id\" : %ld}",
                "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{},\"error\":{\"code\":1,\"message\":\"\"}}",
                "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"x\":\"\\ud800\"}}",
        };
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();

        start_ready(r, &s);
        for (size_t i = 0; i < ELEMENTSOF(forms); i++) {
                _cleanup_asked_ struct asked a = {0}, other = {0};
                char text[256];

                rig_ask(r, &other, "{}");
                rig_ask(r, &a, "{}");
                s.n_calls = 0;
                while (s.n_calls < 2)
                        rig_run(r, 5);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                snprintf(text, sizeof(text), forms[i], s.last_id);
#pragma GCC diagnostic pop
                say(&s, text);
                rig_wait(r, &a.over);
                assert_says(a.why, "server web: its answer to tools/call is refused: ");
                assert_false(other.over);
                rig_cancel(&other, NULL);
        }
}

static void test_endless_line(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *part = mem_printf("{\"x\":\"%030000d", 0);

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        for (int i = 0; i < 40; i++)
                frame(&s, 1, part, strlen(part));
        assert_ends(r, "a line of more than 1048576 bytes (gateway.max_message)");
        assert_int_equal(err_code(r->why), ERR_LIMIT);
        assert_int_equal(a.n_done, 1);
}

static void test_flood(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        start_ready(r, &s);
        for (int i = 0; i < 20000; i++)
                say(&s, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}");
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_int_equal(r->n_notes, 20000);
}

static void test_mid_frame(_unused_ void **state)
{
        static const char header[8] = {1, 0, 0, 0, 0, 0, 1, 0};
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        frame(&s, 2, "panic: \x1b[31mout of luck\n\tat line 3\n", 36);
        buf_add(&s.out, header, sizeof(header));
        buf_adds(&s.out, "{\"jsonrpc\":\"2.0\",");
        server_flush(&s);
        rig_run(r, 20);
        server_leave(&s);
        assert_ends(r, "it ended in the middle of a message; it last said: panic: \\x1b[31mout of luck");
        assert_says(a.why, "in the middle of a message");
        assert_false(upstream_probe_failed(r->u));
}

/* What it answered before it closed its input is not lost. */
static void test_last_answers(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        while (s.n_calls < 1)
                rig_run(r, 5);
        say_result(&s, s.last_id, "{\"done\":1}");
        server_leave(&s);
        rig_ask(r, &b, "{}"); /* finds out */
        rig_wait(r, &r->ended);
        assert_string_equal(a.result, "{\"done\":1}");
        assert_says(b.why, "server web: ");
}

static void test_never_reads(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_free_ char *params = mem_printf("{\"x\":\"%0100000d\"}", 0);
        struct asked a[60] = {0};
        unsigned refused = 0;

        r->config.limits.max_queued = 1000000;
        start_ready(r, &s);
        rig_run(r, 20);
        assert_true(sd_event_source_set_enabled(s.io, SD_EVENT_OFF) >= 0);
        for (size_t i = 0; i < ELEMENTSOF(a); i++)
                rig_ask(r, &a[i], params);
        rig_run(r, 30);
        for (size_t i = 0; i < ELEMENTSOF(a); i++)
                if (a[i].over) {
                        assert_says(a[i].why, "does not read its input");
                        refused++;
                }
        assert_true(refused >= 40 && refused <= 55);
        /* Once it reads again, nothing is lost and nothing is cut. */
        assert_true(sd_event_source_set_enabled(s.io, SD_EVENT_ON) >= 0);
        for (size_t i = 0; i < ELEMENTSOF(a); i++) {
                rig_wait(r, &a[i].over);
                assert_true(a[i].why || a[i].result);
                asked_deinit(&a[i]);
        }
        assert_int_equal(s.n_calls, ELEMENTSOF(a) - refused);
}

static void test_stderr_flood(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_free_ char *tail = NULL, *text = mem_printf("%050000d\n", 0);

        start_ready(r, &s);
        for (int i = 0; i < 100; i++)
                frame(&s, 2, text, strlen(text));
        frame(&s, 2, "the \xc3\xa4nd\n\n", 11);
        rig_ask(r, &a, "{}");
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        tail = upstream_stderr_tail(r->u);
        assert_true(strlen(tail) <= 500);
        assert_true(str_has_suffix(tail, "0000 the \xc3\xa4nd"));
        frame(&s, 2, text, 0);
        for (int i = 0; i < 300; i++)
                frame(&s, 2, "\x1b\x01", 2);
        rig_run(r, 20);
        mem_replace(&tail, upstream_stderr_tail(r->u));
        assert_true(strlen(tail) <= 500 && str_has_suffix(tail, "\\x1b\\x01"));
}

/* Answers of 4 and of 64 MiB: sixteen times as much costs about sixteen times the time. */
static uint64_t large_answer(size_t mib, size_t per_frame)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0};
        _cleanup_buf_ struct buf text = {0};
        size_t n = mib << 20;
        uint64_t begun;

        r->config.limits.max_message = 65U << 20;
        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        while (s.n_calls < 1)
                rig_run(r, 1);
        buf_addf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"x\":\"", s.last_id);
        while (text.len < n)
                buf_adds(&text, "0123456789 abcdefghijklmnopqrstuvwxyz \\n ");
        buf_adds(&text, "\"}}\n");
        begun = now_us();
        for (size_t at = 0; at < text.len; at += per_frame)
                frame(&s, 1, text.data + at, MIN(per_frame, text.len - at));
        rig_wait(r, &a.over);
        assert_non_null(a.result);
        assert_true(strlen(a.result) > n - 100);
        return MAX(now_us() - begun, 1);
}

static void test_large(_unused_ void **state)
{
        uint64_t small = large_answer(4, 32768), large = large_answer(64, 32768);

        print_message("4 MiB in %llu us, 64 MiB in %llu us\n", (unsigned long long)small, (unsigned long long)large);
        assert_true(large < 16 * 6 * small);
}

/* -- freed from inside ---------------------------------------------------------------------------------------------------------------- */

static void test_free_in_ready(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25")};
        _cleanup_rig_ struct rig *r = rig_new();

        r->free_in_ready = true;
        start(r, &s);
        rig_wait(r, &r->ready);
        rig_wait(r, &s.gone);
        assert_null(r->u);
        assert_false(r->ended);
}

static void test_free_in_ended(_unused_ void **state)
{
        _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = leave_at_once};
        _cleanup_rig_ struct rig *r = rig_new();
        _cleanup_asked_ struct asked a = {0}, b = {0};

        r->free_in_ended = true;
        start_ready(r, &s);
        rig_ask(r, &a, "{}");
        rig_ask(r, &b, "{}");
        rig_wait(r, &r->ended);
        assert_true(a.over && b.over);
        assert_null(r->u);
}

static void test_free_in_done(_unused_ void **state)
{
        for (int by_end = 0; by_end < 2; by_end++) {
                _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = by_end ? leave_at_once : NULL};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {.free_in_done = true}, b = {.free_in_done = true};

                start_ready(r, &s);
                rig_ask(r, &a, "{}");
                rig_ask(r, &b, "{}");
                rig_wait(r, &b.over);
                assert_true(a.over);
                assert_int_equal(a.n_done + b.n_done, 2);
                assert_false(r->ended);
                rig_wait(r, &s.gone);
        }
}

/* Two messages in one frame: the second finds nobody. */
static void test_free_in_others(_unused_ void **state)
{
        for (int i = 0; i < 5; i++) {
                static const char params[] = "{\"_meta\":{\"progressToken\":7}}";
                struct upstream_request q = {.method = MCP_M_TOOLS_CALL,
                                             .params = mcp_slice_of(params),
                                             .timeout_ms = 5000,
                                             .progress_token = {strchr(params, '7'), 1}};
                _cleanup_server_ struct server s = {.initialize = INIT("2025-11-25"), .script = say_many};
                _cleanup_rig_ struct rig *r = rig_new();
                _cleanup_asked_ struct asked a = {.free_in_note = i == 3, .cancel_in_note = i == 4};
                _cleanup_free_ char *text = NULL;

                r->free_in_note = i == 0;
                r->free_in_request = i == 1;
                r->free_in_withdrawn = i == 2;
                start_ready(r, &s);
                rig_ask_more(r, &a, &q);
                while (s.n_calls < 1)
                        rig_run(r, 5);
                text = mem_printf("%s\n{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":%ld,"
                                  "\"progress\":1}}\n{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n",
                                  i == 0   ? "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}"
                                  : i == 1 ? "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}"
                                           : "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}",
                                  s.last_id);
                frame(&s, 1, text, strlen(text));
                if (i == 4) {
                        rig_run(r, 20);
                        assert_false(a.over);
                        assert_non_null(strstr(s.log.data, "\"reason\":\"enough\""));
                        continue;
                }
                rig_wait(r, &s.gone);
                assert_null(r->u);
                assert_int_equal(a.n_done, 1);
                assert_says(a.why, "the session was closed");
                assert_int_equal(r->n_notes, i == 0);
                assert_false(r->ended);
        }
}

/* A descriptor that cannot be used stays the caller's. */
static void test_bad_descriptor(_unused_ void **state)
{
        _cleanup_rig_ struct rig *r = rig_new();
        struct err *err = NULL;
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        r->config.fd = fds[0];
        assert_fails(upstream_stdio_new(&r->u, r->loop, &r->config, &rig_events, r, &err), "is no socket");
        assert_null(r->u);
        assert_int_equal(close(fds[0]), 0);
        assert_int_equal(close(fds[1]), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_modern),
                cmocka_unit_test(test_legacy),
                cmocka_unit_test(test_legacy_older),
                cmocka_unit_test(test_legacy_silent),
                cmocka_unit_test(test_modern_slow),
                cmocka_unit_test(test_versions),
                cmocka_unit_test(test_version_again),
                cmocka_unit_test(test_handshake_refused),
                cmocka_unit_test(test_handshake_revision),
                cmocka_unit_test(test_handshake_timeout),
                cmocka_unit_test(test_handshake_error_without_id),
                cmocka_unit_test(test_exits_on_probe),
                cmocka_unit_test(test_call),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_progress),
                cmocka_unit_test(test_timeouts),
                cmocka_unit_test(test_cancel),
                cmocka_unit_test(test_server_asks),
                cmocka_unit_test(test_subscription),
                cmocka_unit_test(test_batch),
                cmocka_unit_test(test_split),
                cmocka_unit_test(test_frames),
                cmocka_unit_test(test_bad_frame),
                cmocka_unit_test(test_noise),
                cmocka_unit_test(test_strays),
                cmocka_unit_test(test_refused_answer),
                cmocka_unit_test(test_endless_line),
                cmocka_unit_test(test_flood),
                cmocka_unit_test(test_mid_frame),
                cmocka_unit_test(test_last_answers),
                cmocka_unit_test(test_never_reads),
                cmocka_unit_test(test_stderr_flood),
                cmocka_unit_test(test_large),
                cmocka_unit_test(test_free_in_ready),
                cmocka_unit_test(test_free_in_ended),
                cmocka_unit_test(test_free_in_done),
                cmocka_unit_test(test_free_in_others),
                cmocka_unit_test(test_bad_descriptor),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
