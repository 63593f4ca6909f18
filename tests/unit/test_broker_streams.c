/*
 * The streams of servers that the controller hands to the broker, and the instances that it starts for single sessions.
 */
#include "tests/unit/broker_world.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_stream(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");
        char text[32] = "";

        w->broker = dial(w);
        hear(w, ALL);
        begin_start(w, ECHO);
        hear(w, "stream echo");
        assert_true(w->fd >= 0);
        assert_int_equal(w->starts, 1);
        assert_string_equal(echo->session.container, CONTAINER);
        assert_int_equal(echo->session.fd, -1);
        /* It is the stream itself: nobody of ours reads or writes between. */
        assert_int_equal(write(w->fd, "question", 8), 8);
        for (unsigned i = 0; i < 100 && read(w->fd, text, sizeof(text) - 1) <= 0; i++)
                run_ms(&w->x, 10);
        assert_string_equal(text, "answer");
        assert_string_equal(w->got, "question");
        set_plan(w, ECHO, SERVER_RUNNING);
        broker_tell(&w->c, false);
        hear(w, "server echo up");
        /* HTTP servers have none. */
        begin_start(w, WEB);
        hear(w, "");
        assert_int_equal(w->starts, 2);
        assert_int_equal(fake_engine_count(w->x.fake, "/attach?"), 1);
}

static void test_no_stream_without_a_broker(void **state)
{
        struct world *w = *state;

        begin_start(w, ECHO);
        assert_int_equal(w->starts, 1);
        assert_int_equal(fake_engine_count(w->x.fake, "/attach?"), 0);
}

/* Not one byte may be lost with the head, and nothing but a 101 is a stream. */
static void test_bad_attach(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");
        static const struct {
                const char *answer, *why;
        } cases[] = {
                {UPGRADED "early", "was not started yet"},
                {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "did not switch"},
                {"HTTP/1.1 409 Conflict\r\nContent-Length: 20\r\n\r\n{\"message\":\"paused\"}", "paused"},
        };

        w->broker = dial(w);
        hear(w, ALL);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                w->attach = cases[i].answer;
                begin_start(w, ECHO);
                if (!echo->error || !strstr(echo->error, cases[i].why))
                        print_error("expected \"%s\" in: %s\n", cases[i].why, echo->error ? echo->error : "-");
                assert_non_null(strstr(echo->error, cases[i].why));
                assert_int_equal(echo->session.fd, -1);
                hear(w, "");
        }
        assert_int_equal(w->starts, 0);
}

static void test_renew(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");
        char instance[CHANNEL_INSTANCE_HEX + 1];

        w->broker = dial(w);
        hear(w, ALL);
        for (unsigned round = 1; round <= 4; round++) {
                begin_start(w, ECHO);
                hear(w, "stream echo");
                set_plan(w, ECHO, SERVER_RUNNING);
                renew(w, "echo", "ffffffffffff"); /* of a session that is history */
                assert_non_null(echo->session.container);
                strcpy(instance, echo->session.instance);
                renew(w, "echo", instance);
                assert_null(echo->session.container);
                assert_int_equal(echo->failures, round);
                /* The first at once, then later and later. */
                assert_int_equal(echo->retry_at_ms == 0, round == 1);
                renew(w, "echo", instance);
                assert_int_equal(echo->failures, round);
        }
        assert_int_equal(echo->restarts, 4);
        /* It ended, that was seen and counted, and only then the broker says so. */
        begin_start(w, ECHO);
        hear(w, "stream echo");
        key_count_end(echo);
        renew(w, "echo", echo->session.instance);
        assert_int_equal(echo->failures, 5);
        assert_null(echo->session.container);
}

/* An HTTP server that hangs: an end like any other, once for each run of it. */
static void test_renew_http(void **state)
{
        struct world *w = *state;
        struct key *web = key_get(&w->c, "web");

        w->broker = dial(w);
        hear(w, ALL);
        renew(w, "web", "ffffffffffff");
        assert_null(web->hung);
        for (unsigned i = 0; i < 3; i++)
                renew(w, "web", "0123456789ab");
        assert_string_equal(web->hung, "0123456789ab");
        assert_int_equal(web->failures, 1);
        assert_int_equal(web->restarts, 1);
        assert_int_equal(web->retry_at_ms, 0);
        strcpy(web->plan->instance, "0123456789ac"); /* it was started anew, and hangs again: later */
        web->exit_counted = false;
        renew(w, "web", "0123456789ac");
        assert_int_equal(web->failures, 2);
        assert_true(web->retry_at_ms > 0);
        /* What runs elsewhere is nobody's here to start. */
        w->entries[WEB].source = SOURCE_URL;
        strcpy(web->plan->instance, "0123456789ad");
        hear(w, "");
        renew(w, "web", "0123456789ad");
        hear(w, "refused web it runs elsewhere");
        assert_int_equal(web->failures, 2);
}

/* -- an instance for every session ------------------------------------------------------------------------------------------------ */

#define PLACES 3U

/* "lazy" has two places, and one for lists; in the order of names. */
static void have_places(struct world *w, struct desired_server servers[SERVERS + PLACES])
{
        static const char *const place[PLACES] = {"lazy.1", "lazy.2", "lazy.3"};

        servers[0] = w->servers[ECHO];
        servers[1] = w->servers[LAZY];
        for (unsigned i = 0; i < PLACES; i++) {
                servers[2 + i] = w->servers[LAZY];
                servers[2 + i].name = place[i];
                servers[2 + i].place = i + 1;
        }
        servers[2 + PLACES] = w->servers[OTHER];
        servers[3 + PLACES] = w->servers[WEB];
        w->entries[LAZY].sharing = SHARING_PER_SESSION;
        w->entries[LAZY].lifecycle = LIFECYCLE_ALWAYS_ON;
        w->desired.servers = servers;
        w->desired.n = SERVERS + PLACES;
        w->conf.gateway_max_server_instances = 2;
        w->conf.gateway_max_instances = 10;
        w->broker = dial(w);
        hear(w, ALL); /* and of the places nothing */
}

static void ask_for(struct world *w, const char *kind, const char *name, unsigned serial)
{
        _cleanup_free_ char *text = mem_printf("{\"kind\":\"%s\",\"name\":\"%s\",\"serial\":%u}", kind, name, serial);

        send_text(w, text);
}

static bool is_called(struct world *w, const char *name)
{
        const struct key *key = key_find(&w->c, name);

        return key && key->demand.called;
}

static void test_places(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];

        have_places(w, servers);
        ask_for(w, "start", "lazy", 7);
        ask_for(w, "start", "lazy", 8);
        hear(w, "");
        assert_true(is_called(w, "lazy.1") && is_called(w, "lazy.2") && !is_called(w, "lazy"));
        ask_for(w, "start", "lazy", 9);
        hear(w, "refused lazy#9 2 sessions have an instance of it (gateway.max_server_instances)");
        ask_for(w, "start", "lazy", 8);
        hear(w, "refused lazy#8 it has an instance of that number");
        ask_for(w, "stop", "lazy", 9);
        hear(w, "");
        ask_for(w, "stop", "lazy", 7);
        hear(w, "");
        assert_true(!is_called(w, "lazy.1") && is_called(w, "lazy.2"));
        ask_for(w, "start", "lazy", 10);
        hear(w, "");
        assert_int_equal(key_get(&w->c, "lazy.1")->demand.serial, 10);
        /* To look at what there is takes none of them; and there is one only. */
        ask_for(w, "start", "lazy", 20);
        hear(w, "refused lazy#20 2 sessions");
        send_text(w, "{\"kind\":\"start\",\"name\":\"lazy\",\"serial\":21,\"lists\":true}");
        hear(w, "");
        assert_true(is_called(w, "lazy.3"));
        send_text(w, "{\"kind\":\"start\",\"name\":\"lazy\",\"serial\":22,\"lists\":true}");
        hear(w, "refused lazy#22 it has an instance for lists");
        ask_for(w, "stop", "lazy", 21);
        hear(w, "");
        assert_false(is_called(w, "lazy.3"));
        /* One for all, and one for a session, are not the same thing. */
        ask(w, "start", "lazy");
        hear(w, "refused lazy it has an instance for every session");
        ask_for(w, "start", "other", 11);
        hear(w, "refused other#11 it has one instance for all sessions");
        ask_for(w, "start", "nobody", 12);
        hear(w, "refused nobody#12 no server of that name");
        /* Memory counts each of them: echo, web, lazy.1 and lazy.2 have 100. */
        ask_for(w, "stop", "lazy", 10);
        w->conf.gateway_max_memory = 399;
        ask_for(w, "start", "lazy", 13);
        hear(w, "refused lazy#13 there is no memory for it");
        w->conf.gateway_max_memory = 400;
        ask_for(w, "start", "lazy", 14);
        hear(w, "");
        assert_int_equal(demand_admission(&w->c).instances, 2);
}

static void test_place_does_not_come(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];

        have_places(w, servers);
        ask_for(w, "start", "lazy", 7);
        ask_for(w, "start", "lazy", 8);
        hear(w, "");
        set_plan_of(w, "lazy.1", SERVER_ERROR);
        key_get(&w->c, "lazy.1")->plan->why = mem_strdup("no\n\"disk\"");
        set_plan_of(w, "lazy.2", SERVER_STARTING);
        broker_tell(&w->c, false);
        hear(w, "refused lazy#7 no\\x0a\"disk\"");
        assert_true(!is_called(w, "lazy.1") && is_called(w, "lazy.2"));
}

static void test_place_stream(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];
        struct key *key;

        have_places(w, servers);
        key = key_get(&w->c, "lazy.1");
        begin_start_of(w, "lazy.1"); /* nobody wants it (any more) */
        assert_int_equal(w->starts, 0);
        ask_for(w, "start", "lazy", 6);
        hear(w, "");
        assert_true(is_called(w, "lazy.2")); /* in the other one something is left to do */
        set_plan_of(w, "lazy.1", SERVER_STOPPED);
        ask_for(w, "start", "lazy", 7);
        hear(w, "");
        begin_start_of(w, "lazy.1");
        hear(w, "stream lazy#7");
        assert_string_equal(key->session.container, CONTAINER);
        ask_for(w, "stop", "lazy", 7);
        hear(w, "");
        assert_null(key->session.container);
}

static void test_place_ends(void **state)
{
        struct world *w = *state;
        struct desired_server servers[SERVERS + PLACES];
        struct observed_container runs = {
                .server = (char *)"lazy.1", .state = (char *)"running", .ours = true, .current = true, .id = (char *)CONTAINER};

        have_places(w, servers);
        w->observed = (struct observed){.containers = &runs, .n_containers = 1};
        demand_review(&w->c, &w->observed); /* of what ran before us nobody has the stream */
        assert_false(is_called(w, "lazy.1"));
        for (unsigned i = 0; i < 2; i++) {
                ask_for(w, "start", "lazy", 7 + i);
                hear(w, "");
                begin_start_of(w, "lazy.1");
                hear(w, "stream lazy");
                set_plan_of(w, "lazy.1", SERVER_RUNNING);
                runs.state = (char *)"exited";
                demand_review(&w->c, &w->observed); /* the look began before it started */
                assert_true(is_called(w, "lazy.1"));
                w->c.pass_began_us = controller_now_us() + 1;
                if (i == 0)
                        demand_review(&w->c, &w->observed);
                else
                        close(TAKE_FD(w->broker));
                run_ms(&w->x, 50);
                assert_false(is_called(w, "lazy.1"));
                assert_null(key_get(&w->c, "lazy.1")->session.container);
                w->c.pass_began_us = 0;
        }
        assert_int_equal(key_get(&w->c, "lazy.1")->failures, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                world_test(test_stream),
                world_test(test_no_stream_without_a_broker),
                world_test(test_bad_attach),
                world_test(test_renew),
                world_test(test_renew_http),
                world_test(test_places),
                world_test(test_place_does_not_come),
                world_test(test_place_stream),
                world_test(test_place_ends),
        };
        return cmocka_run_group_tests_name("broker_streams", tests, NULL, NULL);
}
