/* The window in which the loop looks before it sleeps, and that nothing is lost by it. */
#include "tests/unit/test.h"

#include <sched.h>
#include <unistd.h>

#include "common/busy_poll.h"

static void test_learns(_unused_ void **state)
{
        struct busy_poll p = {.max_us = 100};

        /* Short waits widen it, up to the bound. */
        busy_poll_learn(&p, 30);
        assert_int_equal(p.window_us, 10);
        busy_poll_learn(&p, 30);
        assert_int_equal(p.window_us, 20);
        busy_poll_learn(&p, 30);
        assert_int_equal(p.window_us, 40);
        busy_poll_learn(&p, 30); /* it was worth while */
        assert_int_equal(p.window_us, 40);
        busy_poll_learn(&p, 100);
        busy_poll_learn(&p, 100);
        assert_int_equal(p.window_us, 100);
        /* Long ones narrow it, down to nothing. */
        busy_poll_learn(&p, 101);
        assert_int_equal(p.window_us, 50);
        for (unsigned i = 0; i < 3; i++)
                busy_poll_learn(&p, UINT64_MAX);
        assert_int_equal(p.window_us, 6);
        busy_poll_learn(&p, 5000);
        assert_int_equal(p.window_us, 0);
        /* A fast client of a slow server costs little. */
        for (unsigned i = 0; i < 10; i++) {
                busy_poll_learn(&p, 20);
                assert_int_equal(p.window_us, 10);
                busy_poll_learn(&p, 5000);
                assert_int_equal(p.window_us, 0);
        }
}

static void test_off(_unused_ void **state)
{
        struct busy_poll p = {.max_us = 0};
        cpu_set_t all, one;

        busy_poll_learn(&p, 0);
        busy_poll_learn(&p, 1);
        assert_int_equal(p.window_us, 0);
        assert_int_equal(busy_poll_new(0).max_us, 0);
        assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
        assert_int_equal(busy_poll_new(70).max_us, CPU_COUNT(&all) > 1 ? 70 : 0);
        /* With one processor there is nobody to wait for. */
        CPU_ZERO(&one);
        for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
                if (CPU_ISSET(i, &all))
                        CPU_SET(i, &one);
        assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
        struct busy_poll alone = busy_poll_new(70);
        assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
        assert_int_equal(alone.max_us, 0);
}

static int on_byte(_unused_ sd_event_source *s, int fd, _unused_ uint32_t events, void *user)
{
        unsigned *seen = user;
        char c;

        assert_int_equal(read(fd, &c, 1), 1);
        ++*seen;
        return 0;
}

static int on_time(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        int *pipe = user;

        assert_int_equal(write(pipe[1], "x", 1), 1);
        return 0;
}

static int on_late(sd_event_source *s, _unused_ uint64_t usec, _unused_ void *user)
{
        return sd_event_exit(sd_event_source_get_event(s), 7);
}

/* Bytes, timers and the end come through, whether it looks or sleeps. */
static void test_dispatches(_unused_ void **state)
{
        const uint64_t windows[] = {0, 100, 1000};

        for (size_t i = 0; i < ELEMENTSOF(windows); i++) {
                struct busy_poll p = {.max_us = windows[i], .window_us = windows[i]};
                sd_event *loop = NULL;
                int fds[2], r = 0;
                unsigned seen = 0, turns = 0;

                assert_int_equal(pipe(fds), 0);
                assert_true(sd_event_new(&loop) >= 0);
                assert_true(sd_event_add_io(loop, NULL, fds[0], EPOLLIN, on_byte, &seen) >= 0);
                assert_true(sd_event_add_time_relative(loop, NULL, CLOCK_MONOTONIC, 3000, 1, on_time, fds) >= 0);
                assert_true(sd_event_add_time_relative(loop, NULL, CLOCK_MONOTONIC, 500000, 1, on_late, NULL) >= 0);
                assert_int_equal(write(fds[1], "yz", 2), 2);
                while (sd_event_get_state(loop) != SD_EVENT_FINISHED) {
                        r = busy_poll_run(&p, loop);
                        assert_int_equal(r, 1);
                        turns++;
                }
                assert_int_equal(seen, 3);
                assert_true(turns < 10); /* a turn is an event, and no look */
                int code = 0;
                assert_true(sd_event_get_exit_code(loop, &code) >= 0);
                assert_int_equal(code, 7);
                /* The last wait was long. */
                assert_true(windows[i] == 0 ? p.window_us == 0 : p.window_us < windows[i]);
                sd_event_unref(loop);
                close(fds[0]);
                close(fds[1]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_learns),
                cmocka_unit_test(test_off),
                cmocka_unit_test(test_dispatches),
        };
        return cmocka_run_group_tests_name("busy_poll", tests, NULL, NULL);
}
