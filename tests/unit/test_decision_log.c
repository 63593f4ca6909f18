/* The decision log: what waits goes out in order, whole, and is not lost by an orderly end. */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/agents/decision_log.h"
#include "common/file.h"
#include "tests/unit/test.h"

struct world {
        char dir[32];
        struct decision_log *l;
};

static int setup(void **state)
{
        struct world *w = NEW(struct world);
        struct err *err = NULL;

        strcpy(w->dir, "/tmp/decision-log-XXXXXX");
        assert_non_null(mkdtemp(w->dir));
        assert_ok(decision_log_open(&w->l, w->dir, &err));
        *state = w;
        return 0;
}

static char *path_of(const struct world *w, const char *suffix)
{
        return mem_printf("%s/decisions.jsonl%s", w->dir, suffix);
}

static int teardown(void **state)
{
        static const char *const suffixes[] = {"", ".1", ".2"};
        struct world *w = *state;

        decision_log_free(w->l);
        for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) {
                _cleanup_free_ char *path = path_of(w, suffixes[i]);
                unlink(path);
        }
        assert_int_equal(rmdir(w->dir), 0);
        free(w);
        return 0;
}

static void holds(const struct world *w, const char *suffix, const char *want)
{
        _cleanup_free_ char *path = path_of(w, suffix), *text = NULL;
        struct err *err = NULL;
        size_t n = 0;

        assert_ok(file_read(&text, &n, path, 1 << 20, FILE_ANY, &err));
        assert_string_equal(text, want);
}

static void put(struct world *w, const char *line)
{
        struct err *err = NULL;

        assert_ok(decision_log_write(w->l, line, strlen(line), &err));
}

static void later(struct world *w, const char *line)
{
        struct err *err = NULL;

        assert_ok(decision_log_later(w->l, line, strlen(line), &err));
}

static void test_order(void **state)
{
        struct world *w = *state;
        struct err *err = NULL;

        put(w, "a\n");
        later(w, "b\n");
        later(w, "c\n");
        holds(w, "", "a\n");
        put(w, "d\n");
        holds(w, "", "a\nb\nc\nd\n");
        assert_ok(decision_log_flush(w->l, &err)); /* nothing waits */
        later(w, "e\n");
        assert_ok(decision_log_flush(w->l, &err));
        holds(w, "", "a\nb\nc\nd\ne\n");
        later(w, "f\n");
        w->l = decision_log_free(w->l);
        holds(w, "", "a\nb\nc\nd\ne\nf\n");
        assert_ok(decision_log_open(&w->l, w->dir, &err));
        put(w, "g\n");
        holds(w, "", "a\nb\nc\nd\ne\nf\ng\n");
}

static void test_rotation(void **state)
{
        struct world *w = *state;

        decision_log_bound(w->l, 6, 3);
        put(w, "abc\n");
        later(w, "d\n");
        put(w, "e\n"); /* with what waits, too much for the file: all of it goes to the next one */
        holds(w, ".1", "abc\n");
        holds(w, "", "d\ne\n");
        later(w, "fghij\n");
        put(w, "k\n");
        holds(w, ".2", "abc\n");
        holds(w, ".1", "d\ne\n");
        holds(w, "", "fghij\nk\n");
}

/* A file that cannot be moved away cannot be written on either. */
static void test_failure(void **state)
{
        struct world *w = *state;
        _cleanup_free_ char *in_the_way = path_of(w, ".1");
        char line[1024];
        struct err *err = NULL;

        decision_log_bound(w->l, 2, 2);
        put(w, "a\n");
        later(w, "b\n");
        assert_int_equal(mkdir(in_the_way, 0700), 0);
        assert_int_equal(decision_log_write(w->l, "c\n", 2, &err), -1);
        assert_non_null(strstr(err_msg(err), "cannot move"));
        err = err_free(err);
        assert_int_equal(decision_log_flush(w->l, &err), -1);
        err = err_free(err);
        holds(w, "", "a\n");
        assert_int_equal(rmdir(in_the_way), 0);
        /* What was refused is not in it, what waited is. */
        put(w, "d\n");
        holds(w, ".1", "a\n");
        holds(w, "", "b\nd\n");
        /* It does not wait without end. */
        assert_int_equal(unlink(in_the_way), 0);
        assert_int_equal(mkdir(in_the_way, 0700), 0);
        memset(line, 'x', sizeof(line));
        line[sizeof(line) - 1] = '\n';
        for (unsigned i = 0; i < 64; i++)
                assert_ok(decision_log_later(w->l, line, sizeof(line), &err));
        assert_int_equal(decision_log_later(w->l, line, sizeof(line), &err), -1);
        err = err_free(err);
        assert_int_equal(rmdir(in_the_way), 0);
        assert_ok(decision_log_flush(w->l, &err));
        line[sizeof(line) - 1] = '\0';
        _cleanup_free_ char *whole = mem_printf("%s\n", line);
        holds(w, "", whole);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_order, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
                cmocka_unit_test_setup_teardown(test_failure, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
