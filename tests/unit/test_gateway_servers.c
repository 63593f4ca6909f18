/* Servers that sleep, start, die and come back; several of them behind one endpoint. */
#include <unistd.h>

#include "tests/unit/gateway_fakes.h"

#define JSON   "Content-Type: application/json"
#define ACCEPT "Accept: application/json, text/event-stream"
#define MODERN "MCP-Protocol-Version: 2026-07-28"
#define META   "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define CAPS   "{\"tools\":{},\"prompts\":{},\"resources\":{},\"completions\":{}}"

static struct exchange *run(struct world *w, struct exchange *x)
{
        gateway_exchange(x, w->g);
        return x;
}

static struct exchange *modern(struct world *w, const char *path, const char *method, const char *name, const char *params)
{
        char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s%s" META "}}", method, params,
                                *params ? "," : "");
        char *m = mem_printf("Mcp-Method: %s", method), *n = name ? mem_printf("Mcp-Name: %s", name) : NULL;
        struct exchange *x = run(w, fake_exchange("POST", path, body, JSON, ACCEPT, MODERN, m, n, NULL));

        free(body);
        free(m);
        free(n);
        return x;
}

static void entry(struct world *w, enum server_readiness readiness, const char *instance, const char *why)
{
        char name[] = "one", *i = mem_strdup(instance), *y = mem_strdup(why);
        struct channel_entry e = {
                .name = name, .lifecycle = LIFECYCLE_ON_DEMAND, .readiness = readiness, .instance = i, .why = y, .idle_ms = 50};

        gateway_server(w->g, &e);
        free(i);
        free(y);
}

#define LIST(path) modern(w, path, "tools/list", NULL, "")
#define INFO       "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":" CAPS "}"

static void test_on_demand(_unused_ void **state)
{
        struct world *w = world_new();
        struct exchange *a, *b, *c;
        struct gateway_counts counts;
        struct upstream *u;

        entry(w, READINESS_ASLEEP, NULL, NULL);
        a = LIST("/servers/one/mcp");
        b = modern(w, "/servers/one/mcp", "tools/list", NULL, "\"cursor\":\"x\"");
        c = run(w, fake_exchange("POST", "/servers/one/mcp",
                                 "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"prompts/list\",\"params\":{\"_meta\":{\"progressToken\":1,"
                                 "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                                 "\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
                                 JSON, ACCEPT, MODERN, "Mcp-Method: prompts/list", NULL));
        assert_int_equal(w->starts, 1); /* for all of them */
        assert_false(a->over || b->over || c->over);
        assert_true(c->is_stream); /* who gave a token hears why it takes so long */
        assert_non_null(strstr(fake_last(c), "starting"));
        assert_int_equal(a->n_events, 0);
        entry(w, READINESS_UP, "aaaaaaaaaaaa", NULL);
        gateway_stream(w->g, "one", 0, "aaaaaaaaaaaa", dup(0));
        u = fake_upstreams[0];
        assert_int_equal(u->n_calls, 0);
        fake_ready(u, MCP_ERA_LEGACY, INFO);
        assert_int_equal(u->n_calls, 3);
        fake_result(fake_call(u, "prompts/list"), "{\"prompts\":[]}");
        fake_result(fake_call(u, "tools/list"), "{\"tools\":[]}");
        world_run(w, 80);
        assert_int_equal(w->stops, 0); /* one call is under way */
        fake_result(fake_call(u, "tools/list"), "{\"tools\":[]}");
        assert_true(a->over && b->over && c->over);
        world_run(w, 150);
        assert_int_equal(w->stops, 1);
        gateway_counts(w->g, &counts);
        assert_int_equal(counts.starts, 1);
        world_free(w);
}

static void test_does_not_come(_unused_ void **state)
{
        struct world *w = world_new();
        struct exchange *x;

        entry(w, READINESS_ASLEEP, NULL, NULL);
        x = LIST("/servers/one/mcp");
        world_run(w, 150);
        assert_non_null(strstr(fake_last(x), "did not come up"));
        assert_non_null(strstr(fake_last(x), "\"retryable\":true"));
        x = LIST("/servers/one/mcp");
        gateway_refused(w->g, "one", 0, "no memory left");
        assert_non_null(strstr(fake_last(x), "no memory left"));
        entry(w, READINESS_DOWN, NULL, "not approved");
        x = LIST("/servers/one/mcp");
        assert_non_null(strstr(fake_last(x), "not approved"));
        entry(w, READINESS_ASLEEP, NULL, NULL);
        for (unsigned i = 0; i < 4; i++)
                assert_false(LIST("/servers/one/mcp")->over);
        x = LIST("/servers/one/mcp");
        assert_non_null(strstr(fake_last(x), "too many calls wait"));
        gateway_link(w->g, false);
        x = LIST("/servers/one/mcp");
        assert_non_null(strstr(fake_last(x), "controller"));
        world_free(w);
}

static void test_dies(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        struct exchange *x = LIST("/servers/one/mcp"), *y;

        fake_end(u);
        assert_true(u->freed);
        assert_non_null(strstr(fake_last(x), "\"retryable\":true"));
        assert_int_equal(w->renews, 0);
        y = LIST("/servers/one/mcp"); /* waits for the next one */
        assert_false(y->over);
        world_run(w, 90);
        gateway_stream(w->g, "one", 0, "bbbbbbbbbbbb", dup(0));
        fake_ready(fake_upstreams[1], MCP_ERA_LEGACY, INFO);
        fake_result(fake_call(fake_upstreams[1], NULL), "{\"tools\":[]}");
        assert_true(y->over);
        fake_end(fake_upstreams[1]);
        world_run(w, 700);
        assert_true(w->renews >= 1);
        world_free(w);
}

/* -- several --------------------------------------------------------------------------------------------------------------------- */
static void test_merged_lists(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *b = world_server(w, "b", NULL, MCP_ERA_LEGACY, CAPS);
        struct upstream *a = world_server(w, "a", NULL, MCP_ERA_MODERN, CAPS);
        struct upstream *c = world_server(w, "c", "", MCP_ERA_LEGACY, CAPS);
        struct upstream *none = world_server(w, "d", NULL, MCP_ERA_LEGACY, "{\"prompts\":{}}");
        struct exchange *x = LIST("/mcp"), *y;
        const char *at;
        char *cursor, *params;

        assert_null(fake_call(none, NULL));
        fake_result(fake_call(c, NULL), "{\"tools\":[{\"name\":\"z\"}]}");
        fake_result(fake_call(b, NULL), "{\"tools\":[{\"name\":\"y\"}],\"nextCursor\":\"2\"}");
        fake_result(fake_call(a, NULL),
                    "{\"resultType\":\"complete\",\"ttlMs\":5,\"cacheScope\":\"public\",\"tools\":[{\"name\":\"x\",\"k\":1}]}");
        /* In the order of names, up to the one that has more. */
        assert_non_null(strstr(x->answer, "{\"tools\":[{\"name\":\"a__x\",\"k\":1},{\"name\":\"b__y\"}],\"nextCursor\":\""));
        assert_non_null(strstr(x->answer, "\"resultType\":\"complete\",\"ttlMs\":0,\"cacheScope\":\"private\""));
        at = strstr(x->answer, "nextCursor") + 13;
        cursor = mem_strndup(at, strcspn(at, "\""));
        params = mem_printf("\"cursor\":\"%s\"", cursor);
        x = modern(w, "/mcp", "tools/list", NULL, params);
        assert_null(fake_call(a, NULL));
        assert_non_null(strstr(fake_call(b, NULL)->params, "\"cursor\":\"2\""));
        fake_result(fake_call(b, NULL), "{\"tools\":[]}");
        fake_fail(fake_call(c, NULL), ERR_TIMEOUT, "late");
        assert_non_null(strstr(x->answer, "{\"tools\":[],\"resultType\""));
        /* Not for another list, and not changed. */
        y = modern(w, "/mcp", "prompts/list", NULL, params);
        assert_non_null(strstr(y->answer, "-32602"));
        params[15] = params[15] == 'A' ? 'B' : 'A';
        y = modern(w, "/mcp", "tools/list", NULL, params);
        assert_non_null(strstr(y->answer, "-32602"));
        y = modern(w, "/mcp", "tools/list", NULL, "\"cursor\":\"nonsense\"");
        assert_non_null(strstr(y->answer, "-32602"));
        free(cursor);
        free(params);
        world_free(w);
}

static void test_routes(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *a = world_server(w, "a", NULL, MCP_ERA_LEGACY, CAPS);
        struct upstream *b = world_server(w, "b", "bee.", MCP_ERA_LEGACY, CAPS);
        struct upstream *c = world_server(w, "c", "", MCP_ERA_LEGACY, CAPS);
        struct exchange *x = modern(w, "/mcp", "tools/call", "bee.t", "\"name\":\"bee.t\",\"arguments\":{}");

        fake_result(fake_call(b, "tools/list"), "{\"tools\":[]}");
        assert_string_equal(fake_call(b, NULL)->params, "{\"name\":\"t\",\"arguments\":{},\"_meta\":{}}");
        fake_result(fake_call(b, NULL), "{}");
        assert_true(x->over);
        modern(w, "/mcp", "prompts/get", "a__p", "\"name\":\"a__p\"");
        assert_non_null(strstr(fake_call(a, "prompts/get")->params, "\"name\":\"p\""));
        fake_result(fake_call(a, NULL), "{}");
        modern(w, "/mcp", "prompts/get", "p", "\"name\":\"p\"");
        assert_non_null(strstr(fake_call(c, "prompts/get")->params, "\"name\":\"p\""));
        fake_result(fake_call(c, NULL), "{}");
        modern(w, "/mcp", "completion/complete", NULL,
               "\"ref\":{\"type\":\"ref/prompt\",\"name\":\"a__p\"},\"argument\":{\"name\":\"a__q\",\"value\":\"\"}");
        assert_non_null(strstr(fake_call(a, NULL)->params, "\"name\":\"p\"},\"argument\":{\"name\":\"a__q\""));
        fake_result(fake_call(a, NULL), "{}");
        /* Resources: one after the other, until it is known whose it is. */
        x = modern(w, "/mcp", "resources/read", "f:r", "\"uri\":\"f:r\"");
        fake_error(fake_call(a, NULL), "{\"code\":-32002,\"message\":\"no\"}");
        fake_result(fake_call(b, NULL), "{\"contents\":[]}");
        assert_true(x->over);
        assert_null(fake_call(c, NULL));
        x = modern(w, "/mcp", "resources/read", "f:r", "\"uri\":\"f:r\"");
        assert_null(fake_call(a, NULL));
        fake_result(fake_call(b, NULL), "{\"contents\":[]}");
        x = modern(w, "/mcp", "resources/read", "f:n", "\"uri\":\"f:n\"");
        fake_error(fake_call(a, NULL), "{\"code\":-32002,\"message\":\"no\"}");
        fake_error(fake_call(b, NULL), "{\"code\":-32602,\"message\":\"no\"}");
        fake_fail(fake_call(c, NULL), ERR_UNAVAILABLE, "died");
        assert_non_null(strstr(x->answer, "-32602"));
        assert_non_null(strstr(x->answer, "\"data\":{\"uri\":\"f:n\"}"));
        world_free(w);
}

/* A server that has no resources knows none: asked for one, it is passed over, also when that shows only while the caller waits for it. */
static void test_resource_of_those_without(_unused_ void **state)
{
        for (int known = 0; known < 2; known++) {
                struct world *w = world_new();
                struct upstream *a = world_server(w, "a", NULL, MCP_ERA_MODERN, "{\"tools\":{}}"), *b = NULL;
                struct exchange *x;

                if (known)
                        b = world_server(w, "b", NULL, MCP_ERA_MODERN, CAPS);
                x = modern(w, "/mcp", "resources/read", "f:r", "\"uri\":\"f:r\"");
                assert_null(fake_call(a, "resources/read"));
                if (known)
                        fake_result(fake_call(b, "resources/read"), "{\"contents\":[]}");
                assert_true(x->over);
                assert_non_null(strstr(x->answer, known ? "\"contents\":[]" : "Resource not found"));
                world_free(w);
        }
}

static void test_gone(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *a = world_server(w, "a", NULL, MCP_ERA_LEGACY, CAPS), *b = world_server(w, "b", NULL, MCP_ERA_LEGACY, CAPS);
        struct exchange *x = LIST("/mcp"), *y = LIST("/servers/a/mcp"), *z = modern(w, "/mcp", "resources/read", "f:r", "\"uri\":\"f:r\"");

        gateway_server_gone(w->g, "a");
        assert_true(a->freed);
        assert_true(y->over);
        assert_non_null(strstr(y->answer, "\"retryable\":false"));
        fake_result(fake_call(b, "tools/list"), "{\"tools\":[{\"name\":\"t\"}]}");
        assert_non_null(strstr(x->answer, "b__t"));
        fake_result(fake_call(b, "resources/read"), "{\"contents\":[]}");
        assert_true(z->over);
        assert_int_equal(LIST("/servers/a/mcp")->status, 404);
        world_free(w);
}

static void http_entry(struct world *w, const char *of, bool per_session)
{
        char name[] = "h", address[] = "127.0.0.1", *instance = mem_strdup(of);
        struct channel_entry e = {.name = name,
                                  .transport = TRANSPORT_STREAMABLE_HTTP,
                                  .readiness = READINESS_UP,
                                  .address = address,
                                  .port = 1,
                                  .instance = instance,
                                  .per_session = per_session};

        gateway_server(w->g, &e);
        free(instance);
}

static const char start_with_roots[] =
        "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\","
        "\"capabilities\":{\"roots\":{}}}}";

/* Every client its own session with the server. */
static void test_per_session(_unused_ void **state)
{
        struct world *w = world_new();
        struct exchange *x, *y;
        char *id;

        http_entry(w, "aaaaaaaaaaaa", true);
        assert_int_equal(n_fake_upstreams, 1);
        fake_ready(fake_upstreams[0], MCP_ERA_LEGACY, INFO);
        x = run(w, fake_exchange("POST", "/servers/h/mcp", start_with_roots, JSON, ACCEPT, NULL));
        id = mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
        x = run(w, fake_exchange("POST", "/servers/h/mcp", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", JSON, ACCEPT, id,
                                 NULL));
        assert_int_equal(n_fake_upstreams, 2);
        assert_string_equal(fake_upstreams[1]->capabilities, "{\"roots\":{\"listChanged\":true}}");
        fake_ready(fake_upstreams[1], MCP_ERA_LEGACY, INFO);
        fake_result(fake_call(fake_upstreams[1], "tools/list"), "{\"tools\":[]}");
        assert_true(x->over);
        y = LIST("/servers/h/mcp"); /* modern clients share */
        assert_non_null(fake_call(fake_upstreams[0], "tools/list"));
        fake_leave(y);
        run(w, fake_exchange("DELETE", "/servers/h/mcp", NULL, id, NULL));
        assert_true(fake_upstreams[1]->freed);
        assert_false(fake_upstreams[0]->freed);
        free(id);
        world_free(w);
}

/* The next shared one, when its time has come. */
static struct upstream *comes_again(struct world *w, size_t n)
{
        for (unsigned i = 0; i < 50 && n_fake_upstreams == n; i++)
                world_run(w, 50);
        assert_int_equal(n_fake_upstreams, n + 1);
        return fake_upstreams[n];
}

/* One that turns us down is not waited for, whatever else becomes of other sessions with it, and is called when it has changed its mind. */
static void test_denied(_unused_ void **state)
{
        struct world *w = world_new();
        struct exchange *x;

        http_entry(w, "aaaaaaaaaaaa", true);
        fake_ready(fake_upstreams[0], MCP_ERA_LEGACY, INFO);
        x = run(w, fake_exchange("POST", "/servers/h/mcp", start_with_roots, JSON, ACCEPT, NULL));
        _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
        (void)run(w, fake_exchange("POST", "/servers/h/mcp", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", JSON, ACCEPT, id,
                                   NULL));
        assert_int_equal(n_fake_upstreams, 2);
        fake_ready(fake_upstreams[1], MCP_ERA_LEGACY, INFO);
        fake_end(fake_upstreams[0]);
        (void)comes_again(w, 2);
        x = LIST("/servers/h/mcp");
        assert_false(x->over);
        fake_end_with(fake_upstreams[2], ERR_DENIED, "who are you");
        assert_non_null(strstr(x->answer, "who are you"));
        fake_end(fake_upstreams[1]);
        x = LIST("/servers/h/mcp");
        assert_non_null(strstr(x->answer, "server h: who are you"));
        fake_ready(comes_again(w, 3), MCP_ERA_LEGACY, INFO);
        x = LIST("/servers/h/mcp");
        assert_non_null(fake_call(fake_upstreams[3], "tools/list"));
        world_free(w);
}

#define SLOW_MS 2050U

/* A list does not wait for one that is slow. What comes later is announced, and kept for the next one that would go without it. */
static void test_slow_server(_unused_ void **state)
{
        static const char with[] = "b__y", *const changed = "tools/list_changed";
        struct world *w = world_new();
        struct upstream *a = world_server(w, "a", NULL, MCP_ERA_LEGACY, CAPS), *b = world_server(w, "b", NULL, MCP_ERA_LEGACY, CAPS);
        struct exchange *listen, *x;
        size_t told;

        world_run(w, 100); /* "changed", since they are there */
        listen = modern(w, "/mcp", "subscriptions/listen", NULL, "\"notifications\":{\"toolsListChanged\":true}");
        x = LIST("/mcp");
        fake_result(fake_call(a, "tools/list"), "{\"tools\":[{\"name\":\"x\"}]}");
        assert_false(x->over);
        world_run(w, SLOW_MS);
        assert_true(x->over);
        assert_non_null(strstr(fake_last(x), "a__x"));
        assert_null(strstr(fake_last(x), with));
        told = listen->n_events;
        /* Who asks now need not wait, and the server is not asked a second time. */
        x = LIST("/mcp");
        fake_result(fake_call(a, "tools/list"), "{\"tools\":[{\"name\":\"x\"}]}");
        assert_true(x->over);
        fake_result(fake_call(b, "tools/list"), "{\"tools\":[{\"name\":\"y\"}]}");
        assert_null(fake_call(b, "tools/list"));
        world_run(w, 100);
        assert_int_equal(listen->n_events, told + 1);
        assert_non_null(strstr(fake_last(listen), changed));
        for (unsigned i = 0; i < 2; i++) {
                x = LIST("/mcp");
                fake_result(fake_call(a, "tools/list"), "{\"tools\":[{\"name\":\"x\"}]}");
                world_run(w, SLOW_MS);
                assert_non_null(strstr(fake_last(x), with));
                /* The same is no news; and a server that gives up has not lost its tools. */
                if (i == 0)
                        fake_result(fake_call(b, "tools/list"), "{\"tools\":[{\"name\":\"y\"}]}");
                else
                        fake_fail(fake_call(b, "tools/list"), ERR_TIMEOUT, "too slow");
                world_run(w, 100);
                assert_int_equal(listen->n_events, told + 1);
        }
        /* In time, it is the newest that counts, also for later. */
        x = LIST("/mcp");
        fake_result(fake_call(a, "tools/list"), "{\"tools\":[]}");
        fake_result(fake_call(b, "tools/list"), "{\"tools\":[{\"name\":\"z\"}]}");
        assert_null(strstr(fake_last(x), with));
        x = LIST("/mcp");
        fake_result(fake_call(a, "tools/list"), "{\"tools\":[]}");
        world_run(w, SLOW_MS);
        assert_non_null(strstr(fake_last(x), "b__z"));
        world_free(w);
}

/* What a slow server lists in one client's own session comes into no other client's list. */
static void test_slow_list_of_one_client(_unused_ void **state)
{
        static const char list[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"prompts/list\"}";
        struct world *w = world_new();
        size_t n = 1;

        http_entry(w, "aaaaaaaaaaaa", true);
        fake_ready(fake_upstreams[0], MCP_ERA_LEGACY, INFO);
        for (unsigned i = 0; i < 2; i++) {
                struct exchange *x = run(w, fake_exchange("POST", "/mcp", start_with_roots, JSON, ACCEPT, NULL));
                _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));

                x = run(w, fake_exchange("POST", "/mcp", list, JSON, ACCEPT, id, NULL));
                assert_int_equal(n_fake_upstreams, n + 1);
                fake_ready(fake_upstreams[n], MCP_ERA_LEGACY, INFO);
                world_run(w, SLOW_MS);
                assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"prompts\":[]}}");
                fake_result(fake_call(fake_upstreams[n], "prompts/list"), "{\"prompts\":[{\"name\":\"mine\"}]}");
                n++;
        }
        world_free(w);
}

/* More servers than a session may have calls under way; and lists without end are refused all the same. */
static void test_many_servers(_unused_ void **state)
{
        static const char start[] =
                "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\","
                "\"capabilities\":{}}}",
                          list[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}",
                          ping[] = "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}";
        struct world *w = world_new();
        struct upstream *all[200];
        struct exchange *x, *y, *lists[16];
        unsigned refused = 0;
        char *id;

        for (unsigned i = 0; i < ELEMENTSOF(all); i++) {
                char name[8];

                snprintf(name, sizeof(name), "s%03u", i);
                all[i] = world_server(w, name, NULL, MCP_ERA_LEGACY, CAPS);
        }
        x = run(w, fake_exchange("POST", "/mcp", start, JSON, ACCEPT, NULL));
        id = mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
        x = run(w, fake_exchange("POST", "/mcp", list, JSON, ACCEPT, id, NULL));
        y = run(w, fake_exchange("POST", "/mcp", ping, JSON, ACCEPT, id, NULL));
        assert_non_null(strstr(fake_last(y), "\"result\":{}"));
        for (unsigned i = 0; i < ELEMENTSOF(all); i++)
                fake_result(fake_call(all[i], "tools/list"), "{\"tools\":[{\"name\":\"t\"}]}");
        assert_non_null(strstr(fake_last(x), "s000__t"));
        assert_non_null(strstr(fake_last(x), "s199__t"));
        for (unsigned i = 0; i < ELEMENTSOF(lists); i++) {
                lists[i] = run(w, fake_exchange("POST", "/mcp", list, JSON, ACCEPT, id, NULL));
                refused += lists[i]->over && strstr(fake_last(lists[i]), "too many lists");
        }
        assert_int_equal(refused, ELEMENTSOF(lists) - 8);
        run(w, fake_exchange("DELETE", "/mcp", NULL, id, NULL)); /* with all of them under way */
        free(id);
        world_free(w);
}

static struct upstream *newest(void)
{
        return fake_upstreams[n_fake_upstreams - 1];
}

/* A call without an answer is followed by a ping; only who answers neither has hung, and is not given back again at once. */
static void test_hung_http(_unused_ void **state)
{
        struct world *w = world_new();
        struct exchange *x;

        http_entry(w, "aaaaaaaaaaaa", false);
        fake_ready(newest(), MCP_ERA_LEGACY, INFO);
        for (unsigned i = 0; i < 3; i++) {
                x = LIST("/servers/h/mcp");
                fake_fail(fake_call(newest(), "tools/list"), ERR_TIMEOUT, "too slow");
                assert_true(x->over);
                if (i == 0) /* it has no such method, but it is there */
                        fake_error(fake_call(newest(), "ping"), "{\"code\":-32601,\"message\":\"what\"}");
                if (i == 1) { /* it answers others meanwhile */
                        world_run(w, 5);
                        x = LIST("/servers/h/mcp");
                        fake_result(fake_call(newest(), "tools/list"), "{\"tools\":[]}");
                        fake_fail(fake_call(newest(), "ping"), ERR_TIMEOUT, "too slow");
                }
                assert_int_equal(w->renews, 0);
        }
        fake_fail(fake_call(newest(), "ping"), ERR_TIMEOUT, "too slow");
        assert_int_equal(w->renews, 1);
        assert_true(fake_upstreams[0]->freed);
        http_entry(w, "bbbbbbbbbbbb", false);
        fake_ready(newest(), MCP_ERA_MODERN, "{\"capabilities\":{\"tools\":{}}}");
        LIST("/servers/h/mcp");
        fake_fail(fake_call(newest(), "tools/list"), ERR_TIMEOUT, "too slow");
        fake_fail(fake_call(newest(), "server/discover"), ERR_TIMEOUT, "too slow");
        assert_int_equal(w->renews, 1); /* once a minute, at first */
        world_free(w);
}

/* One that cannot be spoken to at all, for as long as a start may take. */
static void test_unreached_http(_unused_ void **state)
{
        struct world *w = world_new();

        http_entry(w, "aaaaaaaaaaaa", false);
        fake_end(newest());
        assert_int_equal(w->renews, 0);
        for (unsigned i = 0; i < 20 && !w->renews; i++) {
                world_run(w, 100);
                if (!newest()->freed)
                        fake_end(newest());
        }
        assert_true(n_fake_upstreams >= 2);
        assert_int_equal(w->renews, 1);
        world_free(w);
}

static void test_hung_stdio(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);

        LIST("/servers/one/mcp");
        fake_fail(fake_call(u, "tools/list"), ERR_TIMEOUT, "too slow");
        fake_fail(fake_call(u, "ping"), ERR_TIMEOUT, "too slow");
        assert_true(u->freed);
        world_run(w, 700);
        assert_true(w->renews >= 1);
        world_free(w);
}

/* A modern server knows no sessions: nobody has one of his own with it, and what waited for one gets on with the shared one. */
static void test_per_session_modern(_unused_ void **state)
{
        static const char start[] = "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-"
                                    "25\",\"capabilities\":{}}}";
        struct world *w = world_new();
        struct exchange *x;
        char *id;

        http_entry(w, "aaaaaaaaaaaa", true);
        fake_ready(fake_upstreams[0], MCP_ERA_MODERN, "{\"capabilities\":{\"tools\":{},\"resources\":{\"subscribe\":true}}}");
        x = run(w, fake_exchange("POST", "/servers/h/mcp", start, JSON, ACCEPT, NULL));
        id = mem_printf("Mcp-Session-Id: %s", fake_header(x, "Mcp-Session-Id"));
        x = run(w, fake_exchange("POST", "/servers/h/mcp",
                                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/subscribe\",\"params\":{\"uri\":\"f:a\"}}", JSON,
                                 ACCEPT, id, NULL));
        assert_int_equal(n_fake_upstreams, 1);
        world_run(w, 30);
        assert_non_null(strstr(fake_call(fake_upstreams[0], "subscriptions/listen")->params, "\"resourceSubscriptions\":[\"f:a\"]"));
        fake_notify(fake_upstreams[0], fake_call(fake_upstreams[0], "subscriptions/listen"),
                    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{}}");
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
        x = run(w, fake_exchange("POST", "/servers/h/mcp",
                                 "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"resources/unsubscribe\",\"params\":{\"uri\":\"f:a\"}}", JSON,
                                 ACCEPT, id, NULL));
        assert_string_equal(x->answer, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}");
        world_run(w, 30);
        assert_null(strstr(fake_call(fake_upstreams[0], "subscriptions/listen")->params, "f:a"));
        /* Another instance: its era is not known yet, and the session makes one of its own beside the shared one. */
        http_entry(w, "baaaaaaaaaaa", true);
        x = run(w, fake_exchange("POST", "/servers/h/mcp", "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\"}", JSON, ACCEPT, id,
                                 NULL));
        assert_int_equal(n_fake_upstreams, 3);
        fake_ready(fake_upstreams[1], MCP_ERA_MODERN, "{\"capabilities\":{\"tools\":{}}}");
        assert_true(fake_upstreams[2]->freed);
        fake_result(fake_call(fake_upstreams[1], "tools/list"), "{\"tools\":[]}");
        assert_true(x->over);
        free(id);
        world_free(w);
}

/* A tool whose annotations break the rules is not called over HTTP either. */
static void test_broken_tool(_unused_ void **state)
{
        struct world *w = world_new();
        char name[] = "h", address[] = "127.0.0.1", instance[] = "aaaaaaaaaaaa";
        struct channel_entry e = {.name = name,
                                  .transport = TRANSPORT_STREAMABLE_HTTP,
                                  .readiness = READINESS_UP,
                                  .address = address,
                                  .port = 1,
                                  .instance = instance};
        struct exchange *x;

        gateway_server(w->g, &e);
        fake_ready(fake_upstreams[0], MCP_ERA_MODERN, "{\"capabilities\":{\"tools\":{}}}");
        x = modern(w, "/servers/h/mcp", "tools/call", "broken", "\"name\":\"broken\"");
        fake_result(fake_call(fake_upstreams[0], "tools/list"),
                    "{\"tools\":[{\"name\":\"broken\",\"inputSchema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\","
                    "\"x-mcp-header\":\"A\"}}}},{\"name\":\"good\",\"inputSchema\":{\"type\":\"object\"}}]}");
        assert_non_null(strstr(x->answer, "-32602"));
        assert_null(fake_call(fake_upstreams[0], "tools/call"));
        x = modern(w, "/servers/h/mcp", "tools/call", "good", "\"name\":\"good\"");
        fake_result(fake_call(fake_upstreams[0], "tools/call"), "{}");
        assert_true(x->over);
        world_free(w);
}

static void test_metrics(_unused_ void **state)
{
        struct world *w = world_new();
        struct upstream *u = world_server(w, "one", NULL, MCP_ERA_LEGACY, CAPS);
        struct buf b = {0};

        LIST("/servers/one/mcp");
        fake_result(fake_call(u, NULL), "{}");
        gateway_metrics(w->g, &b);
        assert_non_null(strstr(b.data, "bulkhead_server_calls_total{server=\"one\"} 1\n"));
        assert_non_null(strstr(b.data, "bulkhead_server_up{server=\"one\"} 1\n"));
        buf_deinit(&b);
        world_free(w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_on_demand),
                cmocka_unit_test(test_does_not_come),
                cmocka_unit_test(test_dies),
                cmocka_unit_test(test_merged_lists),
                cmocka_unit_test(test_routes),
                cmocka_unit_test(test_resource_of_those_without),
                cmocka_unit_test(test_gone),
                cmocka_unit_test(test_slow_server),
                cmocka_unit_test(test_slow_list_of_one_client),
                cmocka_unit_test(test_many_servers),
                cmocka_unit_test(test_hung_http),
                cmocka_unit_test(test_unreached_http),
                cmocka_unit_test(test_hung_stdio),
                cmocka_unit_test(test_per_session),
                cmocka_unit_test(test_denied),
                cmocka_unit_test(test_per_session_modern),
                cmocka_unit_test(test_broken_tool),
                cmocka_unit_test(test_metrics),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
