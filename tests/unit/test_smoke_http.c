/*
 * The smoke test's helper over HTTP: streamable HTTP and the older SSE transport, honest servers and such that redirect, flood, name
 * foreign endpoints …
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/smoke/talk.h"
#include "tests/unit/test.h"
#include "tests/unit/test_smoke_harness.h"

#define ECHO "tests/rig/servers/mcp_echo"

/* -- a scripted HTTP server: one function answers one request ------------------------------------------------------------------------ */

struct script {
        int listener;
        int events; /* SSE: the stream that stays open */
        uint16_t port;
};
/* Answers on fd; true keeps the connection open. */
typedef bool (*script_fn)(struct script *s, int fd, const char *request, const char *body);

static void put(int fd, const char *text)
{
        size_t n = strlen(text);

        while (n > 0) {
                ssize_t k = send(fd, text, n, MSG_NOSIGNAL);
                if (k <= 0)
                        return;
                text += k;
                n -= (size_t)k;
        }
}

static void respond(int fd, const char *head, const char *body)
{
        _cleanup_free_ char *text =
                mem_printf("HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", head, strlen(body), body);

        put(fd, text);
}

static bool read_request(int fd, struct buf *b, const char **body)
{
        char bytes[4096];

        for (;;) {
                ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
                const char *end, *length;

                if (n <= 0)
                        return false;
                buf_add(b, bytes, (size_t)n);
                end = strstr(b->data, "\r\n\r\n");
                length = strcasestr(b->data, "content-length:");
                if (end && b->len >= (size_t)(end + 4 - b->data) + (length && length < end ? strtoul(length + 15, NULL, 10) : 0)) {
                        *body = end + 4;
                        return true;
                }
        }
}

static pid_t start_script(struct script *s, script_fn answer)
{
        pid_t pid;

        *s = (struct script){.events = -1};
        s->listener = harness_listen(&s->port);
        pid = fork();
        if (pid != 0) {
                close(s->listener);
                return pid;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
                _cleanup_buf_ struct buf b = {0};
                const char *body;
                int fd = accept(s->listener, NULL, NULL);

                if (fd >= 0 && (!read_request(fd, &b, &body) || !answer(s, fd, b.data, body)))
                        close(fd);
        }
}

static json_object *run_script(script_fn answer, const char *transport, unsigned timeout_ms)
{
        struct script s;
        pid_t pid = start_script(&s, answer);
        const struct harness h = {.transport = transport, .port = s.port, .timeout_ms = timeout_ms, .max_bytes = 200000};
        json_object *o = harness_run(&h, NULL);

        harness_stop(pid);
        assert_non_null(o);
        return o;
}

static long id_of(const char *body)
{
        const char *p = strstr(body, "\"id\":");

        return p ? strtol(p + 5, NULL, 10) : -1;
}

#define HELLO "{\"protocolVersion\":\"2025-03-26\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}"
#define TOOLS "{\"tools\":[{\"name\":\"a\",\"inputSchema\":{\"type\":\"object\"}}]}"

static char *legacy_answer(const char *body)
{
        return mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}", id_of(body), strstr(body, "\"initialize\"") ? HELLO : TOOLS);
}

/* -- servers --------------------------------------------------------------------------------------------------------------------------- */

/* Legacy streamable HTTP as the SDKs have it: 400 with an id made up for what they do not know, events, a session that must come back. */
static bool legacy(_unused_ struct script *s, int fd, const char *request, const char *body)
{
        _cleanup_free_ char *answer = legacy_answer(body), *events = NULL;
        bool has_session = strstr(request, "Mcp-Session-Id: s-1") != NULL;

        if (strstr(body, "server/discover"))
                respond(fd, "400 Bad Request\r\nContent-Type: application/json",
                        "{\"jsonrpc\":\"2.0\",\"id\":\"server-error\",\"error\":{\"code\":-32600,\"message\":\"Missing session ID\"}}");
        else if (strstr(body, "\"initialize\"") ? has_session : !has_session || !strstr(request, "MCP-Protocol-Version: 2025-03-26"))
                respond(fd, "400 Bad Request", "");
        else if (id_of(body) < 0)
                respond(fd, "202 Accepted", "");
        else {
                events = mem_printf(": hello\n\nid: 1\ndata:\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\nevent: "
                                    "message\ndata: %s\n\n",
                                    answer);
                respond(fd,
                        strstr(body, "\"initialize\"") ? "200 OK\r\nContent-Type: text/event-stream\r\nMcp-Session-Id: s-1"
                                                       : "200 OK\r\nContent-Type: text/event-stream; charset=utf-8",
                        events);
        }
        return false;
}

/* Each request of its own tenant, whatever else it is. */
static bool tenant(struct script *s, int fd, const char *request, const char *body)
{
        if (strstr(request, "\r\nX-Tenant: one\r\n") && strstr(request, "\r\nHost: tools.example\r\n"))
                return legacy(s, fd, request, body);
        respond(fd, "403 Forbidden", "");
        return false;
}

static bool sse(struct script *s, int fd, const char *request, const char *body)
{
        _cleanup_free_ char *answer = NULL, *event = NULL;

        if (str_has_prefix(request, "GET /mcp ")) {
                s->events = fd;
                put(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\ndata: /messages?sessionId=7\n\n");
                return true;
        }
        if (!str_has_prefix(request, "POST /messages?sessionId=7 ")) {
                respond(fd, "404 Not Found", "");
                return false;
        }
        respond(fd, "202 Accepted", "Accepted");
        if (id_of(body) > 0) {
                answer = legacy_answer(body);
                event = mem_printf("event: message\ndata: %s\n\n", answer);
                put(s->events, event);
        }
        return false;
}

static bool foreign_endpoint(_unused_ struct script *s, int fd, _unused_ const char *request, _unused_ const char *body)
{
        put(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\ndata: http://192.0.2.1/x\n\n");
        return true;
}

static bool silent(_unused_ struct script *s, _unused_ int fd, _unused_ const char *request, _unused_ const char *body)
{
        return true;
}

static bool redirect(struct script *s, int fd, const char *request, const char *body)
{
        _cleanup_free_ char *head = mem_printf("307 Temporary Redirect\r\nLocation: http://127.0.0.1:%u/other", s->port);

        if (strstr(request, "/other"))
                return legacy(s, fd, request, body);
        respond(fd, head, "");
        return false;
}

static bool flood(_unused_ struct script *s, int fd, _unused_ const char *request, _unused_ const char *body)
{
        put(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for (unsigned i = 0; i < 100000; i++)
                put(fd, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n");
        return false;
}

static bool header_flood(_unused_ struct script *s, int fd, _unused_ const char *request, _unused_ const char *body)
{
        put(fd, "HTTP/1.1 200 OK\r\n");
        for (unsigned i = 0; i < 20000; i++)
                put(fd, "X-Long: 0123456789012345678901234567890123456789\r\n");
        return false;
}

static bool error_page(_unused_ struct script *s, int fd, _unused_ const char *request, _unused_ const char *body)
{
        respond(fd, "500 Oops\r\nContent-Type: application/json", "{\"error\":\"out of order\"}");
        return false;
}

static bool closes(_unused_ struct script *s, _unused_ int fd, _unused_ const char *request, _unused_ const char *body)
{
        return false;
}

static bool not_http(_unused_ struct script *s, int fd, _unused_ const char *request, _unused_ const char *body)
{
        put(fd, "220 mail.example.org ESMTP\r\n");
        return false;
}

static bool wrong_id(_unused_ struct script *s, int fd, _unused_ const char *request, _unused_ const char *body)
{
        respond(fd, "200 OK\r\nContent-Type: application/json", "{\"jsonrpc\":\"2.0\",\"id\":4711,\"result\":{}}");
        return false;
}

static bool bad_session(_unused_ struct script *s, int fd, _unused_ const char *request, const char *body)
{
        _cleanup_free_ char *answer = legacy_answer(body);

        respond(fd, "200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: a b\x01", answer);
        return false;
}

/* Ends every connection after one answer, so that each request needs another: more pages than connections. */
static bool many_pages(_unused_ struct script *s, int fd, _unused_ const char *request, const char *body)
{
        _cleanup_free_ char *page =
                mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":{\"tools\":[],\"nextCursor\":\"c%ld\"}}", id_of(body), id_of(body));
        _cleanup_free_ char *hello = legacy_answer(body);

        if (strstr(body, "server/discover"))
                respond(fd, "404 Not Found", "");
        else if (id_of(body) < 0)
                respond(fd, "202 Accepted", "");
        else
                respond(fd, "200 OK\r\nContent-Type: application/json", strstr(body, "\"initialize\"") ? hello : page);
        return false;
}

/* -- tests ------------------------------------------------------------------------------------------------------------------------------
 */

static void assert_passed(json_object *o, const char *protocol)
{
        if (!json_flag(o, "passed", false))
                print_error("why: %s\n", json_str(o, "why"));
        assert_true(json_flag(o, "passed", false));
        assert_string_equal(json_str(o, "protocol"), protocol);
}

static json_object *run_echo(const char *era, uint16_t port)
{
        _cleanup_free_ char *text = mem_printf("%u", port);
        const char *const argv[] = {ECHO, "--http", text, "--era", era, NULL};
        const struct harness h = {
                .transport = "streamable-http", .server = argv, .port = port, .call = "{\"tool\":\"echo\",\"arguments\":{\"text\":\"x\"}}"};

        return harness_run(&h, NULL);
}

/* The server is started together with the helper: this also waits for it to listen. */
static void test_echo(_unused_ void **state)
{
        uint16_t port;
        int fd = harness_listen(&port);
        close(fd);
        _cleanup_json_ json_object *modern = run_echo("modern", port), *old = run_echo("legacy", port), *both = run_echo("both", port);

        assert_passed(modern, TALK_MODERN);
        assert_passed(old, TALK_LEGACY);
        assert_passed(both, TALK_MODERN);
        assert_string_equal(json_str(modern, "manifest"), json_str(old, "manifest"));
}

static void test_legacy(_unused_ void **state)
{
        _cleanup_json_ json_object *o = run_script(legacy, "streamable-http", 0), *p = run_script(sse, "sse", 0);

        assert_passed(o, "2025-03-26");
        assert_passed(p, "2025-03-26");
        assert_string_equal(json_str(o, "manifest"), json_str(p, "manifest"));
}

static void test_headers(_unused_ void **state)
{
        static const char *const headers[] = {NULL, "[\"X-Tenant: one\", \"Host: tools.example\"]"};

        for (size_t i = 0; i < ELEMENTSOF(headers); i++) {
                struct script s = {.listener = -1, .events = -1};
                pid_t pid = start_script(&s, tenant);
                const struct harness h = {.transport = "streamable-http", .port = s.port, .timeout_ms = 2000, .headers = headers[i]};
                _cleanup_json_ json_object *o = harness_run(&h, NULL);

                harness_stop(pid);
                if (headers[i])
                        assert_passed(o, "2025-03-26");
                else
                        assert_false(json_flag(o, "passed", false));
        }
}

static void test_hostile(_unused_ void **state)
{
        static const struct {
                script_fn answer;
                const char *transport, *why;
        } table[] = {
                {foreign_endpoint, "sse", "not on its own address: http://192.0.2.1/x"},
                {silent, "sse", "named no endpoint in time"},
                {closes, "sse", "HTTP to the server"},
                {flood, "sse", "more than the 200000 bytes"},
                {silent, "streamable-http", "no answer to server/discover"},
                {redirect, "streamable-http", "HTTP status 307"},
                {flood, "streamable-http", "more than the 200000 bytes"},
                {header_flood, "streamable-http", "more than the 200000 bytes"},
                {error_page, "streamable-http", "HTTP status 500"},
                {closes, "streamable-http", "HTTP to the server"},
                {not_http, "streamable-http", "HTTP to the server"},
                {wrong_id, "streamable-http", "id that was never asked"},
                {bad_session, "streamable-http", "not visible ASCII"},
                {many_pages, "streamable-http", "more than 32 connections"},
        };
        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_json_ json_object *o = run_script(table[i].answer, table[i].transport, 1500);

                print_message("%zu: %s\n", i, json_str(o, "why"));
                assert_false(json_flag(o, "passed", true));
                assert_null(json_get(o, "manifest"));
                assert_non_null(strstr(json_str(o, "why"), table[i].why));
        }
}

static void test_param_headers(_unused_ void **state)
{
        static const char schema[] =
                "{\"type\":\"object\",\"properties\":{"
                "\"a\":{\"x-mcp-header\":\"Region\"},\"b\":{\"x-mcp-header\":\"Count\"},\"c\":{\"x-mcp-header\":\"On\"},"
                "\"d\":{\"x-mcp-header\":\"Bad\\r\\nName\"},\"e\":{\"x-mcp-header\":\"Text\"},\"f\":{},"
                "\"g\":{\"properties\":{\"h\":{\"x-mcp-header\":\"Deep\"}}},\"i\":{\"x-mcp-header\":\"None\"}}}";
        static const char arguments[] = "{\"a\":\"us-west1\",\"b\":42,\"c\":true,\"d\":\"x\",\"e\":\"line1\\nline2\",\"f\":\"f\","
                                        "\"g\":{\"h\":\"=?base64?literal?=\"},\"i\":null}";
        _cleanup_json_ json_object *s = NULL, *a = NULL;
        _cleanup_err_ struct err *err = NULL;
        _cleanup_strv_ char **headers = NULL;
        _cleanup_free_ char *all = NULL;

        assert_ok(json_parse(&s, schema, strlen(schema), "schema", NULL, &err));
        assert_ok(json_parse(&a, arguments, strlen(arguments), "arguments", NULL, &err));
        headers = talk_param_headers(s, a);
        all = strv_join(headers, "|");
        assert_string_equal(all,
                            "Mcp-Param-Region: us-west1|Mcp-Param-Count: 42|Mcp-Param-On: true|Mcp-Param-Text: =?base64?bGluZTEKbGluZTI=?=|"
                            "Mcp-Param-Deep: =?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
        assert_null(talk_param_headers(s, NULL));
}

static void test_nobody_listens(_unused_ void **state)
{
        uint16_t port;
        int fd = harness_listen(&port);
        close(fd);
        const struct harness h = {.transport = "streamable-http", .port = port, .timeout_ms = 700};
        _cleanup_json_ json_object *o = harness_run(&h, NULL);

        assert_non_null(o);
        assert_non_null(strstr(json_str(o, "why"), "did not listen on port"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_echo),    cmocka_unit_test(test_legacy),         cmocka_unit_test(test_headers),
                cmocka_unit_test(test_hostile), cmocka_unit_test(test_nobody_listens), cmocka_unit_test(test_param_headers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
