#include "tests/unit/test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/spawn.h"

static int run(struct spawn_result *r, const char *script, const char *input, size_t max, uint64_t timeout, struct err **err)
{
        const char *const argv[] = {"/bin/sh", "-c", script, NULL};
        struct spawn_options o = {
                .argv = argv, .input = input, .input_len = input ? strlen(input) : 0, .max_output = max, .timeout_ms = timeout};

        return spawn_run(r, &o, err);
}

static void test_input_output(_unused_ void **state)
{
        _cleanup_(spawn_result_deinit) struct spawn_result r = {0};
        struct err *err = NULL;

        assert_ok(run(&r, "cat; echo oops >&2; exit 3", "hello", 0, 0, &err));
        assert_string_equal(r.out.data, "hello");
        assert_int_equal(WEXITSTATUS(r.status), 3);
        assert_fails(spawn_result_check(&r, "tool", &err), "tool failed (exit 3): oops");
}

static void test_bounds(_unused_ void **state)
{
        struct spawn_result r = {0};
        struct err *err = NULL;

        assert_fails(run(&r, "while :; do echo yyyyyyyyyyyyyyy; done", NULL, 10000, 0, &err), "more than the 10000 bytes");
        assert_fails(run(&r, "sleep 30", NULL, 0, 50, &err), "did not finish in time");
        assert_fails(run(&r, "sleep 30 & exit 0", NULL, 0, 50, &err), "did not finish in time");
        /* A megabyte that nobody reads is no reason to hang or to die. */
        _cleanup_free_ char *big = NEW_N(char, (1 << 20) + 1);
        memset(big, 'x', 1 << 20);
        big[1 << 20] = '\0';
        assert_ok(run(&r, "exit 0", big, 0, 5000, &err));
        spawn_result_deinit(&r);
        const char *const argv[] = {"/nonexistent/program", NULL};
        assert_fails(spawn_run(&r, &(struct spawn_options){.argv = argv}, &err), "cannot run /nonexistent/program");
}

static void test_clean_child(_unused_ void **state)
{
        _cleanup_(spawn_result_deinit) struct spawn_result r = {0};
        struct err *err = NULL;
        int pipe_fds[2];

        assert_int_equal(pipe(pipe_fds), 0);
        setenv("BULKHEAD_LEAK", "1", 1);
        assert_ok(run(&r, "echo ${BULKHEAD_LEAK-none}; ls /proc/self/fd | wc -l", NULL, 0, 0, &err));
        assert_string_equal(r.out.data, "none\n4\n"); /* 0 1 2 and ls's own */
        close(pipe_fds[0]);
        close(pipe_fds[1]);
}

static void test_pass_fds_and_caps(_unused_ void **state)
{
        static const char *const argv[] = {"/bin/sh", "-c", "grep -E 'Cap(Eff|Prm|Amb)|NoNewPrivs' /proc/self/status; echo via3 >&3", NULL};
        _cleanup_(spawn_result_deinit) struct spawn_result r = {0};
        struct err *err = NULL;
        int fds[2];
        char got[8] = {0};

        assert_int_equal(pipe(fds), 0);
        assert_ok(spawn_run(&r, &(struct spawn_options){.argv = argv, .pass_fds = &fds[1], .n_pass_fds = 1, .drop_caps = true}, &err));
        assert_int_equal(read(fds[0], got, sizeof(got) - 1), 5);
        assert_string_equal(got, "via3\n");
        assert_non_null(strstr(r.out.data, "CapEff:\t0000000000000000"));
        assert_non_null(strstr(r.out.data, "CapPrm:\t0000000000000000"));
        assert_non_null(strstr(r.out.data, "NoNewPrivs:\t1"));
        close(fds[0]);
        close(fds[1]);
}

struct seen {
        int calls, status;
        char *out, *error;
        sd_event *loop;
        int left;
};

static void on_done(struct spawn_result *result, struct err *err, void *user)
{
        struct seen *s = user;

        s->calls++;
        s->status = result->status;
        mem_replace(&s->out, mem_strdup(result->out.data ? result->out.data : ""));
        mem_replace(&s->error, err ? mem_strdup(err_msg(err)) : NULL);
        if (--s->left == 0)
                sd_event_exit(s->loop, 0);
}

static void test_in_a_loop(_unused_ void **state)
{
        static const char *const cat[] = {"/bin/cat", NULL}, *const hang[] = {"/bin/sleep", "30", NULL},
                                 *const fork_bomb[] = {"/bin/sh", "-c", "sleep 30 & echo x", NULL};
        struct seen a = {0}, b = {0}, c = {0};
        struct spawn *cancelled = NULL;
        struct err *err = NULL;
        sd_event *loop = NULL;
        sigset_t chld;
        int left = 3;

        sigemptyset(&chld);
        sigaddset(&chld, SIGCHLD);
        sigprocmask(SIG_BLOCK, &chld, NULL);
        signal(SIGPIPE, SIG_IGN);
        assert_true(sd_event_new(&loop) >= 0);
        a.loop = b.loop = c.loop = loop;
        a.left = b.left = c.left = 1000;
        _cleanup_free_ char *big = NEW_N(char, 300001);
        memset(big, 'z', 300000);
        big[300000] = '\0';
        assert_ok(spawn_start(NULL, loop, &(struct spawn_options){.argv = cat, .input = big, .input_len = 300000}, on_done, &a, &err));
        assert_ok(spawn_start(NULL, loop, &(struct spawn_options){.argv = hang, .timeout_ms = 50}, on_done, &b, &err));
        assert_ok(spawn_start(NULL, loop, &(struct spawn_options){.argv = fork_bomb}, on_done, &c, &err));
        assert_ok(spawn_start(&cancelled, loop, &(struct spawn_options){.argv = hang}, on_done, &c, &err));
        spawn_cancel(cancelled);
        while (a.calls + b.calls + c.calls < left)
                assert_true(sd_event_run(loop, 10 * 1000000) > 0);
        assert_int_equal(strlen(a.out), 300000);
        assert_null(a.error);
        assert_non_null(strstr(b.error, "did not finish in time"));
        assert_string_equal(c.out, "x\n");
        struct seen *all[] = {&a, &b, &c};
        for (size_t i = 0; i < 3; i++) {
                assert_int_equal(all[i]->calls, 1);
                free(all[i]->out);
                free(all[i]->error);
        }
        sd_event_unref(loop);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_input_output),      cmocka_unit_test(test_bounds),    cmocka_unit_test(test_clean_child),
                cmocka_unit_test(test_pass_fds_and_caps), cmocka_unit_test(test_in_a_loop),
        };
        return cmocka_run_group_tests_name("spawn", tests, NULL, NULL);
}
