/* Denials that come again: each is in a line of its own or in a count, and there are never many lines. */
#include "broker/agents/denials.h"
#include "common/mem.h"
#include "tests/unit/test.h"

struct written {
        unsigned lines;
        uint64_t times, last;
        char *kinds; /* "agent run kind times, " */
        bool fails;
};

static int on_write(const struct denials_count *c, void *user)
{
        struct written *w = user;

        if (w->fails)
                return -1;
        w->lines++;
        w->times += c->times;
        w->last = c->number;
        mem_replace(&w->kinds, mem_printf("%s%s/%s%s*%u since %u, ", w->kinds ? w->kinds : "", c->agent, c->run, c->kind,
                                          (unsigned)c->times, (unsigned)c->since_ms));
        return 0;
}

static void expect(struct denials *d, const char *want)
{
        struct written w = {0};

        denials_flush(d, on_write, &w);
        assert_string_equal(w.kinds ? w.kinds : "", want);
        free(w.kinds);
}

static void test_same(_unused_ void **state)
{
        struct denials *d = denials_new();

        assert_false(denials_again(d, "a", "r", "-x", "-all", 1, 10));
        expect(d, "");
        assert_true(denials_again(d, "a", "r", "-x", "-all", 2, 20));
        assert_true(denials_again(d, "a", "r", "-x", "-all", 3, 30));
        assert_false(denials_again(d, "a", "s", "-x", "-all", 4, 40)); /* another run, another thing, another agent */
        assert_false(denials_again(d, "a", "r", "-y", "-all", 5, 50));
        assert_false(denials_again(d, "b", "r", "-x", "-all", 6, 60));
        expect(d, "a/r-x*2 since 20, ");
        assert_true(denials_again(d, "b", "r", "-x", "-all", 7, 70));
        expect(d, "b/r-x*1 since 70, ");
        /* After a period without it, it is new. */
        expect(d, "");
        assert_false(denials_pending(d));
        assert_false(denials_again(d, "b", "r", "-x", "-all", 8, 80));
        denials_free(d);
}

/* Another name each time: a few lines at once, then one count for all of them, and none is lost. */
static void test_many_kinds(_unused_ void **state)
{
        struct denials *d = denials_new();
        struct written w = {0};
        unsigned first = 0;

        for (unsigned period = 0; period < 3; period++)
                for (unsigned i = 0; i < 5000; i++) {
                        _cleanup_free_ char *kind = mem_printf("-%u-%u", period, i), *together = mem_printf("-all%u", i % 7);

                        first += !denials_again(d, "a", kind, kind, together, i, 1);
                        if (i == 4999)
                                denials_flush(d, on_write, &w);
                }
        assert_int_equal(first + w.times, 15000);
        assert_true(first >= DENIALS_KINDS && first <= 3 * DENIALS_KINDS);
        assert_true(w.lines <= 3 * 7);
        free(w.kinds);
        denials_free(d);
}

/* What cannot be written now is written later. */
static void test_write_fails(_unused_ void **state)
{
        struct denials *d = denials_new();
        struct written w = {.fails = true};

        for (unsigned i = 0; i < 11; i++)
                (void)denials_again(d, "a", "r", "-x", "-all", i, i);
        denials_flush(d, on_write, &w);
        denials_flush(d, on_write, &w);
        assert_true(denials_pending(d));
        assert_true(denials_again(d, "a", "r", "-x", "-all", 11, 11));
        expect(d, "a/r-x*11 since 1, ");
        denials_free(d);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_same), cmocka_unit_test(test_many_kinds),
                                           cmocka_unit_test(test_write_fails)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
