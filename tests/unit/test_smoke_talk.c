/*
 * The smoke test's helper: its parsers byte by byte, and the whole program against honest and hostile servers over framed stdio.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/talk.h"
#include "common/smoke/talk_message.h"
#include "common/spawn.h"
#include "tests/unit/test.h"
#include "tests/unit/test_smoke_harness.h"

#define ECHO    "tests/rig/servers/mcp_echo"
#define HOSTILE "tests/rig/servers/mcp_hostile"

/* -- messages ------------------------------------------------------------------------------------------------------------------ */

static void test_messages(_unused_ void **state)
{
        static const struct {
                const char *text;
                int r;
                const char *why;
        } table[] = {
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", 0, NULL},
                {"  {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\r", 0, NULL},
                {"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"ping\"}", 0, NULL},
                {"{\"jsonrpc\":\"2.0\",\"method\":\"m\"}", 0, NULL},
                {"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-1,\"message\":\"m\"}}", 0, NULL},
                {"", 1, NULL},
                {"Server listening", 1, NULL},
                {"{ port: 3000 }", 1, NULL},
                {"{\"level\":\"info\"}", 1, NULL},
                {"[1]", 1, NULL},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":1,\"a\":2}}", -1, "a"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}", -1, "message:1"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":18446744073709551616}}", -1, "message:1"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":\"\\u0000\"}}", -1, "message:1"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"n\":\"\xff\"}}", -1, "message:1"},
                {"{\"jsonrpc\":\"1.0\",\"id\":1,\"result\":{}}", -1, "2.0"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1}", -1, "either"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{\"code\":1,\"message\":\"m\"}}", -1, "either"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[]}", -1, "not an object"},
                {"{\"jsonrpc\":\"2.0\",\"result\":{}}", -1, "without an \"id\""},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":\"1\",\"message\":\"m\"}}", -1, "error.code"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":null}", -1, "not an object"},
                {"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"m\"}", -1, "neither a string"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":3}", -1, "not a string"},
                {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"result\":{}}", -1, "neither"},
                {"[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}]", -1, "batch"},
        };
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_talk_message_ struct talk_message m = {.id = -1};
                _cleanup_err_ struct err *err = NULL;
                int r = talk_message_parse(&m, table[i].text, strlen(table[i].text), &err);

                if (r != table[i].r)
                        print_error("%s: %d, %s\n", table[i].text, r, err_msg(err));
                assert_int_equal(r, table[i].r);
                if (table[i].why && !strstr(err_msg(err), table[i].why))
                        fail_msg("%s: %s", table[i].text, err_msg(err));
        }
}

/* -- the manifest ---------------------------------------------------------------------------------------------------------------- */

static json_object *parse(const char *text)
{
        _cleanup_err_ struct err *err = NULL;
        json_object *o = NULL;

        assert_ok(json_parse(&o, text, strlen(text), "test", NULL, &err));
        return o;
}

static int page(struct talk_manifest *m, enum talk_list list, const char *text, const char **cursor, struct err **err)
{
        _cleanup_json_ json_object *o = parse(text);

        return talk_manifest_page(m, list, o, cursor, err);
}

#define A "{\"name\":\"a\",\"_meta\":{\"k\":1},\"inputSchema\":{}}"
#define B "{\"inputSchema\":{},\"name\":\"b\"}"

static void test_manifest(_unused_ void **state)
{
        static const char want[] =
                "{\"instructions\":\"\",\"prompts\":[],\"resourceTemplates\":[],\"resources\":[],"
                "\"tools\":[{\"_meta\":{\"k\":1},\"inputSchema\":{},\"name\":\"a\"},{\"inputSchema\":{},\"name\":\"b\"}]}";
        _cleanup_err_ struct err *err = NULL;
        struct talk_manifest m = {0};
        char *one = NULL, *two = NULL;
        const char *cursor;

        talk_manifest_begin(&m, TALK_TOOLS);
        assert_ok(page(&m, TALK_TOOLS, "{\"tools\":[" B "],\"nextCursor\":\"x\",\"ttlMs\":5}", &cursor, &err));
        assert_string_equal(cursor, "x");
        assert_ok(page(&m, TALK_TOOLS, "{\"tools\":[" A "],\"_meta\":{\"n\":2}}", &cursor, &err));
        assert_null(cursor);
        assert_ok(talk_manifest_text(&m, &one, &err));
        assert_string_equal(one, want);
        talk_manifest_begin(&m, TALK_TOOLS);
        assert_ok(page(&m, TALK_TOOLS, "{\"tools\":[" A "," B "]}", &cursor, &err));
        assert_ok(talk_manifest_text(&m, &two, &err));
        assert_string_equal(one, two);
        free(one);
        free(two);
        talk_manifest_deinit(&m);
}

static void test_manifest_refuses(_unused_ void **state)
{
        static const struct {
                enum talk_list list;
                const char *page, *why;
        } table[] = {
                {TALK_TOOLS, "{}", "no array"},
                {TALK_TOOLS, "{\"tools\":{}}", "no array"},
                {TALK_TOOLS, "{\"tools\":[1]}", "not an object"},
                {TALK_TOOLS, "{\"tools\":[{\"inputSchema\":{}}]}", "no usable \"name\""},
                {TALK_TOOLS, "{\"tools\":[{\"name\":3,\"inputSchema\":{}}]}", "no usable \"name\""},
                {TALK_TOOLS, "{\"tools\":[{\"name\":\"a b\",\"inputSchema\":{}}]}", "A-Z"},
                {TALK_TOOLS, "{\"tools\":[{\"name\":\"a\"}]}", "inputSchema"},
                {TALK_TOOLS, "{\"tools\":[],\"nextCursor\":3}", "not a string"},
                {TALK_RESOURCES, "{\"resources\":[{\"name\":\"a\"}]}", "no usable \"uri\""},
        };
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_err_ struct err *err = NULL;
                struct talk_manifest m = {0};
                const char *cursor;

                talk_manifest_begin(&m, table[i].list);
                assert_fails(page(&m, table[i].list, table[i].page, &cursor, &err), table[i].why);
                talk_manifest_deinit(&m);
        }
}

static void test_manifest_items_bound(_unused_ void **state)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = json_object_new_object();
        json_object *list = json_object_new_array();
        struct talk_manifest m = {0};
        const char *cursor;

        for (unsigned i = 0; i <= TALK_MAX_ITEMS; i++)
                json_object_array_add(list, parse(A));
        json_add(o, "tools", list);
        talk_manifest_begin(&m, TALK_TOOLS);
        assert_fails(talk_manifest_page(&m, TALK_TOOLS, o, &cursor, &err), "more than 10000 items");
        talk_manifest_deinit(&m);
}

/* -- framing --------------------------------------------------------------------------------------------------------------------- */

/* Two streams' frames, a message over two frames, cut at every byte: always the same message and the same tail. */
static void test_split_everywhere(_unused_ void **state)
{
        static const char stream[] = "\1\0\0\0\0\0\0\5{\"a\":"
                                     "\2\0\0\0\0\0\0\3err"
                                     "\1\0\0\0\0\0\0\4"
                                     "1}\nx";
        for (size_t k = 0; k < sizeof(stream); k++) {
                _cleanup_err_ struct err *err = NULL;
                _cleanup_free_ char *text = NULL, *tail = NULL;
                struct talk_io io;
                long status;
                size_t n;
                int pair[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
                _cleanup_(talk_stdio_freep) struct talk_stdio *t = talk_stdio_new(pair[0], 1000, &io);
                assert_int_equal(write(pair[1], stream, k), k);
                int r = io.receive(io.self, &text, &n, &status, talk_now_ms() + 2, &err);
                assert_in_range(r, 0, 1);
                assert_int_equal(write(pair[1], stream + k, sizeof(stream) - 1 - k), sizeof(stream) - 1 - k);
                if (r == 1)
                        assert_ok(io.receive(io.self, &text, &n, &status, talk_now_ms() + 1000, &err));
                assert_string_equal(text, "{\"a\":1}");
                assert_int_equal(n, 7);
                tail = talk_stdio_stderr(t, &n);
                assert_string_equal(tail, "err");
                close(pair[1]);
                free(text);
                text = NULL;
                assert_fails(io.receive(io.self, &text, &n, &status, talk_now_ms() + 1000, &err), "in the middle of a message");
                close(pair[0]);
        }
}

static void test_broken_frames(_unused_ void **state)
{
        static const struct {
                const char *bytes;
                size_t n;
        } table[] = {{"\7\0\0\0\0\0\0\1x", 9}, {"\1\1\0\0\0\0\0\1x", 9}, {"\1\0\0\0\377\377\377\377", 8}, {"HTTP/1.1 200 OK", 15}};
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_err_ struct err *err = NULL;
                char *text = NULL;
                struct talk_io io;
                long status;
                size_t n;
                int pair[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
                _cleanup_(talk_stdio_freep) _unused_ struct talk_stdio *t = talk_stdio_new(pair[0], 1000, &io);
                assert_int_equal(write(pair[1], table[i].bytes, table[i].n), table[i].n);
                assert_fails(io.receive(io.self, &text, &n, &status, talk_now_ms() + 1000, &err), "attach stream");
                close(pair[0]);
                close(pair[1]);
        }
}

/* -- the whole helper ------------------------------------------------------------------------------------------------------------- */

static json_object *run(const char *const *argv, const char *call, size_t split)
{
        const struct harness h = {.transport = "stdio", .server = argv, .call = call, .split = split};
        json_object *o = harness_run(&h, NULL);

        assert_non_null(o);
        return o;
}

static void assert_passed(json_object *o, const char *protocol)
{
        if (!json_flag(o, "passed", false))
                print_error("why: %s\n", json_str(o, "why"));
        assert_true(json_flag(o, "passed", false));
        assert_string_equal(json_str(o, "protocol"), protocol);
}

static void assert_failed(json_object *o, const char *why)
{
        assert_false(json_flag(o, "passed", true));
        assert_null(json_get(o, "manifest"));
        if (!strstr(json_str(o, "why"), why))
                print_error("expected \"%s\" in: %s\n", why, json_str(o, "why"));
        assert_non_null(strstr(json_str(o, "why"), why));
}

static void test_honest(_unused_ void **state)
{
        static const char *const modern[] = {ECHO, "--stderr", "hello \033[2J", NULL}, *const legacy[] = {ECHO, "--era", "legacy", NULL};
        static const char *const newest[] = {ECHO, "--era", "modern", NULL}, *const other[] = {ECHO, "--variant", "evil", NULL};
        _cleanup_json_ json_object *a = run(modern, "{\"tool\":\"echo\",\"arguments\":{\"text\":\"x\"}}", 0), *b = run(legacy, NULL, 3);
        _cleanup_json_ json_object *c = run(newest, NULL, 1), *d = run(other, NULL, 0);

        assert_passed(a, TALK_MODERN);
        assert_passed(b, TALK_LEGACY);
        assert_passed(c, TALK_MODERN);
        assert_passed(d, TALK_MODERN);
        assert_string_equal(json_str(a, "manifest"), json_str(b, "manifest"));
        assert_string_equal(json_str(a, "manifest"), json_str(c, "manifest"));
        assert_string_not_equal(json_str(a, "manifest"), json_str(d, "manifest"));
        assert_string_equal(json_str(a, "stderr_tail"), "hello \\x1b[2J\\x0a");
        _cleanup_json_ json_object *manifest = parse(json_str(a, "manifest"));
        assert_string_equal(json_str(manifest, "instructions"), "A server for tests.");
        assert_int_equal(json_object_array_length(json_get(manifest, "tools")), json_object_array_length(json_get(a, "tools")));
        assert_int_equal(json_object_array_length(json_get(manifest, "prompts")), 1);
        assert_int_equal(json_object_array_length(json_get(manifest, "resources")), 1);
        assert_int_equal(json_object_array_length(json_get(manifest, "resourceTemplates")), 1);
}

static void test_call(_unused_ void **state)
{
        static const char *const argv[] = {ECHO, NULL};
        _cleanup_json_ json_object *a = run(argv, "{\"tool\":\"echo\",\"arguments\":{}}", 0),
                                   *b = run(argv, "{\"tool\":\"no_such_tool\"}", 0);

        assert_failed(a, "says that it failed");
        assert_failed(b, "does not list");
}

/* The same end, whether it came before or after our last words were read. */
static void test_end_of_a_server_that_did_not_read(_unused_ void **state)
{
        static const char frame[] = "\1\0\0\0\0\0\0\3{}\n";
        _cleanup_json_ json_object *message = json_object_new_object();
        const struct talk_outgoing out = {.message = message};
        _cleanup_free_ char *text = NULL;
        _cleanup_err_ struct err *err = NULL;
        struct talk_io io;
        long status;
        size_t n;
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        struct talk_stdio *t = talk_stdio_new(pair[0], 1000, &io);
        assert_ok(io.send(io.self, &out, &err));
        assert_int_equal(io.receive(io.self, &text, &n, &status, talk_now_ms() + 50, &err), 1);
        assert_int_equal(write(pair[1], frame, sizeof(frame) - 1), sizeof(frame) - 1);
        close(pair[1]);
        assert_int_equal(io.receive(io.self, &text, &n, &status, talk_now_ms() + 5000, &err), 0);
        assert_int_equal(n, 2);
        mem_replace(&text, NULL);
        assert_int_equal(io.receive(io.self, &text, &n, &status, talk_now_ms() + 5000, &err), -1);
        assert_non_null(strstr(err_msg(err), "the server ended"));
        talk_stdio_free(t);
        close(pair[0]);
}

static void test_hostile(_unused_ void **state)
{
        static const struct {
                const char *mode, *why, *tail;
        } table[] = {
                {"garbage", "not MCP messages", NULL},
                {"flood", "more than the 300000 bytes", NULL},
                {"stderr-flood", "more than the 300000 bytes", NULL},
                {"never-answer", "no answer to initialize within", NULL},
                {"no-read", "no answer to initialize within", NULL},
                {"exit-at-start", "the server ended", "out of luck"},
                {"long-line", "more than the 300000 bytes", NULL},
                {"endless-pages", "more than 100 pages", NULL},
                {"cursor-loop", "pages never end", NULL},
                {"wrong-ids", "id that was never asked", NULL},
                {"duplicate-keys", "description", NULL},
                {"twice", "listed twice", NULL},
                {"half-frame-die", "in the middle of a message", NULL},
                {"deep", "breaks the protocol", NULL},
                {"escapes", "\\x1b[2J\\u{202e} approved \\x07", "\\x1b]0;owned"},
                {"restless", "keeps saying", NULL},
        };
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                const char *const argv[] = {HOSTILE, table[i].mode, NULL};
                const struct harness h = {.transport = "stdio", .server = argv, .timeout_ms = 1500, .probe_ms = 300, .max_bytes = 300000};
                uint64_t took = 0;
                _cleanup_json_ json_object *o = harness_run(&h, &took);

                print_message("%s: %s\n", table[i].mode, json_str(o, "why"));
                assert_non_null(o);
                assert_failed(o, table[i].why);
                assert_true(strlen(json_str(o, "stderr_tail")) <= 4 * TALK_STDERR_TAIL);
                if (table[i].tail)
                        assert_non_null(strstr(json_str(o, "stderr_tail"), table[i].tail));
                assert_true(took < 15000);
        }
}

/* As the runner starts it: with little memory and time, and the 4 MiB a server may write. Whatever ends it, it is no pass. */
static void test_bombs(_unused_ void **state)
{
        static const char *const modes[] = {"bomb", "keys"};

        for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
                const char *const argv[] = {HOSTILE, modes[i], NULL};
                const struct harness h = {.transport = "stdio",
                                          .server = argv,
                                          .timeout_ms = 20000,
                                          .probe_ms = 1000,
                                          .address_space = 384 << 20,
                                          .may_die = true};
                uint64_t took = 0;
                _cleanup_json_ json_object *o = harness_run(&h, &took);

                print_message("%s: %s after %llu ms\n", modes[i], o ? json_str(o, "why") : "the helper died", (unsigned long long)took);
                assert_false(json_flag(o, "passed", false));
                assert_true(took < 25000);
        }
}

static void test_asks(_unused_ void **state)
{
        static const char *const argv[] = {HOSTILE, "asks", NULL};
        _cleanup_json_ json_object *o = run(argv, NULL, 0);

        assert_passed(o, TALK_LEGACY);
}

static void test_confined(_unused_ void **state)
{
        static const char *const argv[] = {"bulkhead-smoke-talk", "--self-check", NULL};
        const char *top = getenv("top_builddir");
        _cleanup_free_ char *path = mem_printf("%s/bulkhead-smoke-talk", top ? top : ".");
        const char *full[] = {path, argv[1], NULL};
        struct spawn_options o = {.argv = full, .drop_caps = true};
        _cleanup_err_ struct err *err = NULL;
        struct spawn_result r = {0};

        assert_ok(spawn_run(&r, &o, &err));
        assert_ok(spawn_result_check(&r, "self-check", &err));
        spawn_result_deinit(&r);
        /* The check itself must be able to fail: here, unconfined, sockets and files do open. */
        _cleanup_fd_ int fd = socket(AF_INET, SOCK_DGRAM, 0);
        assert_int_equal(talk_confine_check(fd), 12);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_messages),
                cmocka_unit_test(test_manifest),
                cmocka_unit_test(test_manifest_refuses),
                cmocka_unit_test(test_manifest_items_bound),
                cmocka_unit_test(test_split_everywhere),
                cmocka_unit_test(test_broken_frames),
                cmocka_unit_test(test_honest),
                cmocka_unit_test(test_call),
                cmocka_unit_test(test_end_of_a_server_that_did_not_read),
                cmocka_unit_test(test_hostile),
                cmocka_unit_test(test_asks),
                cmocka_unit_test(test_bombs),
                cmocka_unit_test(test_confined),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
