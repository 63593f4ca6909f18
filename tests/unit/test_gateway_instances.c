/* Servers that have an instance for every session: whose each is, who hears it, and what ends with it. */
#include <unistd.h>

#include "tests/unit/gateway_fakes.h"

#define JSON   "Content-Type: application/json"
#define ACCEPT "Accept: application/json, text/event-stream"
#define CAPS   "{\"tools\":{\"listChanged\":true},\"resources\":{\"subscribe\":true},\"logging\":{}}"
#define INFO   "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":" CAPS "}"
#define ALICE  "Authorization: Bearer alice"
#define BOB    "Authorization: Bearer bob"
#define ONE    "/servers/one/mcp"

static void entry(struct world *w, enum server_readiness readiness, const char *manifest)
{
        char name[] = "one", *m = mem_strdup(manifest), why[] = "its approval ended";
        struct channel_entry e = {.name = name,
                                  .lifecycle = LIFECYCLE_ON_DEMAND,
                                  .readiness = readiness,
                                  .why = readiness == READINESS_DOWN ? why : NULL,
                                  .manifest = m,
                                  .per_session = true,
                                  .idle_ms = 60000};

        gateway_server(w->g, &e);
        free(m);
}

static struct world *start(void)
{
        struct world *w = world_new();

        entry(w, READINESS_ASLEEP, NULL);
        return w;
}

static struct exchange *run(struct world *w, struct exchange *x)
{
        gateway_exchange(x, w->g);
        return x;
}

static struct exchange *begin(struct world *w, const char *path, const char *capabilities)
{
        _cleanup_free_ char *body = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":"
                                               "\"2025-11-25\",\"capabilities\":%s}}",
                                               capabilities);

        return run(w, fake_exchange("POST", path, body, JSON, ACCEPT, NULL));
}

/* The stream that was asked for last. */
static struct upstream *comes(struct world *w)
{
        size_t before = n_fake_upstreams;

        gateway_stream(w->g, "one", w->started, "aaaaaaaaaaaa", dup(0));
        assert_int_equal(n_fake_upstreams, before + 1);
        return fake_upstreams[before];
}

static struct upstream *comes_up(struct world *w)
{
        struct upstream *u = comes(w);

        fake_ready(u, MCP_ERA_LEGACY, INFO);
        return u;
}

static struct exchange *post(struct world *w, const char *path, const char *session, const char *body)
{
        _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", session);

        return run(w, fake_exchange("POST", path, body, JSON, ACCEPT, id, NULL));
}

#define CALL(session, path, name)                                                                                                          \
        post(w, path, session,                                                                                                             \
             "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"" name "\",\"arguments\":{}}}")

static struct exchange *modern(struct world *w, const char *who, const char *path, const char *name)
{
        _cleanup_free_ char *body =
                mem_printf("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s%s%s\"_meta\":{\"io.modelcontextprotocol/"
                           "protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
                           name ? "prompts/get" : "prompts/list", name ? "\"name\":\"" : "", name ? name : "", name ? "\"," : "");
        _cleanup_free_ char *n = name ? mem_printf("Mcp-Name: %s", name) : NULL;

        return run(w, fake_exchange("POST", path, body, JSON, ACCEPT, "MCP-Protocol-Version: 2026-07-28", who,
                                    name ? "Mcp-Method: prompts/get" : "Mcp-Method: prompts/list", n, NULL));
}

static char *session_of(const struct exchange *x)
{
        assert_true(x->over);
        assert_non_null(fake_header(x, "Mcp-Session-Id"));
        return mem_strdup(fake_header(x, "Mcp-Session-Id"));
}

/* One that is up. */
static char *session(struct world *w, struct upstream **u)
{
        struct exchange *x = begin(w, ONE, "{\"roots\":{}}");

        *u = comes_up(w);
        return session_of(x);
}

static void test_one_each(_unused_ void **state)
{
        struct world *w = start();
        struct upstream *ua, *ub;
        struct exchange *x = begin(w, ONE, "{\"roots\":{}}");
        unsigned first = w->started;

        assert_int_equal(w->starts, 1);
        assert_false(x->over);
        ua = comes(w);
        assert_string_equal(ua->capabilities, "{\"roots\":{\"listChanged\":true}}"); /* this client's, and no more */
        fake_ready(ua, MCP_ERA_LEGACY, INFO);
        _cleanup_free_ char *a = session_of(x);
        x = begin(w, ONE, "{\"sampling\":{}}");
        assert_int_equal(w->starts, 2);
        assert_int_not_equal(w->started, first);
        ub = comes_up(w);
        assert_string_equal(ub->capabilities, "{\"sampling\":{}}");
        _cleanup_free_ char *b = session_of(x);
        /* One stream each: a second one of the same instance is read by nobody. */
        size_t n = n_fake_upstreams;
        gateway_stream(w->g, "one", w->started, "aaaaaaaaaaaa", dup(0));
        assert_int_equal(n_fake_upstreams, n);

        x = CALL(a, ONE, "t");
        assert_non_null(fake_call(ua, "tools/call"));
        assert_null(fake_call(ub, NULL));
        struct exchange *y = CALL(b, ONE, "t");
        fake_result(fake_call(ub, "tools/call"), "{\"n\":2}");
        assert_false(x->over);
        assert_non_null(strstr(y->answer, "\"n\":2"));
        fake_result(fake_call(ua, "tools/call"), "{\"n\":1}");
        assert_non_null(strstr(x->answer, "\"n\":1"));
        assert_int_equal(w->starts, 2);

        _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", a);
        run(w, fake_exchange("DELETE", ONE, NULL, id, NULL));
        assert_true(ua->freed);
        assert_false(ub->freed);
        assert_int_equal(w->stops, 1);
        assert_int_equal(w->stopped, first);
        world_free(w);
        assert_int_equal(n_fake_upstreams, 0);
}

/* What a server asks reaches the client whose instance asks, with calls of both under way and with none. */
static void test_questions(_unused_ void **state)
{
        struct world *w = start();
        struct upstream *ua, *ub;
        _cleanup_free_ char *a = session(w, &ua), *b = session(w, &ub);
        _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", a);
        struct exchange *stream = run(w, fake_exchange("GET", ONE, NULL, ACCEPT, id, NULL));
        struct exchange *x = CALL(a, ONE, "t"), *y = CALL(b, ONE, "t");

        fake_request(ua, NULL, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}");
        assert_non_null(strstr(fake_last(x), "roots/list"));
        assert_int_equal(y->n_events, 0);
        fake_request(ub, NULL, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}");
        assert_int_equal(y->n_events, 1);
        assert_int_equal(x->n_events, 1);
        fake_result(fake_call(ua, "tools/call"), "{}");
        fake_notify(ua, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"error\",\"data\":1}}");
        assert_non_null(strstr(fake_last(stream), "notifications/message"));
        fake_notify(ua, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"f:a\"}}");
        assert_non_null(strstr(fake_last(stream), "resources/updated"));
        assert_int_equal(y->n_events, 1);
        world_free(w);
}

/* Over the cap: whoever asked hears it, and nobody else. */
static void test_refused(_unused_ void **state)
{
        struct world *w = start();
        struct upstream *ua;
        _cleanup_free_ char *a = session(w, &ua);
        struct exchange *x = begin(w, ONE, "{}"), *y;

        gateway_refused(w->g, "one", w->started, "8 sessions have an instance of it");
        assert_true(x->over);
        assert_null(fake_header(x, "Mcp-Session-Id"));
        assert_non_null(strstr(x->answer, "8 sessions have an instance of it"));
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        assert_int_equal(w->stops, 0);
        y = CALL(a, ONE, "t");
        fake_result(fake_call(ua, "tools/call"), "{}");
        assert_true(y->over);
        x = begin(w, ONE, "{}");
        gateway_link(w->g, false);
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        assert_false(ua->freed);
        x = begin(w, ONE, "{}");
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        /* What was on its way then does not come any more. */
        gateway_link(w->g, true);
        (void)modern(w, ALICE, ONE, "p");
        gateway_link(w->g, false);
        gateway_link(w->g, true);
        unsigned starts = w->starts;
        (void)modern(w, ALICE, ONE, "p");
        assert_int_equal(w->starts, starts + 1);
        world_free(w);
}

/* A crash ends the session that had it: what it knew is lost, and nobody is to believe otherwise. */
static void test_crash(_unused_ void **state)
{
        struct world *w = start();
        struct upstream *ua, *ub;
        _cleanup_free_ char *a = session(w, &ua), *b = session(w, &ub);
        struct exchange *x = CALL(a, ONE, "t"), *y = CALL(b, ONE, "t");

        fake_end(ua);
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        assert_int_equal(w->stops, 1);
        assert_int_equal(CALL(a, ONE, "t")->status, 404);
        assert_false(y->over);
        fake_result(fake_call(ub, "tools/call"), "{}");
        assert_true(y->over);
        assert_int_equal(CALL(b, ONE, "t")->status, 0);
        assert_int_equal(w->starts, 2);
        world_free(w);
}

static void test_crash_behind_all(_unused_ void **state)
{
        struct world *w = start();
        _cleanup_free_ char *a = session_of(begin(w, "/mcp", "{}"));
        struct exchange *x = CALL(a, "/mcp", "one__t");
        struct upstream *u = comes_up(w);

        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(x->over);
        fake_end(u);
        x = CALL(a, "/mcp", "one__t");
        assert_non_null(strstr(x->answer, "what that knew is lost"));
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        assert_int_equal(w->starts, 1);
        x = CALL(a, "/mcp", "one__t");
        assert_int_equal(w->starts, 2);
        fake_result(fake_call(comes_up(w), "tools/call"), "{}");
        assert_non_null(strstr(x->answer, "\"result\":{}"));
        world_free(w);
}

/* It ends before it is ready: once more, without server/discover; then no more, and the session that nobody knows of goes too. */
static void test_does_not_come(_unused_ void **state)
{
        struct world *w = start();
        struct exchange *x = begin(w, ONE, "{}");
        struct gateway_counts counts;

        fake_end(comes(w));
        assert_false(x->over);
        assert_int_equal(w->starts, 2);
        assert_int_equal(w->stops, 1);
        fake_end(comes(w));
        assert_non_null(strstr(x->answer, "it died"));
        assert_int_equal(w->stops, 2);
        x = begin(w, ONE, "{}");
        world_run(w, 150);
        assert_non_null(strstr(x->answer, "did not come up in time"));
        assert_int_equal(w->stops, 3);
        gateway_counts(w->g, &counts);
        assert_int_equal(counts.sessions, 0);
        /* The stream that comes all the same, while another session waits for its own; and one of a number that nobody asked for. */
        unsigned late = w->started;
        (void)begin(w, ONE, "{}");
        gateway_stream(w->g, "one", late, "aaaaaaaaaaaa", dup(0));
        gateway_stream(w->g, "one", 0, "aaaaaaaaaaaa", dup(0));
        assert_int_equal(n_fake_upstreams, 2);
        world_free(w);
}

/* Modern clients have no sessions: one instance for each of their credentials. */
static void test_principals(_unused_ void **state)
{
        struct world *w = start();
        struct exchange *x = modern(w, ALICE, ONE, "p"), *y, *z;
        struct upstream *ua = comes_up(w), *ub;

        y = modern(w, BOB, ONE, "p");
        ub = comes_up(w);
        assert_int_equal(w->starts, 2);
        z = modern(w, ALICE, ONE, "q");
        assert_int_equal(w->starts, 2);
        assert_int_equal(ua->n_calls, 2);
        assert_int_equal(ub->n_calls, 1);
        fake_result(fake_call(ub, NULL), "{}");
        assert_true(y->over);
        assert_false(x->over || z->over);
        world_free(w);
}

static struct exchange *listens(struct world *w, const char *who)
{
        return run(w, fake_exchange("POST", ONE,
                                    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscriptions/listen\",\"params\":{\"notifications\":{"
                                    "\"toolsListChanged\":true,\"resourceSubscriptions\":[\"f:a\"]},\"_meta\":{\"io.modelcontextprotocol/"
                                    "protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
                                    JSON, ACCEPT, "MCP-Protocol-Version: 2026-07-28", who, "Mcp-Method: subscriptions/listen", NULL));
}

/* What an instance tells without being asked, those hear whose it is. */
static void test_subscriptions(_unused_ void **state)
{
        struct world *w = start();
        struct exchange *x = listens(w, ALICE), *y;
        struct upstream *ua = comes_up(w), *ub;

        y = listens(w, BOB);
        ub = comes_up(w);
        assert_non_null(strstr(fake_last(x), "acknowledged"));
        assert_non_null(strstr(fake_last(x), "f:a"));
        assert_non_null(fake_call(ua, "resources/subscribe"));
        assert_non_null(fake_call(ub, "resources/subscribe"));
        fake_notify(ua, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"f:a\"}}");
        assert_int_equal(x->n_events, 2);
        assert_int_equal(y->n_events, 1);
        fake_notify(ub, NULL, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}");
        assert_int_equal(x->n_events, 2);
        assert_int_equal(y->n_events, 2);
        fake_leave(x);
        assert_non_null(fake_call(ua, "resources/unsubscribe"));
        assert_null(fake_call(ub, "resources/unsubscribe"));
        world_free(w);
}

/* Who only looks at what there is has no instance, and nothing of another client's comes into it. */
static void test_lists(_unused_ void **state)
{
        struct world *w = start();
        struct upstream *ua, *own;
        struct exchange *x, *y;

        free(session(w, &ua)); /* somebody else's */
        _cleanup_free_ char *all = session_of(begin(w, "/mcp", "{\"roots\":{}}"));

        _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", all);
        const struct exchange *stream = run(w, fake_exchange("GET", "/mcp", NULL, ACCEPT, id, NULL));

        x = post(w, "/mcp", all, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}");
        y = post(w, "/mcp", all, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"resources/list\"}");
        assert_int_equal(w->starts, 2);
        assert_true(w->started_lists);
        own = comes_up(w);
        assert_string_equal(own->capabilities, "{}");
        assert_null(fake_call(ua, NULL));
        fake_request(own, NULL, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}");
        assert_int_equal(own->n_answered, 1);
        assert_int_equal(x->n_events + y->n_events + stream->n_events, 0);
        for (struct upstream_call *c; (c = fake_call(own, "tools/list"));)
                fake_result(c, "{\"tools\":[{\"name\":\"t\"}]}");
        fake_result(fake_call(own, "resources/list"), "{\"resources\":[]}");
        assert_non_null(strstr(x->answer, "one__t"));
        assert_true(y->over);
        /* It is known now, and nobody is woken for it. */
        x = post(w, "/mcp", all, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\"}");
        assert_non_null(strstr(x->answer, "one__t"));
        /* Who has one hears what that has. */
        (void)CALL(all, "/mcp", "one__t");
        assert_int_equal(w->starts, 3);
        assert_false(w->started_lists);
        struct upstream *u = comes_up(w);
        x = post(w, "/mcp", all, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\"}");
        fake_result(fake_call(u, "tools/list"), "{\"tools\":[{\"name\":\"mine\"}]}");
        assert_non_null(strstr(x->answer, "one__mine"));
        world_free(w);
}

/* That no more can be started, or another approval, says nothing against those that run; that the server is gone does. */
static void test_changes(_unused_ void **state)
{
        struct world *w = start();
        struct upstream *u;
        _cleanup_free_ char *a = session(w, &u);
        struct exchange *x;

        entry(w, READINESS_DOWN, NULL);
        assert_false(u->freed);
        x = begin(w, ONE, "{}");
        assert_non_null(strstr(x->answer, "its approval ended"));
        entry(w, READINESS_ASLEEP, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        x = CALL(a, ONE, "t");
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(x->over);
        gateway_server_gone(w->g, "one");
        assert_true(u->freed);
        assert_int_equal(CALL(a, ONE, "t")->status, 404);
        world_free(w);
}

static void test_idle(_unused_ void **state)
{
        struct world *w = world_new();
        char name[] = "one";
        struct channel_entry e = {
                .name = name, .lifecycle = LIFECYCLE_ON_DEMAND, .readiness = READINESS_ASLEEP, .per_session = true, .idle_ms = 60};
        struct upstream *u;
        struct exchange *x;
        struct buf b = {0};

        gateway_server(w->g, &e);
        _cleanup_free_ char *a = session(w, &u);
        x = CALL(a, ONE, "t");
        world_run(w, 150); /* it is at work */
        assert_false(u->freed);
        gateway_metrics(w->g, &b);
        assert_non_null(strstr(b.data, "bulkhead_server_instances{server=\"one\"} 1\n"));
        assert_non_null(strstr(b.data, "bulkhead_server_up{server=\"one\"} 1\n"));
        buf_deinit(&b);
        fake_result(fake_call(u, "tools/call"), "{}");
        assert_true(x->over);
        world_run(w, 150);
        assert_true(u->freed);
        assert_int_equal(w->stops, 1);
        assert_int_equal(CALL(a, ONE, "t")->status, 404);
        world_free(w);
}

/* -- agents ------------------------------------------------------------------------------------------------------------------- */
static struct principal *keep(struct principal *who)
{
        return who;
}

static void drop(_unused_ struct principal *who)
{
}

static const char *name_of(const struct principal *who)
{
        return (const char *)who;
}

static bool sees(_unused_ const struct principal *who, _unused_ enum policy_kind kind, _unused_ const char *server,
                 _unused_ const char *name, _unused_ void *user)
{
        return true;
}

static const struct gateway_guard guard = {.ref = keep, .unref = drop, .name = name_of, .visible = sees};

static struct exchange *agent_begins(struct world *w, char *agent)
{
        struct exchange *x = fake_exchange("POST", ONE,
                                           "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":"
                                           "\"2025-11-25\",\"capabilities\":{}}}",
                                           JSON, ACCEPT, NULL);

        x->identity = agent;
        return run(w, x);
}

/* One agent's sessions do not get all instances there are; others', and operators', are none of its. */
static void test_one_agents_share(_unused_ void **state)
{
        char alice[] = "alice", bob[] = "bob";
        struct world *w = start();
        struct exchange *x, *first;

        gateway_set_guard(w->g, &guard);
        first = agent_begins(w, alice);
        (void)comes_up(w);
        x = agent_begins(w, alice);
        (void)comes_up(w);
        assert_non_null(fake_header(x, "Mcp-Session-Id"));
        x = agent_begins(w, alice);
        assert_int_equal(w->starts, 2);
        assert_non_null(strstr(x->answer, "2 sessions of this agent"));
        assert_non_null(strstr(x->answer, "\"retryable\":true"));
        x = agent_begins(w, bob);
        (void)comes_up(w);
        assert_non_null(fake_header(x, "Mcp-Session-Id"));
        for (int i = 0; i < 3; i++) {
                x = begin(w, ONE, "{}");
                (void)comes_up(w);
                assert_non_null(fake_header(x, "Mcp-Session-Id"));
        }
        /* One that ends makes room for the next. */
        _cleanup_free_ char *id = mem_printf("Mcp-Session-Id: %s", fake_header(first, "Mcp-Session-Id"));
        x = fake_exchange("DELETE", ONE, NULL, id, NULL);
        x->identity = alice;
        (void)run(w, x);
        x = agent_begins(w, alice);
        (void)comes_up(w);
        assert_non_null(fake_header(x, "Mcp-Session-Id"));
        world_free(w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_each),         cmocka_unit_test(test_questions),
                cmocka_unit_test(test_refused),          cmocka_unit_test(test_crash),
                cmocka_unit_test(test_crash_behind_all), cmocka_unit_test(test_does_not_come),
                cmocka_unit_test(test_principals),       cmocka_unit_test(test_lists),
                cmocka_unit_test(test_changes),          cmocka_unit_test(test_idle),
                cmocka_unit_test(test_subscriptions),    cmocka_unit_test(test_one_agents_share),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
