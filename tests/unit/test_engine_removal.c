/* What is removed is gone, whoever else removes it; and a name that means another network is no answer. */
#include "tests/unit/test_engine.h"

struct removal_script {
        const char *deletes[4]; /* "status json", the last is repeated */
        const char *looks[4];
        unsigned n_deletes, n_looks;
};

static void reply_nth(struct fake_request *r, const char *const *list, unsigned *n)
{
        unsigned i = (*n)++;

        while (i > 0 && (i >= 4 || !list[i]))
                i--;
        _cleanup_free_ char *status = mem_strndup(list[i], strcspn(list[i], "{["));
        fake_reply(r, status, list[i] + strlen(status));
}

static void play_removal(struct fake_request *r)
{
        struct removal_script *s = r->user;

        if (str_eq(r->method, "DELETE"))
                reply_nth(r, s->deletes, &s->n_deletes);
        else if (str_eq(r->method, "GET"))
                reply_nth(r, s->looks, &s->n_looks);
        else
                fake_reply(r, "200 OK", NULL);
}

#define IN_PROGRESS "409 Conflict{\"message\":\"removal of container x is already in progress\"}"
#define GONE        "404 Not Found{\"message\":\"No such container: x\"}"

static void test_container_remove(_unused_ void **state)
{
        static const struct {
                struct removal_script script;
                unsigned n_deletes, n_looks;
                const char *part; /* of the error; NULL = none */
        } t[] = {
                {{.deletes = {"204 No Content"}}, 1, 0, NULL},
                {{.deletes = {GONE}}, 1, 0, NULL},
                {{.deletes = {IN_PROGRESS},
                  .looks = {"200 OK{\"State\":{\"Status\":\"removing\"}}", "200 OK{\"State\":{\"Status\":\"removing\"}}", GONE}},
                 1,
                 3,
                 NULL},
                /* the other's removal failed: ours again */
                {{.deletes = {IN_PROGRESS, "204 No Content"}, .looks = {"200 OK{\"State\":{\"Status\":\"dead\"}}"}}, 2, 1, NULL},
                {{.deletes = {"409 Conflict{\"message\":\"container is paused\"}"}}, 1, 0, "is paused"},
                {{.deletes = {"500 Oh{\"message\":\"device or resource busy\"}"}}, 1, 0, "busy"},
        };

        for (size_t i = 0; i < ELEMENTSOF(t); i++) {
                struct removal_script s = t[i].script;
                _cleanup_fixture_ struct fixture x = fixture_new(play_removal, &s);
                _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
                struct err *err = NULL;
                engine_container_remove(x.engine, "x", engine_waiter_done, &w);
                int r = engine_waiter_wait(x.engine, &w, &err);
                if (t[i].part)
                        assert_fails(r, t[i].part);
                else
                        assert_ok(r);
                assert_int_equal(s.n_deletes, t[i].n_deletes);
                assert_int_equal(s.n_looks, t[i].n_looks);
        }
}

static void play_network(struct fake_request *r)
{
        if (strstr(r->path, "/disconnect")) {
                bool stale = strstr(r->body, "\"stale-one\"") != NULL;
                assert_true(stale == (strstr(r->body, "\"Force\":true") != NULL)); /* force only where no container is behind it */
                fake_reply(r, "200 OK", NULL);
        } else
                play_removal(r);
}

static void test_network_remove(_unused_ void **state)
{
        struct removal_script s = {
                .deletes = {"403 Forbidden{\"message\":\"error while removing network: network x id 1 has active endpoints\"}",
                            "403 Forbidden{\"message\":\"error while removing network: network x id 1 has active endpoints\"}",
                            "204 No Content"},
                .looks = {"200 OK{\"Containers\":{\"c1\":{\"Name\":\"one\"},\"ep-22\":{\"Name\":\"stale-one\"}}}",
                          "200 OK{\"Containers\":{}}"},
        };
        _cleanup_fixture_ struct fixture x = fixture_new(play_network, &s);
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        struct err *err = NULL;

        engine_network_remove(x.engine, "x", engine_waiter_done, &w);
        assert_ok(engine_waiter_wait(x.engine, &w, &err));
        assert_int_equal(fake_engine_count(x.fake, "/disconnect"), 2);
        assert_int_equal(s.n_deletes, 3);
}

static void play_other(struct fake_request *r)
{
        fake_reply(r, "200 OK", "{\"Id\":\"abcdef\",\"Name\":\"other\"}");
}

static void test_network_inspect(_unused_ void **state)
{
        _cleanup_fixture_ struct fixture x = fixture_new(play_other, NULL);
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0}, v = {0};
        struct err *err = NULL;

        engine_network_inspect(x.engine, "abc", engine_waiter_done, &w);
        assert_fails(engine_waiter_wait(x.engine, &w, &err), "no such network");
        engine_network_inspect(x.engine, "other", engine_waiter_done, &v);
        assert_ok(engine_waiter_wait(x.engine, &v, &err));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_container_remove),
                cmocka_unit_test(test_network_remove),
                cmocka_unit_test(test_network_inspect),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
