/*
 * The observer against a scripted Engine: lists that no Engine should give are errors or holes, never the end of the controller.
 */
#include "tests/unit/test_engine.h"

#include "controller/observe.h"

struct look {
        bool finished;
        struct observed *observed;
        struct err *err;
};

static void on_observed(struct observed *observed, struct err *err, void *user)
{
        struct look *l = user;

        l->finished = true;
        l->observed = observed;
        l->err = err ? err_dup(err) : NULL;
}

static void look_deinit(struct look *l)
{
        observed_free(l->observed);
        err_free(l->err);
}

static bool nobody(_unused_ const char *server, _unused_ void *user)
{
        return false;
}

struct lists {
        const char *containers, *networks;
};

static void play(struct fake_request *r)
{
        const struct lists *l = r->user;

        if (strstr(r->path, "/containers/json"))
                fake_reply(r, "200 OK", l->containers);
        else if (strstr(r->path, "/networks"))
                fake_reply(r, "200 OK", l->networks);
        else if (strstr(r->path, "/containers/"))
                fake_reply(r, "200 OK", "{\"Id\":\"abc\",\"State\":{\"Status\":\"running\"}}");
        else
                fake_reply(r, "200 OK", "{}");
}

static void look(struct look *l, const char *containers, const char *networks)
{
        struct lists lists = {containers, networks};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &lists);
        const struct conf conf = {.audience = (char *)"host"};
        _cleanup_(images_freep) struct images *images = images_new();
        _cleanup_(observer_freep) struct observer *o = observer_new(x.engine, &conf, images);
        struct desired nothing = {.refs = 2};

        *l = (struct look){0};
        observer_look(o, &nothing, 0, nobody, on_observed, l);
        while (!l->finished)
                assert_true(sd_event_run(x.loop, 5000000) > 0);
}

#define OURS "\"Labels\":{\"io.bulkhead.owner\":\"host\",\"io.bulkhead.server\":\"s\"}"

/* Engines have been seen to list a container without names while it is made or removed. */
static void test_containers_without_names(_unused_ void **state)
{
        static const char *const lists[] = {
                "[{\"Id\":\"a\"," OURS "}]",
                "[{\"Id\":\"a\",\"Names\":null," OURS "}]",
                "[{\"Id\":\"a\",\"Names\":[]," OURS "}]",
                "[{\"Id\":\"a\",\"Names\":\"/s\"," OURS "}]",
                "[{\"Id\":\"a\",\"Names\":[{}]," OURS "}]",
                "[null,1,[],{\"Names\":7},{\"Id\":\"a\",\"Labels\":{\"io.bulkhead.owner\":\"host\",\"io.bulkhead.server\":{}}}]",
        };

        for (size_t i = 0; i < ELEMENTSOF(lists); i++) {
                _cleanup_(look_deinit) struct look l;
                look(&l, lists[i], "[]");
                assert_null(l.err);
                assert_int_equal(l.observed->n_containers, 1);
                assert_true(l.observed->containers[0].ours);
                assert_false(l.observed->containers[0].current);
        }
}

static void test_networks_of_any_shape(_unused_ void **state)
{
        static const char *const lists[] = {
                "[{\"Id\":\"n\"," OURS "}]",
                "[{\"Id\":\"n\",\"IPAM\":null," OURS "}]",
                "[{\"Id\":\"n\",\"IPAM\":{\"Config\":{}}," OURS "}]",
                "[{\"Id\":\"n\",\"IPAM\":{\"Config\":[null,7,{\"Subnet\":[]}]},\"Options\":[]," OURS "}]",
        };

        for (size_t i = 0; i < ELEMENTSOF(lists); i++) {
                _cleanup_(look_deinit) struct look l;
                look(&l, "[]", lists[i]);
                assert_null(l.err);
                assert_int_equal(l.observed->n_networks, 1);
                assert_null(l.observed->networks[0].subnet);
        }
}

static void test_no_list(_unused_ void **state)
{
        static const char *const answers[] = {"{}", "null", "\"x\"", "7"};

        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                _cleanup_(look_deinit) struct look l, m;
                look(&l, answers[i], "[]");
                assert_non_null(l.err);
                assert_null(l.observed);
                look(&m, "[]", answers[i]);
                assert_non_null(m.err);
                assert_null(m.observed);
        }
}

/* An event that arrives while the inspect is under way may be newer than its answer: it is asked for again. */
static void test_event_during_an_inspect(_unused_ void **state)
{
        struct lists lists = {"[{\"Id\":\"abc\",\"Names\":[\"/s-aaaaaaaa\"],\"State\":\"running\",\"Labels\":{"
                              "\"io.bulkhead.owner\":\"host\",\"io.bulkhead.server\":\"s\",\"io.bulkhead.spec\":\"v1:a\","
                              "\"io.bulkhead.role\":\"server\"}}]",
                              "[{\"Id\":\"n\",\"Name\":\"bh-s-aaaaaaaa\"," OURS "}]"};
        static const unsigned inspects[] = {1, 2, 2};
        const struct conf conf = {.audience = (char *)"host"};
        const struct registry_entry entry = {.name = (char *)"s"};
        const struct record record = {0};
        struct desired_server server = {.name = "s", .entry = &entry, .record = &record};
        struct desired desired = {.refs = 1, .servers = &server, .n = 1};

        server.names = (struct instance_names){
                .container = (char *)"s-aaaaaaaa", .network = (char *)"bh-s-aaaaaaaa", .bridge = "bh1", .spec_hash = "v1:a"};
        _cleanup_fixture_ struct fixture x = fixture_new(play, &lists);
        _cleanup_(images_freep) struct images *images = images_new();
        _cleanup_(observer_freep) struct observer *o = observer_new(x.engine, &conf, images);
        for (size_t i = 0; i < ELEMENTSOF(inspects); i++) {
                _cleanup_(look_deinit) struct look l = {0};

                desired.refs++;
                observer_look(o, &desired, 0, nobody, on_observed, &l);
                if (i == 0)
                        observer_forget(o, "abc");
                while (!l.finished)
                        assert_true(sd_event_run(x.loop, 5000000) > 0);
                assert_null(l.err);
                assert_true(l.observed->containers[0].inspected);
                assert_int_equal(fake_engine_count(x.fake, "/containers/abc/json"), inspects[i]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_containers_without_names),
                cmocka_unit_test(test_networks_of_any_shape),
                cmocka_unit_test(test_no_list),
                cmocka_unit_test(test_event_during_an_inspect),
        };
        return cmocka_run_group_tests_name("observe", tests, NULL, NULL);
}
