/* Clients of one era in front of servers of the other, and questions of servers: whose they are, and the way of the answer. */
#include "tests/unit/gateway_fakes.h"

#define ONE    "/servers/one/mcp"
#define JSON   "Content-Type: application/json"
#define ACCEPT "Accept: application/json, text/event-stream"
#define MODERN "MCP-Protocol-Version: 2026-07-28"
#define META(c)                                                                                                                            \
        "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":" c "}"
#define CAPS               "{\"tools\":{},\"resources\":{\"subscribe\":true},\"logging\":{}}"
#define CAN                "{\"sampling\":{},\"elicitation\":{},\"roots\":{}}"
#define ACKNOWLEDGED       "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{}}"
#define SUBSCRIBE(id, uri) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"resources/subscribe\",\"params\":{\"uri\":\"" uri "\"}}"
#define ELICIT(id)         "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"elicitation/create\",\"params\":{\"message\":\"who?\"}}"

static struct exchange *run(struct world *w, struct exchange *x)
{
        gateway_exchange(x, w->g);
        return x;
}

static char *session(struct world *w, const char *capabilities)
{
        char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\","
                                "\"capabilities\":%s}}",
                                capabilities);
        struct exchange *x = run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, NULL));

        free(body);
        return mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
}

static struct exchange *legacy(struct world *w, const char *id, const char *body)
{
        return run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, id, NULL));
}

#define CALL "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"t\"}}"

static struct exchange *modern_as(struct world *w, const char *authorization, const char *body)
{
        return run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, MODERN, "Mcp-Method: tools/call", "Mcp-Name: t", authorization, NULL));
}

static struct exchange *modern(struct world *w, const char *body)
{
        return modern_as(w, NULL, body);
}

/* A modern call: to a server whose tools are known. */
static struct upstream *legacy_server(struct world *w)
{
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        struct exchange *x =
                modern(w, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"t\"," META("{}") "}}");

        fake_result(fake_call(u, "tools/list"), "{\"tools\":[]}");
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(x->over);
        return u;
}

#define MODERN_CALL(id, more) "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"tools/call\",\"params\":{\"name\":\"t\"," META(CAN) more "}}"

static void test_modern_client_legacy_server(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        struct exchange *x = modern(w, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"tools/call\",\"params\":{\"name\":\"t\",\"_meta\":{"
                                       "\"progressToken\":9,\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                                       "\"io.modelcontextprotocol/clientCapabilities\":{},\"com.example/x\":[1]}}}");

        /* What a legacy session must not see is gone, all else is there, and the token is found. */
        assert_string_equal(fake_call(u, NULL)->params, "{\"name\":\"t\",\"_meta\":{\"progressToken\":9,\"com.example/x\":[1]}}");
        assert_string_equal(fake_call(u, NULL)->token, "9");
        fake_result(fake_call(u, NULL), "{\"content\":[]}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{\"resultType\":\"complete\",\"content\":[]}}");
        x = run(w, fake_exchange("POST", ONE,
                                 "{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"resources/read\",\"params\":{\"uri\":\"f:a\"," META("{}") "}}",
                                 JSON, ACCEPT, MODERN, "Mcp-Method: resources/read", "Mcp-Name: f:a", NULL));
        fake_error(fake_call(u, NULL), "{\"code\":-32002,\"message\":\"Resource not found\"}");
        assert_string_equal(
                x->answer,
                "{\"jsonrpc\":\"2.0\",\"id\":6,\"error\":{\"code\":-32602,\"message\":\"Resource not found\",\"data\":{\"uri\":\"f:a\"}}}");
        x = run(w, fake_exchange("POST", ONE,
                                 "{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"resources/read\",\"params\":{\"uri\":\"f:a\"," META("{}") "}}",
                                 JSON, ACCEPT, MODERN, "Mcp-Method: resources/read", "Mcp-Name: f:a", NULL));
        fake_result(fake_call(u, NULL), "{\"contents\":[]}");
        assert_non_null(strstr(x->answer, "\"ttlMs\":0,\"cacheScope\":\"private\""));
        world_free(w);
}

/* "requestState":"…" of an answer, as a member to send back; owned. */
static char *state_of(const struct exchange *x)
{
        const char *at = strstr(x->answer, "\"requestState\":\""), *end;

        assert_non_null(at);
        end = strchr(at + 17, '"');
        return mem_strndup(at, (size_t)(end - at) + 1);
}

static char *key_of(const struct exchange *x)
{
        const char *at = strstr(x->answer, "\"q");

        assert_non_null(at);
        return mem_strndup(at + 1, strcspn(at + 1, "\""));
}

/* A server asks in the middle of a modern client's call: its client hears of it when all questions of that moment are there. */
static void asks(struct world *w, struct upstream *u, const char *request)
{
        fake_request(u, NULL, request);
        world_run(w, 30);
}

/* The request that takes a call up again, word by word. */
static struct exchange *again_with(struct world *w, const char *path, const char *method, const char *members, const char *state)
{
        _cleanup_free_ char *body =
                mem_printf("{\"jsonrpc\":\"2.0\",\"id\":\"again\",\"method\":\"%s\",\"params\":{\"name\":\"t\"," META(CAN) ",%s,%s}}",
                           method, members, state);
        _cleanup_free_ char *header = mem_printf("Mcp-Method: %s", method);

        return run(w, fake_exchange("POST", path, body, JSON, ACCEPT, MODERN, header, "Mcp-Name: t", NULL));
}

static struct exchange *again_as(struct world *w, const char *authorization, const char *name, const char *key, const char *response,
                                 const char *state)
{
        char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":\"again\",\"method\":\"tools/call\",\"params\":{\"name\":\"%s\"," META(
                                        CAN) ",\"inputResponses\":{\"%s\":%s},%s}}",
                                name, key, response, state);
        char *header = mem_printf("Mcp-Name: %s", name);
        struct exchange *x =
                run(w, fake_exchange("POST", ONE, body, JSON, ACCEPT, MODERN, "Mcp-Method: tools/call", header, authorization, NULL));

        free(body);
        free(header);
        return x;
}

static void test_rounds(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        struct exchange *x = modern(w, MODERN_CALL("1", "")), *y;
        char *token, *old, *key;

        asks(w, u, ELICIT("\"s1\""));
        assert_true(x->over);
        assert_non_null(strstr(x->answer, "\"resultType\":\"input_required\""));
        assert_non_null(strstr(x->answer, ":{\"method\":\"elicitation/create\",\"params\":{\"message\":\"who?\"}}"));
        assert_non_null(fake_call(u, "tools/call")); /* held open */
        assert_true(fake_call(u, "tools/call")->extended_ms > 60000);
        token = state_of(x);
        key = key_of(x);
        /* Not for another request, not for somebody else, not changed. */
        y = again_as(w, NULL, "other", key, "{}", token);
        assert_non_null(strstr(y->answer, "-32602"));
        y = again_as(w, "Authorization: Bearer z", "t", key, "{}", token);
        assert_non_null(strstr(y->answer, "-32602"));
        token[20] ^= 1;
        y = again_as(w, NULL, "t", key, "{}", token);
        assert_non_null(strstr(y->answer, "-32602"));
        token[20] ^= 1;
        assert_int_equal(u->n_answered, 0);
        /* Without the answer: asked again, with another state; the old one is worth nothing now. */
        y = again_as(w, NULL, "t", "wrong", "{}", token);
        assert_non_null(strstr(y->answer, "input_required"));
        old = token;
        token = state_of(y);
        assert_string_not_equal(old, token);
        x = again_as(w, NULL, "t", key, "{}", old);
        assert_non_null(strstr(x->answer, "-32602"));
        x = again_as(w, NULL, "t", key, "{\"action\":\"accept\"}", token);
        assert_string_equal(u->answered[0], "\"s1\" result {\"action\":\"accept\"}");
        assert_int_equal(fake_call(u, "tools/call")->extended_ms, 0);
        assert_false(x->over);
        fake_result(fake_call(u, "tools/call"), "{\"done\":1}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":\"again\",\"result\":{\"resultType\":\"complete\",\"done\":1}}");
        free(old);
        free(token);
        free(key);
        world_free(w);
}

/* What was asked about one request is not answered with another one, however little they differ. */
static void test_another_request(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        struct exchange *x = modern(w, MODERN_CALL("1", ",\"arguments\":{\"a\":1}"));
        _cleanup_free_ char *token = NULL, *key = NULL, *same = NULL, *other = NULL;

        asks(w, u, ELICIT("\"s1\""));
        token = state_of(x);
        key = key_of(x);
        same = mem_printf("\"arguments\":{\"a\":1},\"inputResponses\":{\"%s\":{}}", key);
        other = mem_printf("\"arguments\":{\"a\":2},\"inputResponses\":{\"%s\":{}}", key);
        x = again_with(w, ONE, "tools/call", other, token);
        assert_non_null(strstr(x->answer, "-32602"));
        x = again_with(w, ONE, "prompts/get", same, token);
        assert_non_null(strstr(x->answer, "-32602"));
        x = again_with(w, "/mcp", "tools/call", same, token);
        assert_non_null(strstr(x->answer, "-32602"));
        assert_int_equal(u->n_answered, 0);
        x = again_with(w, ONE, "tools/call", same, token);
        assert_false(x->over);
        assert_string_equal(u->answered[0], "\"s1\" result {}");
        fake_result(fake_call(u, "tools/call"), "{}");
        world_free(w);
}

#define PROGRESS(token)                                                                                                                    \
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":" token ",\"progress\":1}}"
#define META_WITH(token)                                                                                                                   \
        "\"_meta\":{\"progressToken\":" token ",\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                               \
        "\"io.modelcontextprotocol/clientCapabilities\":" CAN "}"

/* Progress is told under the token of the request that waits, which may be another one than the call began with, or none. */
static void test_progress_of_a_resumed_call(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);

        for (unsigned i = 0; i < 2; i++) {
                struct exchange *x = modern(
                        w, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"t\"," META_WITH("9") "}}");
                _cleanup_free_ char *token = NULL, *key = NULL, *body = NULL;

                asks(w, u, ELICIT("1"));
                token = state_of(x);
                key = key_of(x);
                body = mem_printf(
                        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"t\",%s,\"inputResponses\":{"
                        "\"%s\":{}},%s}}",
                        i ? META(CAN) : META_WITH("\"new\""), key, token);
                x = modern(w, body);
                fake_notify(u, fake_call(u, "tools/call"), PROGRESS("9"));
                assert_int_equal(x->n_events, i ? 0 : 1);
                if (i == 0)
                        assert_string_equal(fake_last(x), PROGRESS("\"new\""));
                fake_result(fake_call(u, "tools/call"), "{}");
                assert_true(x->over);
        }
        world_free(w);
}

/* A server that asks without end is told so, and its call goes on. */
static void test_too_many_questions(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        char *id = session(w, CAN);
        struct exchange *x = modern(w, MODERN_CALL("1", ""));

        for (unsigned i = 0; i < 16; i++)
                fake_request(u, NULL, ELICIT("1"));
        assert_int_equal(u->n_answered, 0);
        fake_request(u, NULL, ELICIT("17"));
        assert_non_null(strstr(u->answered[0], "17 error"));
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(x->over);
        x = legacy(w, id, CALL);
        for (unsigned i = 0; i < 64; i++)
                fake_request(u, NULL, ELICIT("1"));
        assert_int_equal(u->n_answered, 1);
        fake_request(u, NULL, ELICIT("65"));
        assert_non_null(strstr(u->answered[1], "65 error"));
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(x->over);
        free(id);
        world_free(w);
}

/* Several questions at once are one round; one that comes too late for it comes with the next. */
static void test_questions_together(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        struct exchange *x = modern(w, MODERN_CALL("1", ""));
        char *token, *key;

        fake_request(u, NULL, ELICIT("1"));
        assert_false(x->over);
        asks(w, u, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"roots/list\"}");
        assert_true(x->over);
        assert_non_null(strstr(x->answer, "elicitation/create"));
        assert_non_null(strstr(x->answer, "roots/list"));
        asks(w, u, ELICIT("3"));
        token = state_of(x);
        key = key_of(x);
        x = again_as(w, NULL, "t", key, "{\"action\":\"accept\"}", token);
        assert_int_equal(u->n_answered, 1);
        assert_non_null(strstr(x->answer, "roots/list"));
        assert_non_null(strstr(x->answer, "elicitation/create"));
        free(token);
        free(key);
        world_free(w);
}

/* What the client cannot be asked is refused. A server that goes on without is none of our business; one that fails has told why. */
static void test_lacked(_unused_ void **state)
{
        static const char asked[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"sampling/createMessage\",\"params\":{}}";
        static const char call[] =
                "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"tools/call\",\"params\":{\"name\":\"t\"," META("{\"elicitation\":{}}") "}}";
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        struct exchange *x = modern(w, call);

        asks(w, u, asked);
        assert_false(x->over);
        assert_non_null(strstr(u->answered[0], "1 error"));
        fake_result(fake_call(u, "tools/call"), "{\"content\":[]}");
        assert_non_null(strstr(x->answer, "\"content\":[]"));
        x = modern(w, call);
        asks(w, u, asked);
        fake_error(fake_call(u, "tools/call"), "{\"code\":-32000,\"message\":\"cannot go on\"}");
        assert_int_equal(x->status, 400);
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":-32021,\"message\":\"cannot go on\","
                                       "\"data\":{\"requiredCapabilities\":{\"sampling\":{}}}}}");
        x = modern(w, call);
        fake_error(fake_call(u, "tools/call"), "{\"code\":-32000,\"message\":\"cannot go on\"}");
        assert_non_null(strstr(x->answer, "-32000"));
        world_free(w);
}

/* The server does not wait for the answer: what it said is kept. */
static void test_answer_meanwhile(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        struct exchange *x = modern(w, MODERN_CALL("1", ""));
        char *token, *key;

        asks(w, u, ELICIT("3"));
        token = state_of(x);
        key = key_of(x);
        fake_result(fake_call(u, "tools/call"), "{\"done\":2}");
        x = again_as(w, NULL, "t", key, "{}", token);
        assert_int_equal(u->n_answered, 0);
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":\"again\",\"result\":{\"resultType\":\"complete\",\"done\":2}}");
        x = again_as(w, NULL, "t", key, "{}", token);
        assert_non_null(strstr(x->answer, "-32602"));
        free(token);
        free(key);
        world_free(w);
}

/* Whose question is it? */
static void test_attribution(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        char *a = session(w, CAN), *b = session(w, CAN), *cannot = session(w, "{}");
        struct exchange *x, *y;

        /* Nobody is there. */
        fake_request(u, NULL, ELICIT("1"));
        assert_non_null(strstr(u->answered[0], "1 error"));
        x = legacy(w, a, CALL);
        fake_request(u, NULL, ELICIT("2"));
        assert_int_equal(x->n_events, 1);
        assert_non_null(strstr(fake_last(x), "elicitation/create"));
        /* Two clients: nobody hears it. */
        y = legacy(w, b, CALL);
        fake_request(u, NULL, ELICIT("3"));
        assert_non_null(strstr(u->answered[1], "3 error"));
        assert_int_equal(x->n_events, 1);
        assert_int_equal(y->n_events, 0);
        /* The transport knows. */
        fake_request(u, fake_call(u, "tools/call"), ELICIT("4"));
        assert_int_equal(y->n_events, 1);
        fake_result(fake_call(u, "tools/call"), "{}");
        fake_result(fake_call(u, "tools/call"), "{}");
        x = legacy(w, cannot, CALL);
        fake_request(u, NULL, ELICIT("5"));
        assert_non_null(strstr(u->answered[2], "5 error"));
        assert_int_equal(x->n_events, 0);
        fake_result(fake_call(u, "tools/call"), "{}");
        /* Modern clients: one that waits for its client's answer asks nothing; with another principal it is another client. */
        x = modern(w, MODERN_CALL("1", ""));
        asks(w, u, ELICIT("6"));
        assert_true(x->over);
        x = modern(w, MODERN_CALL("2", ""));
        y = modern_as(w, "Authorization: Bearer z", MODERN_CALL("3", ""));
        fake_request(u, NULL, ELICIT("7"));
        assert_non_null(strstr(u->answered[3], "7 error"));
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(y->over);
        asks(w, u, ELICIT("8"));
        assert_non_null(strstr(x->answer, "input_required"));
        /* Of two requests of one client that wait for the server either may be the one. */
        x = modern(w, MODERN_CALL("4", ""));
        y = modern(w, MODERN_CALL("5", ""));
        asks(w, u, ELICIT("9"));
        assert_non_null(strstr(u->answered[4], "9 error"));
        assert_false(x->over || y->over);
        free(a);
        free(b);
        free(cannot);
        world_free(w);
}

static void test_legacy_answers(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = legacy_server(w);
        char *a = session(w, CAN), *b = session(w, CAN), *body;
        struct exchange *x = legacy(w, a, CALL);
        unsigned id;

        fake_request(u, NULL, ELICIT("\"q\""));
        assert_int_equal(sscanf(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":%u,", &id), 1);
        body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%u,\"result\":{\"action\":\"decline\"}}", id);
        /* Another session's answer is none. */
        assert_int_equal(legacy(w, b, body)->status, 202);
        assert_int_equal(u->n_answered, 0);
        assert_int_equal(legacy(w, a, body)->status, 202);
        assert_string_equal(u->answered[0], "\"q\" result {\"action\":\"decline\"}");
        legacy(w, a, body);
        assert_int_equal(u->n_answered, 1);
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_int_equal(x->n_events, 2);
        free(body);
        /* A server that answers wants to know no more. */
        x = legacy(w, a, CALL);
        fake_request(u, NULL, ELICIT("\"late\""));
        assert_int_equal(sscanf(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":%u,", &id), 1);
        fake_result(fake_call(u, "tools/call"), "{}");
        body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%u,\"result\":{\"action\":\"decline\"}}", id);
        assert_int_equal(legacy(w, a, body)->status, 202);
        assert_int_equal(u->n_answered, 1);
        free(body);
        free(a);
        free(b);
        world_free(w);
}

static void test_legacy_client_modern_server(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_MODERN, CAPS);
        char *id = session(w, CAN), *body;
        struct exchange *x = legacy(w, id, CALL);
        unsigned first, second;

        assert_string_equal(fake_call(u, "tools/call")->params,
                            "{\"name\":\"t\",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                            "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"bulkhead\",\"version\":\"0.1.0\"},"
                            "\"io.modelcontextprotocol/clientCapabilities\":{\"sampling\":{},\"elicitation\":{\"form\":{}},"
                            "\"roots\":{\"listChanged\":true}}}}");
        assert_string_equal(fake_call(u, "tools/call")->name, "\"t\"");
        fake_result(fake_call(u, "tools/call"),
                    "{\"resultType\":\"input_required\",\"requestState\":\"st\",\"inputRequests\":{\"one\":{\"method\":\"roots/list\"},"
                    "\"two\":{\"method\":\"elicitation/create\",\"params\":{\"message\":\"m\"}}}}");
        assert_int_equal(x->n_events, 2);
        assert_int_equal(sscanf(x->events[0], "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"roots/list\"}", &first), 1);
        assert_int_equal(sscanf(x->events[1], "{\"jsonrpc\":\"2.0\",\"id\":%u,\"method\":\"elicitation", &second), 1);
        body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%u,\"result\":{\"action\":\"accept\"}}", second);
        legacy(w, id, body);
        free(body);
        assert_null(fake_call(u, "tools/call"));
        body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%u,\"result\":{\"roots\":[]}}", first);
        legacy(w, id, body);
        free(body);
        assert_non_null(
                strstr(fake_call(u, "tools/call")->params, "\"inputResponses\":{\"two\":{\"action\":\"accept\"},\"one\":{\"roots\":[]}}"));
        assert_non_null(strstr(fake_call(u, "tools/call")->params, "\"requestState\":\"st\""));
        fake_result(fake_call(u, "tools/call"), "{\"resultType\":\"complete\",\"content\":[]}");
        assert_string_equal(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"resultType\":\"complete\",\"content\":[]}}");
        assert_true(x->over);
        /* The client says no. */
        x = legacy(w, id, CALL);
        fake_result(fake_call(u, "tools/call"),
                    "{\"resultType\":\"input_required\",\"inputRequests\":{\"one\":{\"method\":\"roots/list\"}}}");
        assert_int_equal(sscanf(fake_last(x), "{\"jsonrpc\":\"2.0\",\"id\":%u,", &first), 1);
        body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%u,\"error\":{\"code\":-1,\"message\":\"no\"}}", first);
        legacy(w, id, body);
        free(body);
        assert_non_null(strstr(fake_last(x), "-32603"));
        assert_null(fake_call(u, "tools/call"));
        /* A server that asks without end. */
        x = legacy(w, id, CALL);
        for (unsigned i = 0; i < 100 && fake_call(u, "tools/call"); i++)
                fake_result(fake_call(u, "tools/call"), "{\"resultType\":\"input_required\",\"requestState\":\"more\"}");
        assert_non_null(strstr(fake_last(x), "-32603"));
        free(id);
        world_free(w);
}

/* Subscriptions of legacy clients become one listen at a modern server. */
static void test_modern_listen(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_MODERN, CAPS);
        char *id = session(w, "{}");
        struct exchange *stream = run(w, fake_exchange("GET", ONE, NULL, "Accept: text/event-stream", id, NULL)), *x;
        struct upstream_call *first = fake_call(u, "subscriptions/listen");

        assert_non_null(first);
        assert_int_equal(first->request.timeout_ms, 0);
        x = legacy(w, id, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/subscribe\",\"params\":{\"uri\":\"f:a\"}}");
        world_run(w, 30); /* changes are told together */
        assert_true(first->cancelled);
        /* Who is told that it counts may change the resource at once: the server has to know by then. */
        assert_false(x->over);
        fake_notify(u, fake_call(u, "subscriptions/listen"), ACKNOWLEDGED);
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        assert_non_null(strstr(fake_call(u, "subscriptions/listen")->params, "\"resourceSubscriptions\":[\"f:a\"]"));
        fake_notify(u, fake_call(u, "subscriptions/listen"),
                    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"f:a\",\"_meta\":{"
                    "\"io.modelcontextprotocol/subscriptionId\":3}}}");
        assert_non_null(strstr(fake_last(stream), "\"uri\":\"f:a\""));
        assert_null(strstr(fake_last(stream), "subscriptionId"));
        free(id);
        world_free(w);
}

/* A subscription that waits for the server is answered whatever becomes of it, once. */
static void test_subscription_ends(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_MODERN, CAPS);
        char *id = session(w, "{}");
        struct exchange *x, *y;

        /* The server takes none. */
        x = legacy(w, id, SUBSCRIBE("1", "f:a"));
        world_run(w, 30);
        assert_false(x->over);
        fake_error(fake_call(u, "subscriptions/listen"), "{\"code\":-32601,\"message\":\"no\"}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        /* The acknowledgement of what was told before is not this one's. */
        x = legacy(w, id, SUBSCRIBE("2", "f:b"));
        world_run(w, 30);
        y = legacy(w, id, SUBSCRIBE("3", "f:c"));
        fake_notify(u, fake_call(u, "subscriptions/listen"), ACKNOWLEDGED);
        assert_false(y->over);
        world_run(w, 30);
        fake_notify(u, fake_call(u, "subscriptions/listen"), ACKNOWLEDGED);
        assert_true(x->over);
        assert_true(y->over);
        /* The client leaves, or the server ends. */
        x = legacy(w, id, SUBSCRIBE("4", "f:d"));
        fake_leave(x);
        x = legacy(w, id, SUBSCRIBE("5", "f:e"));
        gateway_server_gone(w->g, "one");
        assert_true(x->over);
        free(id);
        world_free(w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_modern_client_legacy_server),
                cmocka_unit_test(test_rounds),
                cmocka_unit_test(test_another_request),
                cmocka_unit_test(test_progress_of_a_resumed_call),
                cmocka_unit_test(test_too_many_questions),
                cmocka_unit_test(test_questions_together),
                cmocka_unit_test(test_lacked),
                cmocka_unit_test(test_answer_meanwhile),
                cmocka_unit_test(test_attribution),
                cmocka_unit_test(test_legacy_answers),
                cmocka_unit_test(test_legacy_client_modern_server),
                cmocka_unit_test(test_modern_listen),
                cmocka_unit_test(test_subscription_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
