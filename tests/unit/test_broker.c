/*
 * The controller's side of the link: what the broker is told, and what it may ask for.
 */
#include "tests/unit/broker_world.h"

#include <sys/socket.h>
#include <unistd.h>

#include "common/file.h"

static void test_catalogue(void **state)
{
        struct world *w = *state;

        w->broker = dial(w);
        hear(w, ALL);
        /* What did not change is not told again. */
        broker_tell(&w->c, false);
        hear(w, "");
        set_plan(w, WEB, SERVER_STARTING);
        set_plan(w, LAZY, SERVER_RUNNING);
        broker_tell(&w->c, true); /* nobody has looked yet: only what may not be called is news */
        hear(w, "");
        broker_tell(&w->c, false);
        hear(w, "server lazy coming, server web coming");
        /* Revoked: at once. And what nothing declares. */
        w->servers[ECHO].may_run = w->servers[ECHO].may_stay = false;
        broker_tell(&w->c, true);
        hear(w, "gone echo");
        w->desired.n = SERVERS - 1;
        broker_tell(&w->c, true);
        hear(w, "gone web");
        w->desired.n = SERVERS;
        broker_tell(&w->c, false);
        hear(w, "server web coming");
}

/* Before the inputs are known nothing is told; an empty catalogue is something else. */
static void test_nothing_is_known_yet(void **state)
{
        struct world *w = *state;

        w->c.desired = NULL;
        w->broker = dial(w);
        hear(w, "hello");
        ask(w, "start", "lazy");
        hear(w, "refused lazy no server of that name may be called");
        w->c.desired = &w->desired;
        w->c.passes = 0; /* the Engine was looked at, and nothing was compared with it: what runs would be told as to come */
        broker_tell(&w->c, false);
        hear(w, "");
        w->c.passes = 1;
        broker_tell(&w->c, false);
        hear(w, "synced");
}

/* A large catalogue goes at the pace of who reads it, and all of it arrives. */
static void test_large_catalogue(void **state)
{
        struct world *w = *state;
        struct registry_entry *entries = NEW_N(struct registry_entry, 2000);
        struct desired_server *servers = NEW_N(struct desired_server, 2000);
        _cleanup_strv_ char **tools = NULL;
        unsigned told = 0, synced = 0;

        for (unsigned i = 0; i < 20; i++) {
                _cleanup_free_ char *tool = mem_printf("%0100u", i);
                tools = strv_append(tools, tool);
        }
        w->record.tools = tools;
        for (unsigned i = 0; i < 2000; i++) {
                entries[i] = w->entries[ECHO];
                servers[i] = w->servers[ECHO];
                servers[i].name = entries[i].name = mem_printf("s%04u", i);
                servers[i].entry = &entries[i];
        }
        w->desired.servers = servers;
        w->desired.n = 2000;
        w->broker = dial(w);
        for (unsigned idle = 0; idle < 3; idle++) {
                run_ms(&w->x, 1);
                for (;;) {
                        _cleanup_free_ char *p = packet(w, w->broker);
                        assert_string_not_equal(p, "end");
                        if (!*p)
                                break;
                        told += str_has_prefix(p, "server ");
                        synced += str_eq(p, "synced");
                        idle = 0;
                }
        }
        assert_int_equal(told, 2000);
        assert_int_equal(synced, 1);
        broker_free(TAKE_PTR(w->c.broker));
        for (unsigned i = 0; i < 2000; i++)
                free(entries[i].name);
        free(entries);
        free(servers);
}

static void test_calls(void **state)
{
        struct world *w = *state;
        struct key *lazy = key_get(&w->c, "lazy");

        w->broker = dial(w);
        hear(w, ALL);
        ask(w, "start", "lazy");
        hear(w, "");
        assert_true(lazy->demand.called);
        ask(w, "start", "lazy"); /* another caller */
        hear(w, "");
        assert_int_equal(lazy->demand.starts.used, 1);
        ask(w, "stop", "lazy");
        hear(w, "");
        assert_false(lazy->demand.called);
        /* What it may not. */
        ask(w, "start", "echo");
        hear(w, "refused echo it is no on-demand server");
        ask(w, "stop", "echo");
        hear(w, "refused echo it is no on-demand server");
        ask(w, "start", "nobody");
        hear(w, "refused nobody no server of that name");
        w->servers[OTHER].may_run = w->servers[OTHER].may_stay = false;
        ask(w, "start", "other");
        hear(w, "refused other no server of that name");
        assert_false(key_get(&w->c, "other")->demand.called);
        /* Not to be had: the caller is not left waiting. */
        set_plan(w, LAZY, SERVER_QUARANTINED);
        lazy->plan->why = mem_strdup("manifest-mismatch");
        ask(w, "start", "lazy");
        hear(w, "refused lazy manifest-mismatch");
}

/* What was approved of each item goes along, and without it nobody may call a server. */
static void test_pins_are_told(void **state)
{
        struct world *w = *state;
        _cleanup_free_ char *path = mem_printf("%s/smoked.json", w->dir);
        struct err *err = NULL;
        char **pins = NULL;

        w->record.manifest_sha256 = (char *)MANIFEST;
        w->broker = dial(w);
        hear(w, "hello, server echo coming, server lazy asleep, server other asleep, server web coming, synced");
        pins = strv_append(pins, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_ok(smoked_remember(w->c.smoked, &w->conf, SPEC_A, MANIFEST, pins, &err));
        broker_tell(&w->c, false);
        hear(w, "pins echo, server echo coming, pins lazy, server lazy asleep, pins other, server other asleep, pins web, server web up");
        /* They survive a restart. */
        smoked_free(w->c.smoked);
        w->c.smoked = smoked_load(&w->conf);
        assert_string_equal(smoked_manifest(w->c.smoked, SPEC_A), MANIFEST);
        assert_int_equal(strv_len(smoked_pins(w->c.smoked, SPEC_A)), 1);
        broker_tell(&w->c, false);
        hear(w, "");
        assert_int_equal(unlink(path), 0);
}

/* What the broker withholds is for people to see, as long as it says so. */
static void test_differs(void **state)
{
        static const char some[] = "{\"kind\":\"differs\",\"name\":\"echo\",\"differs\":[\"tool a\",\"prompt b\"]}",
                          none[] = "{\"kind\":\"differs\",\"name\":\"echo\",\"differs\":[]}";
        struct world *w = *state;
        const struct key *echo = key_get(&w->c, "echo");

        w->broker = dial(w);
        hear(w, ALL);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(send(w->broker, some, strlen(some), MSG_NOSIGNAL), strlen(some));
                run_ms(&w->x, 50);
                assert_int_equal(strv_len(echo->differs), 2);
                assert_string_equal(echo->differs[0], "tool a");
                if (i == 0)
                        assert_int_equal(send(w->broker, none, strlen(none), MSG_NOSIGNAL), strlen(none));
                else
                        close(TAKE_FD(w->broker));
                run_ms(&w->x, 50);
                assert_null(echo->differs);
        }
}

static int on_pass(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        ++*(unsigned *)user;
        return 0;
}

/* A broker that says the same again and again makes the controller look at the Engine once. */
static void test_flood_of_questions(void **state)
{
        struct world *w = *state;
        unsigned passes = 0;

        w->broker = dial(w);
        hear(w, ALL);
        assert_true(sd_event_add_time_relative(w->c.loop, &w->c.pass_timer, CLOCK_MONOTONIC, 0, 1, on_pass, &passes) >= 0);
        assert_true(sd_event_source_set_enabled(w->c.pass_timer, SD_EVENT_OFF) >= 0);
        for (unsigned i = 0; i < 100; i++) {
                ask(w, "start", "lazy");
                run_ms(&w->x, 1);
        }
        hear(w, "");
        assert_int_equal(passes, 1);
        for (unsigned i = 0; i < 100; i++) {
                ask(w, "stop", "lazy");
                run_ms(&w->x, 1);
        }
        hear(w, "");
        assert_int_equal(passes, 2);
        sd_event_source_disable_unref(w->c.pass_timer);
        w->c.pass_timer = NULL;
}

static void test_caps(void **state)
{
        struct world *w = *state;

        w->broker = dial(w);
        hear(w, ALL);
        w->conf.gateway_max_instances = 1;
        ask(w, "start", "lazy");
        ask(w, "start", "other");
        hear(w, "refused other 1 on-demand servers run already");
        w->conf.gateway_max_instances = 2;
        w->conf.gateway_max_memory = 399; /* echo, web and lazy have 100 each */
        ask(w, "start", "other");
        hear(w, "refused other there is no memory for it");
        w->conf.gateway_max_memory = 400;
        ask(w, "start", "other");
        hear(w, "");
        for (unsigned i = 0; i < demand_starts.burst; i++) {
                ask(w, "stop", "other");
                ask(w, "start", "other");
        }
        hear(w, "refused other it was started 10 times in a row");
        assert_false(key_get(&w->c, "other")->demand.called);
}

static void test_demand_ends(void **state)
{
        struct world *w = *state;
        struct key *lazy = key_get(&w->c, "lazy"), *other = key_get(&w->c, "other");
        struct observed_container runs = {
                .server = (char *)"lazy", .state = (char *)"running", .ours = true, .current = true, .id = (char *)CONTAINER};

        /* What ran when the controller came up is wanted, as long as a broker may still come back for it. */
        w->observed = (struct observed){.containers = &runs, .n_containers = 1};
        demand_review(&w->c, &w->observed);
        assert_true(lazy->demand.called);
        assert_false(other->demand.called);
        w->entries[LAZY].idle_timeout_ms = 0;
        demand_review(&w->c, &w->observed);
        assert_false(lazy->demand.called);
        demand_review(&w->c, &w->observed); /* what runs later is not wanted for that */
        assert_false(lazy->demand.called);
        /* With a broker it is the broker that says when. */
        w->broker = dial(w);
        hear(w, ALL);
        ask(w, "start", "lazy");
        hear(w, "");
        set_plan(w, LAZY, SERVER_RUNNING);
        lazy->demand.asked_ms = 0;
        demand_review(&w->c, &w->observed);
        assert_true(lazy->demand.called);
        /* It does not come up, and nobody asks again. */
        set_plan(w, LAZY, SERVER_WAITING);
        demand_review(&w->c, &w->observed);
        assert_true(lazy->demand.called);
        lazy->demand.asked_ms = controller_now_ms() - 60001;
        demand_review(&w->c, &w->observed);
        assert_false(lazy->demand.called);
        /* The approval ends. */
        ask(w, "start", "lazy");
        hear(w, "");
        w->servers[LAZY].may_run = w->servers[LAZY].may_stay = false;
        demand_review(&w->c, &w->observed);
        assert_false(lazy->demand.called);
}

static void test_one_broker(void **state)
{
        struct world *w = *state;
        struct key *echo = key_get(&w->c, "echo");

        w->broker = dial(w);
        hear(w, ALL);
        int second = dial(w);
        run_ms(&w->x, 50);
        _cleanup_free_ char *nothing = packet(w, second);
        assert_string_equal(nothing, "end");
        close(second);
        assert_true(broker_linked(w->c.broker));
        begin_start(w, ECHO);
        hear(w, "stream echo");
        /* It dies: its streams are gone with it, which is no fault of the servers. The next one is told all anew. */
        close(w->broker);
        w->broker = dial(w);
        hear(w, ALL);
        assert_null(echo->session.container);
        assert_true(echo->exit_counted);
        assert_int_equal(echo->failures, 0);
        close(TAKE_FD(w->broker));
        run_ms(&w->x, 50);
        assert_false(broker_linked(w->c.broker));
        assert_true(broker_alone_since_ms(&w->c) > 0);
        /* One that breaks the format is none. */
        w->broker = dial(w);
        hear(w, ALL);
        assert_int_equal(send(w->broker, "{\"kind\":\"synced\"}", 17, MSG_NOSIGNAL), 17);
        hear(w, "end");
        assert_false(broker_linked(w->c.broker));
}

/* While a new version comes up, the one before goes on. */
static void test_rollout(void **state)
{
        struct world *w = *state;
        struct key *web = key_get(&w->c, "web");

        w->broker = dial(w);
        hear(w, ALL);
        set_plan(w, WEB, SERVER_STARTING);
        web->plan->older = mem_strdup(CONTAINER);
        broker_tell(&w->c, false);
        hear(w, "");
        web->plan->older[0] = 'f'; /* another one: the one that was told is gone */
        broker_tell(&w->c, false);
        hear(w, "server web coming");
}

static void test_no_place_to_listen(void **state)
{
        struct world *w = *state;
        char *user = w->conf.broker_user;

        broker_free(TAKE_PTR(w->c.broker));
        w->conf.broker_user = (char *)"nobody-of-that-name";
        w->c.broker = broker_new(&w->c);
        _cleanup_json_ json_object *nobody = broker_json(&w->c);
        assert_false(json_flag(nobody, "listening", true));
        assert_non_null(strstr(json_str(nobody, "error"), "network.broker_user"));
        broker_free(w->c.broker);
        w->conf.broker_user = user;
        w->conf.link_socket = (char *)"/nonexistent/link.sock";
        w->c.broker = broker_new(&w->c);
        _cleanup_json_ json_object *nowhere = broker_json(&w->c);
        assert_non_null(strstr(json_str(nowhere, "error"), "/nonexistent"));
        w->conf.link_socket = w->path;
        broker_listen(w->c.broker);
        _cleanup_json_ json_object *there = broker_json(&w->c);
        assert_true(json_flag(there, "listening", false));
        assert_null(json_str(there, "error"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                world_test(test_catalogue),
                world_test(test_nothing_is_known_yet),
                world_test(test_large_catalogue),
                world_test(test_calls),
                world_test(test_pins_are_told),
                world_test(test_differs),
                world_test(test_flood_of_questions),
                world_test(test_caps),
                world_test(test_demand_ends),
                world_test(test_one_broker),
                world_test(test_rollout),
                world_test(test_no_place_to_listen),
        };
        return cmocka_run_group_tests_name("broker", tests, NULL, NULL);
}
