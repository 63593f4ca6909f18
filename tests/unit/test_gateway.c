/* Clients of either era in front of one server of the same era: the rules of HTTP, sessions, and calls on their way. */
#include "tests/unit/gateway_fakes.h"

#define ONE    "/servers/one/mcp"
#define JSON   "Content-Type: application/json"
#define ACCEPT "Accept: application/json, text/event-stream"
#define MODERN "MCP-Protocol-Version: 2026-07-28"
#define META   "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define META_AND(more)                                                                                                                     \
        "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}," more "}"
#define CAPS "{\"tools\":{\"listChanged\":true},\"resources\":{\"subscribe\":true},\"logging\":{},\"prompts\":{}}"

static struct exchange *run(struct world *w, struct exchange *x)
{
        gateway_exchange(x, w->g);
        return x;
}

/* Begins a session; its header line is owned. */
static char *session(struct world *w, const char *path, const char *version, const char *capabilities)
{
        char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"%s\","
                                "\"capabilities\":%s,\"clientInfo\":{\"name\":\"t\",\"version\":\"1\"}}}",
                                version, capabilities);
        struct exchange *x = run(w, fake_exchange("POST", path, body, JSON, ACCEPT, NULL));

        free(body);
        assert_int_equal(x->status, 200);
        assert_non_null(fake_header(x, "Mcp-Session-Id"));
        return mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
}

static struct exchange *post(struct world *w, const char *id, const char *body)
{
        return run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, "MCP-Protocol-Version: 2025-11-25", id, NULL));
}

static void test_legacy_relay(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{}");
        struct exchange *x;

        x = post(w, id,
                 "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/call\",\"params\":{\"name\":\"t\", \"arguments\":{\"x\" : 1.50}}}");
        assert_false(x->over);
        assert_string_equal(fake_call(u, NULL)->params, "{\"name\":\"t\", \"arguments\":{\"x\" : 1.50}}");
        fake_result(fake_call(u, NULL), "{\"content\":[ ]}");
        assert_int_equal(x->status, 200);
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{\"content\":[ ]}}");
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/list\"}");
        fake_error(fake_call(u, NULL), "{\"code\":-32099,\"message\":\"m\",\"data\":{\"k\":[1]}}");
        assert_int_equal(x->status, 200);
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32099,\"message\":\"m\",\"data\":{\"k\":[1]}}}");
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"ping\"}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{}}");
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"tools/list\"}");
        fake_fail(fake_call(u, NULL), ERR_TIMEOUT, "late");
        assert_non_null(strstr(x->answer, "\"code\":-32603"));
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        free(id);
        world_free(w);
}

/* What comes before the answer makes a stream of it; the caller's own token is in it. */
static void test_streams(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{}");
        struct exchange *x = post(w, id,
                                  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"t\",\"_meta\":"
                                  "{\"progressToken\":\"tok\"}}}");

        assert_string_equal(fake_call(u, NULL)->token, "\"tok\"");
        assert_false(x->is_stream);
        fake_notify(u, fake_call(u, NULL),
                    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"tok\",\"progress\":1}}");
        assert_true(x->is_stream);
        assert_non_null(strstr(fake_last(x), "\"progressToken\":\"tok\""));
        fake_result(fake_call(u, NULL), "{\"ok\":1}");
        assert_true(x->over);
        assert_int_equal(x->n_events, 2);
        assert_string_equal(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":1}}");
        free(id);
        world_free(w);
}

struct rule {
        const char *headers[6];
        const char *body;
        unsigned status;
        const char *part;
};

static void check_rules(struct world *w, const struct rule *rules, size_t n, const char *id)
{
        for (size_t i = 0; i < n; i++) {
                const char *h[6];

                for (size_t k = 0; k < 6; k++)
                        h[k] = rules[i].headers[k] && str_eq(rules[i].headers[k], "ID") ? id : rules[i].headers[k];
                struct exchange *x = run(w, fake_exchange("POST", ONE, rules[i].body, h[0], h[1], h[2], h[3], h[4], h[5], NULL));
                if (!x->over || x->status != rules[i].status || !strstr(fake_last(x), rules[i].part))
                        print_error("rule %zu: %u %s\n", i, x->status, fake_last(x));
                assert_true(x->over);
                assert_int_equal(x->status, rules[i].status);
                assert_non_null(strstr(fake_last(x), rules[i].part));
        }
}

#define LIST "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}"

static void test_legacy_rules(_unused_ void **state)
{
        static const struct rule rules[] = {
                {{JSON, "Accept: application/json", "ID"}, LIST, 406, "Accept"},
                {{JSON, "Accept: text/event-stream", "ID"}, LIST, 406, "Accept"},
                {{JSON, "ID"}, LIST, 406, "Accept"},
                {{"Content-Type: text/plain", ACCEPT, "ID"}, LIST, 415, "Content-Type"},
                {{ACCEPT, "ID"}, LIST, 415, "Content-Type"},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":", 400, "-32700"},
                {{JSON, ACCEPT, "ID"}, "", 400, "-32700"},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"ping\"}", 400, "-32700"},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", 400, "-32600"},
                {{JSON, ACCEPT}, LIST, 400, "Mcp-Session-Id"},
                {{JSON, ACCEPT, "Mcp-Session-Id: 0123456789abcdef0123456789abcdef"}, LIST, 404, "not found"},
                {{JSON, ACCEPT, "Mcp-Session-Id: x"}, LIST, 404, "not found"},
                {{JSON, ACCEPT, "ID", "MCP-Protocol-Version: 1999-01-01"}, LIST, 400, "MCP-Protocol-Version"},
                {{JSON, ACCEPT, "ID", "MCP-Protocol-Version: 2025-11-25", "MCP-Protocol-Version: 2025-11-25"},
                 LIST,
                 400,
                 "MCP-Protocol-Version"},
                {{JSON, ACCEPT, "ID", "ID"}, LIST, 400, "Mcp-Session-Id"},
                {{JSON, ACCEPT, "ID"}, "[" LIST "]", 400, "batch"},
                {{JSON, ACCEPT, "ID"}, "[]", 400, "-32600"},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}", 202, ""},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{}}", 202, ""},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"no/such\"}", 200, "-32601"},
                {{JSON, ACCEPT, "ID"}, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"server/discover\"}", 400, "-32602"},
                {{JSON, "Accept: */*", "ID"}, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\"}", 200, "{}"},
        };
        struct world *w = world_new();
        char *id;
        struct exchange *x;

        world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        id = session(w, ONE, "2025-11-25", "{}");
        check_rules(w, rules, ELEMENTSOF(rules), id);
        x = run(w, fake_exchange("POST", "/servers/two/mcp", LIST, JSON, ACCEPT, id, NULL));
        assert_int_equal(x->status, 404);
        x = run(w, fake_exchange("POST", "/mcp", LIST, JSON, ACCEPT, id, NULL));
        assert_int_equal(x->status, 404); /* a session is of one endpoint */
        x = run(w, fake_exchange("GET", ONE, NULL, "Accept: text/event-stream", NULL));
        assert_int_equal(x->status, 405);
        x = run(w, fake_exchange("PUT", ONE, NULL, id, NULL));
        assert_int_equal(x->status, 405);
        x = run(w, fake_exchange("GET", ONE, NULL, "Accept: text/html", id, NULL));
        assert_int_equal(x->status, 406);
        x = run(w, fake_exchange("DELETE", ONE, NULL, id, NULL));
        assert_int_equal(x->status, 200);
        x = post(w, id, LIST);
        assert_int_equal(x->status, 404);
        free(id);
        world_free(w);
}

static void test_versions(_unused_ void **state)
{
        static const char *const rows[][2] = {{"2025-11-25", "2025-11-25"},
                                              {"2024-11-05", "2024-11-05"},
                                              {"2025-03-26", "2025-03-26"},
                                              {"1.0", "2025-11-25"},
                                              {"2026-07-28", "2025-11-25"}};
        struct world *w = world_new();

        world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"%s\","
                                        "\"capabilities\":{}}}",
                                        rows[i][0]);
                struct exchange *x = run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, NULL));
                char *wanted = mem_printf("\"protocolVersion\":\"%s\"", rows[i][1]);

                assert_non_null(strstr(x->answer, wanted));
                assert_non_null(strstr(x->answer, "\"serverInfo\":{\"name\":\"fake\""));
                free(wanted);
                free(body);
        }
        world_free(w);
}

static void test_batch(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-03-26", "{}");
        struct exchange *x = run(w, fake_exchange("POST", ONE,
                                                  "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"},"
                                                  "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"},17,"
                                                  "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}]",
                                                  JSON, ACCEPT, id, NULL));

        assert_false(x->over);
        fake_result(fake_call(u, "tools/list"), "{\"tools\":[]}");
        assert_int_equal(x->status, 200);
        assert_true(x->answer[0] == '[');
        assert_non_null(strstr(x->answer, "\"id\":1,\"result\":{}"));
        assert_non_null(strstr(x->answer, "-32600"));
        assert_non_null(strstr(x->answer, "\"id\":2,\"result\":{\"tools\":[]}}]"));
        x = run(w, fake_exchange("POST", ONE, "[{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}]", JSON, ACCEPT, id, NULL));
        assert_int_equal(x->status, 202);
        /* The session has begun, and is not begun again behind the gateway's back. */
        x = run(w, fake_exchange("POST", ONE,
                                 "[{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-03-26\","
                                 "\"capabilities\":{}}}]",
                                 JSON, ACCEPT, id, NULL));
        assert_true(x->over);
        assert_non_null(strstr(x->answer, "-32600"));
        assert_null(fake_call(u, "initialize"));
        /* As many as there may be, and one more. */
        for (unsigned n = 64; n <= 65; n++) {
                _cleanup_buf_ struct buf b = {0};

                for (unsigned i = 0; i < n; i++)
                        buf_addf(&b, "%c{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"ping\"}", i ? ',' : '[', i);
                buf_addc(&b, ']');
                x = run(w, fake_exchange("POST", ONE, b.data, JSON, ACCEPT, id, NULL));
                assert_int_equal(x->status, n == 64 ? 200 : 400);
                assert_non_null(strstr(x->answer, n == 64 ? "\"id\":63,\"result\":{}" : "at most 64 messages"));
        }
        free(id);
        world_free(w);
}

#define DISCOVER(params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server/discover\",\"params\":{" params "}}"
#define CALL(extra)      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"t\"," META extra "}}"
#define MM(method)       "Mcp-Method: " method

static void test_modern_rules(_unused_ void **state)
{
        static const struct rule rules[] = {
                {{JSON, ACCEPT, MODERN, MM("server/discover")}, DISCOVER(""), 400, "-32602"},
                {{JSON, ACCEPT, MODERN, MM("server/discover")},
                 DISCOVER("\"_meta\":{\"io.modelcontextprotocol/clientCapabilities\":{}}"),
                 400,
                 "-32602"},
                {{JSON, ACCEPT, MODERN, MM("server/discover")},
                 DISCOVER("\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}"),
                 400,
                 "\"id\":1,\"error\":{\"code\":-32602"},
                {{JSON, ACCEPT, MODERN, MM("server/discover")}, DISCOVER(META), 200, "\"supportedVersions\":[\"2026-07-28\"]"},
                {{JSON, ACCEPT, MM("server/discover")}, DISCOVER(META), 400, "-32020"},
                {{JSON, ACCEPT, MODERN, MODERN, MM("server/discover")}, DISCOVER(META), 400, "-32020"},
                {{JSON, ACCEPT, MODERN}, DISCOVER(META), 400, "-32020"},
                {{JSON, ACCEPT, MODERN, MM("SERVER/DISCOVER")}, DISCOVER(META), 400, "-32020"},
                {{JSON, ACCEPT, MODERN, MM("server/discover")},
                 DISCOVER("\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"v9\",\"io.modelcontextprotocol/"
                          "clientCapabilities\":{}}"),
                 400,
                 "-32020"},
                {{JSON, ACCEPT, "MCP-Protocol-Version: v9", MM("server/discover")},
                 DISCOVER("\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"v9\",\"io.modelcontextprotocol/"
                          "clientCapabilities\":{}}"),
                 400,
                 "\"data\":{\"supported\":[\"2026-07-28\"],\"requested\":\"v9\"}"},
                {{JSON, ACCEPT, MODERN, MM("tools/call")}, CALL(""), 400, "-32020"},
                {{JSON, ACCEPT, MODERN, MM("tools/call"), "Mcp-Name: u"}, CALL(""), 400, "-32020"},
                {{JSON, ACCEPT, MODERN, MM("tools/call"), "Mcp-Name: =?base64?dQ==?="}, CALL(""), 400, "-32020"},
                {{JSON, ACCEPT, MODERN, MM("initialize")},
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{" META "}}",
                 404,
                 "-32601"},
                {{JSON, ACCEPT, MODERN, MM("ping")},
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{" META "}}",
                 404,
                 "-32601"},
                {{JSON, ACCEPT, MODERN, MM("x/y")},
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x/y\",\"params\":{" META "}}",
                 404,
                 "-32601"},
                {{JSON, ACCEPT, MODERN, MM("tools/list")},
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" META_AND(
                         "\"io.modelcontextprotocol/logLevel\":\"loud\"") "}}",
                 200,
                 "-32602"},
                {{JSON, ACCEPT, MODERN}, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", 400, "a request"},
        };
        struct world *w = world_new();

        world_server(w, "one", NULL, MCP_ERA_MODERN, CAPS);
        check_rules(w, rules, ELEMENTSOF(rules), NULL);
        world_free(w);
}

static struct exchange *modern(struct world *w, const char *method, const char *name, const char *body)
{
        char *m = mem_printf("Mcp-Method: %s", method), *n = name ? mem_printf("Mcp-Name: %s", name) : NULL;
        struct exchange *x = run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, MODERN, m, n, NULL));

        free(m);
        free(n);
        return x;
}

static void test_modern_relay(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_MODERN, CAPS);
        struct exchange *x = modern(w, "tools/call", "=?base64?dA==?=", CALL(""));

        /* The tools' annotations have to be known first. */
        assert_null(fake_call(u, "tools/call"));
        fake_result(fake_call(u, "tools/list"), "{\"resultType\":\"complete\",\"tools\":[]}");
        assert_string_equal(fake_call(u, "tools/call")->params, "{\"name\":\"t\"," META "}");
        fake_result(fake_call(u, "tools/call"), "{\"resultType\":\"complete\",\"content\":[]}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"resultType\":\"complete\",\"content\":[]}}");
        /* A server that leaves the type out. */
        x = modern(w, "tools/call", "t", CALL(""));
        fake_result(fake_call(u, "tools/call"), "{ }");
        assert_non_null(strstr(x->answer, "{\"resultType\":\"complete\"}"));
        /* Errors whose status HTTP knows. */
        x = modern(w, "tools/call", "t", CALL(""));
        fake_error(fake_call(u, "tools/call"), "{\"code\":-32021,\"message\":\"m\",\"data\":{\"requiredCapabilities\":{\"sampling\":{}}}}");
        assert_int_equal(x->status, 400);
        x = modern(w, "tools/call", "t", CALL(""));
        fake_error(fake_call(u, "tools/call"), "{\"code\":-32602,\"message\":\"m\"}");
        assert_int_equal(x->status, 200);
        /* A server's own state goes through untouched. */
        x = modern(w, "tools/call", "t", CALL(",\"inputResponses\":{\"a\":{}},\"requestState\":\"s\""));
        assert_string_equal(fake_call(u, "tools/call")->params,
                            "{\"name\":\"t\"," META ",\"inputResponses\":{\"a\":{}},\"requestState\":\"s\"}");
        fake_result(fake_call(u, "tools/call"), "{\"resultType\":\"input_required\",\"requestState\":\"t\"}");
        assert_non_null(strstr(x->answer, "input_required"));
        world_free(w);
}

static void test_params_headers(_unused_ void **state)
{
        static const char body[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"t\",\"arguments\":{"
                                   "\"r\":\"eu\"}," META "}}";
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_MODERN, CAPS);
        struct exchange *x = run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, MODERN, MM("tools/call"), "Mcp-Name: t", NULL));

        fake_result(fake_call(u, "tools/list"),
                    "{\"resultType\":\"complete\",\"tools\":[{\"name\":\"t\",\"inputSchema\":{\"type\":\"object\","
                    "\"properties\":{\"r\":{\"type\":\"string\",\"x-mcp-header\":\"Region\"}}}}]}");
        assert_int_equal(x->status, 400);
        assert_non_null(strstr(x->answer, "-32020"));
        x = run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, MODERN, MM("tools/call"), "Mcp-Name: t", "Mcp-Param-Region: us", NULL));
        assert_int_equal(x->status, 400);
        x = run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, MODERN, MM("tools/call"), "Mcp-Name: t", "Mcp-Param-Region: eu", NULL));
        assert_false(x->over);
        assert_non_null(fake_call(u, "tools/call"));
        world_free(w);
}

/* Modern: leaving cancels. Legacy: it does not, a notification does. */
static void test_leaving(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{}");
        struct exchange *x = post(w, id, LIST);
        struct upstream_call *c = fake_call(u, NULL);

        fake_leave(x);
        assert_false(c->over);
        fake_result(c, "{}");
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"tools/list\"}");
        c = fake_call(u, NULL);
        post(w, id, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":\"z\"}}");
        assert_false(c->over);
        post(w, id, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":\"q\"}}");
        assert_true(c->cancelled);
        assert_true(x->over);
        x = modern(w, "tools/list", NULL, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" META "}}");
        c = fake_call(u, "tools/list");
        fake_leave(x);
        assert_true(c->cancelled);
        free(id);
        world_free(w);
}

/* A call's clock stands still while its client is asked something: not when there is nobody to ask, and not after the server thought
 * better. */
static void test_asking_nobody(_unused_ void **state)
{
        static const char ask[] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"elicitation/create\",\"params\":{\"message\":\"who?\"}}";
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{\"elicitation\":{}}");
        struct exchange *x = post(w, id, LIST);
        struct upstream_call *c = fake_call(u, NULL);

        fake_request(u, c, ask);
        assert_non_null(strstr(fake_last(x), "who?"));
        assert_true(c->extended_ms > 60000);
        u->events->withdrawn(u, mcp_slice_of("7"), u->user);
        assert_non_null(strstr(fake_last(x), "notifications/cancelled"));
        assert_int_equal(c->extended_ms, 0);
        fake_leave(x);
        fake_request(u, c, ask);
        assert_int_equal(u->n_answered, 1);
        assert_non_null(strstr(u->answered[0], "the client cannot be reached"));
        assert_int_equal(c->extended_ms, 0);
        fake_result(c, "{}");
        free(id);
        world_free(w);
}

/* Calls go on when their clients leave: each session has so many. */
static void test_calls_of_one_session(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{}"), *other = session(w, ONE, "2025-11-25", "{}");
        struct exchange *x;

        for (unsigned i = 0; i < 128; i++) {
                x = post(w, id, LIST);
                assert_false(x->over);
                fake_leave(x);
        }
        x = post(w, id, LIST);
        assert_non_null(strstr(x->answer, "too many requests of this session"));
        assert_false(post(w, other, LIST)->over);
        fake_result(fake_call(u, NULL), "{}"); /* the other's */
        fake_result(fake_call(u, NULL), "{}");
        assert_false(post(w, id, LIST)->over);
        free(id);
        free(other);
        world_free(w);
}

/* A client that loses its stream loses what comes meanwhile, and nothing else. */
static void test_stream_is_left(_unused_ void **state)
{
        static const char changed[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}";
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{}");
        struct exchange *first = run(w, fake_exchange("GET", ONE, NULL, "Accept: text/event-stream", id, NULL)), *second;

        world_run(w, 80); /* "changed", since it is there */
        fake_leave(first);
        fake_notify(u, NULL, changed);
        world_run(w, 80);
        second = run(w, fake_exchange("GET", ONE, NULL, "Accept: text/event-stream", id, NULL));
        fake_notify(u, NULL, changed);
        world_run(w, 80);
        assert_int_equal(second->n_events, 1);
        assert_string_equal(post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"ping\"}")->answer,
                            "{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{}}");
        free(id);
        world_free(w);
}

/* Of two questions the one that the server takes back is gone, and no other. */
static void test_one_taken_back(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{\"roots\":{}}");
        struct exchange *x = post(w, id, LIST);
        unsigned first, second, gone;

        fake_request(u, fake_call(u, NULL), "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}");
        assert_int_equal(sscanf(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"roots/list\"", &first), 1);
        fake_request(u, fake_call(u, NULL), "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"roots/list\"}");
        assert_int_equal(sscanf(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"roots/list\"", &second), 1);
        u->events->withdrawn(u, mcp_slice_of("9"), u->user); /* it never asked that */
        assert_int_equal(x->n_events, 2);
        u->events->withdrawn(u, mcp_slice_of("8"), u->user);
        assert_int_equal(
                sscanf(fake_last(x), "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%u}}", &gone),
                1);
        assert_int_equal(gone, second);
        for (unsigned i = 0; i < 2; i++) {
                _cleanup_free_ char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%u,\"result\":{\"roots\":[]}}", i ? first : second);

                assert_int_equal(post(w, id, body)->status, 202);
                assert_int_equal(u->n_answered, i);
        }
        assert_string_equal(u->answered[0], "7 result {\"roots\":[]}");
        fake_result(fake_call(u, NULL), "{}");
        free(id);
        world_free(w);
}

/* Two clients with the same ids: each gets the answer to its own question. */
static void test_not_crossed(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *a = session(w, ONE, "2025-11-25", "{}"), *b = session(w, ONE, "2025-11-25", "{}");
        struct exchange *xa = post(w, a, LIST);
        struct upstream_call *ca = fake_call(u, NULL);
        struct exchange *xb = post(w, b, LIST);
        struct upstream_call *cb = fake_call(u, NULL);

        assert_string_not_equal(a, b);
        fake_result(cb, "{\"for\":\"b\"}");
        fake_result(ca, "{\"for\":\"a\"}");
        assert_non_null(strstr(xa->answer, "\"for\":\"a\""));
        assert_non_null(strstr(xb->answer, "\"for\":\"b\""));
        free(a);
        free(b);
        world_free(w);
}

static void test_sessions(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *first = session(w, ONE, "2025-11-25", "{}"), *busy[8];
        struct gateway_counts counts;
        struct exchange *x;

        /* The oldest idle one makes room; those with a call do not. */
        for (size_t i = 0; i < 8; i++) {
                busy[i] = session(w, ONE, "2025-11-25", "{}");
                post(w, busy[i], LIST);
        }
        gateway_counts(w->g, &counts);
        assert_int_equal(counts.sessions, 8);
        assert_int_equal(post(w, first, LIST)->status, 404);
        x = run(w, fake_exchange("POST", ONE,
                                 "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\"}}",
                                 JSON, ACCEPT, NULL));
        assert_non_null(strstr(x->answer, "too many sessions"));
        fake_end(u);
        gateway_server_gone(w->g, "one");
        gateway_counts(w->g, &counts);
        assert_int_equal(counts.sessions, 0);
        for (size_t i = 0; i < 8; i++)
                free(busy[i]);
        free(first);
        world_free(w);
}

/* Names that were not approved neither are listed nor can be called. */
static void test_approved_tools(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char name[] = "one", instance[] = "0123456789ab", good[] = "good", *tools[] = {good, NULL};
        struct channel_entry e = {.name = name, .readiness = READINESS_UP, .instance = instance, .tools = tools};
        char *id = session(w, ONE, "2025-11-25", "{}");
        struct exchange *x;

        gateway_server(w->g, &e);
        x = post(w, id, LIST);
        fake_result(fake_call(u, NULL), "{\"tools\":[{\"name\":\"bad\"},{\"name\":\"good\", \"x\":1}],\"more\":2}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[{\"name\":\"good\", \"x\":1}],\"more\":2}}");
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"bad\"}}");
        assert_non_null(strstr(x->answer, "-32602"));
        assert_non_null(strstr(x->answer, "Unknown tool: bad"));
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"go\\u006fd\"}}");
        assert_false(x->over);
        /* None approved is not the same as none withheld. */
        tools[0] = NULL;
        gateway_server(w->g, &e);
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"good\"}}");
        assert_non_null(strstr(x->answer, "Unknown tool: good"));
        free(id);
        world_free(w);
}

static void test_notifications(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *id = session(w, ONE, "2025-11-25", "{}"), *other = session(w, ONE, "2025-11-25", "{}");
        struct exchange *stream = run(w, fake_exchange("GET", ONE, NULL, "Accept: text/event-stream", id, NULL)), *listen, *x;

        assert_true(stream->is_stream);
        listen = modern(w, "subscriptions/listen", NULL,
                        "{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"subscriptions/listen\",\"params\":{" META
                        ",\"notifications\":{\"toolsListChanged\":true,\"promptsListChanged\":true,\"resourceSubscriptions\":[\"f:a\"]}}}");
        assert_string_equal(listen->events[0],
                            "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"_meta\":{"
                            "\"io.modelcontextprotocol/subscriptionId\":77},\"notifications\":{\"toolsListChanged\":true,"
                            "\"resourceSubscriptions\":[\"f:a\"]}}}");
        fake_notify(u, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
        /* It was said when the server came, just now: what is said again so soon is said later, and once. */
        fake_notify(u, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
        assert_int_equal(stream->n_events, 0);
        world_run(w, 80);
        assert_int_equal(stream->n_events, 1);
        assert_non_null(strstr(fake_last(stream), "tools/list_changed"));
        assert_non_null(strstr(fake_last(listen), "tools/list_changed"));
        assert_non_null(strstr(fake_last(listen), "subscriptionId\":77"));
        fake_notify(u, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/prompts/list_changed\"}");
        assert_int_equal(stream->n_events, 1); /* the server never said that it tells of these */
        assert_int_equal(listen->n_events, 2);
        /* One subscription at the server for all who want it. */
        assert_string_equal(fake_call(u, "resources/subscribe")->params, "{\"uri\":\"f:a\"}");
        fake_result(fake_call(u, "resources/subscribe"), "{}");
        x = post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/subscribe\",\"params\":{\"uri\":\"f:a\"}}");
        assert_null(fake_call(u, "resources/subscribe"));
        assert_int_equal(x->status, 200);
        fake_notify(u, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"f:a\"}}");
        assert_non_null(strstr(fake_last(stream), "resources/updated"));
        assert_non_null(strstr(fake_last(listen), "resources/updated"));
        fake_leave(listen);
        assert_null(fake_call(u, "resources/unsubscribe"));
        post(w, id, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/unsubscribe\",\"params\":{\"uri\":\"f:a\"}}");
        assert_non_null(fake_call(u, "resources/unsubscribe"));
        fake_result(fake_call(u, "resources/unsubscribe"), "{}");
        x = run(w, fake_exchange("DELETE", ONE, NULL, id, NULL));
        assert_true(stream->over);
        free(id);
        free(other);
        world_free(w);
}

static void test_levels(_unused_ void **state)
{
        static const char info[] = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}";
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        char *a = session(w, ONE, "2025-11-25", "{}"), *b = session(w, ONE, "2025-11-25", "{}");
        struct exchange *x = post(w, a, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"logging/setLevel\",\"params\":{\"level\":\"info\"}}"),
                        *y;

        assert_string_equal(fake_call(u, NULL)->params, "{\"level\":\"info\"}");
        fake_result(fake_call(u, NULL), "{}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        x = post(w, b, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"logging/setLevel\",\"params\":{\"level\":\"error\"}}");
        assert_null(fake_call(u, NULL)); /* a wants more */
        assert_true(x->over);
        x = post(w, a, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"logging/setLevel\",\"params\":{\"level\":\"loud\"}}");
        assert_non_null(strstr(x->answer, "-32602"));
        x = post(w, a, LIST);
        fake_notify(u, NULL, info);
        assert_int_equal(x->n_events, 1);
        /* Whose line is it? */
        y = post(w, b, LIST);
        fake_notify(u, NULL, info);
        assert_int_equal(x->n_events, 1);
        assert_int_equal(y->n_events, 0);
        fake_result(fake_call(u, NULL), "{}");
        fake_result(fake_call(u, NULL), "{}");
        /* b's, who did not want so much. */
        y = post(w, b, LIST);
        fake_notify(u, NULL, info);
        assert_int_equal(y->n_events, 0);
        fake_notify(u, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"error\",\"data\":1}}");
        assert_int_equal(y->n_events, 1);
        fake_result(fake_call(u, NULL), "{}");
        free(a);
        free(b);
        world_free(w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_legacy_relay),
                cmocka_unit_test(test_streams),
                cmocka_unit_test(test_legacy_rules),
                cmocka_unit_test(test_versions),
                cmocka_unit_test(test_batch),
                cmocka_unit_test(test_modern_rules),
                cmocka_unit_test(test_modern_relay),
                cmocka_unit_test(test_params_headers),
                cmocka_unit_test(test_leaving),
                cmocka_unit_test(test_not_crossed),
                cmocka_unit_test(test_sessions),
                cmocka_unit_test(test_approved_tools),
                cmocka_unit_test(test_notifications),
                cmocka_unit_test(test_levels),
                cmocka_unit_test(test_asking_nobody),
                cmocka_unit_test(test_one_taken_back),
                cmocka_unit_test(test_calls_of_one_session),
                cmocka_unit_test(test_stream_is_left),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
