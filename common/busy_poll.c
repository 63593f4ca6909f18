#include "common/busy_poll.h"

#include <sched.h>
#include <time.h>

#define FIRST_WINDOW_US 10U /* what a wait costs anyway */

struct busy_poll busy_poll_new(unsigned max_us)
{
        cpu_set_t set;

        return (struct busy_poll){.max_us = sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1 ? max_us : 0};
}

void busy_poll_learn(struct busy_poll *p, uint64_t waited_us)
{
        if (waited_us > p->max_us)
                p->window_us = p->window_us > FIRST_WINDOW_US ? p->window_us / 2 : 0;
        else if (waited_us > p->window_us)
                p->window_us = MIN(MAX(2 * p->window_us, (uint64_t)FIRST_WINDOW_US), p->max_us);
}

static uint64_t now_us(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* As sd_event_run(), but for what happens with an event that is there. */
static int look(sd_event *loop, uint64_t timeout_us)
{
        int r = sd_event_prepare(loop);

        return r == 0 ? sd_event_wait(loop, timeout_us) : r;
}

int busy_poll_run(struct busy_poll *p, sd_event *loop)
{
        uint64_t begun = now_us(), waited = 0;
        int r = 0;

        while (r == 0 && waited < p->window_us) {
                r = look(loop, 0);
                if (r == 0)
                        sched_yield();
                waited = now_us() - begun;
        }
        if (r == 0) {
                r = look(loop, UINT64_MAX);
                waited = now_us() - begun;
        }
        if (r <= 0)
                return r;
        busy_poll_learn(p, waited);
        r = sd_event_dispatch(loop);
        return r < 0 ? r : 1;
}
