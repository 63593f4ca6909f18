/*
 * Waiting for events with open eyes: for a moment the loop looks again and again before it sleeps. To sleep and to be woken costs tens of
 * microseconds on a virtual machine, caches that went cold included: more than a whole call of a tool costs us. How long the moment is, is
 * learnt from how long the waits are, as KVM's halt polling does it: after a few long ones in a row the loop sleeps at once.
 * Between two looks it yields the processor to whoever waits for that one; measured with both processors of a host wanted by others, calls
 * took as long as without looking. What looking takes counts against a CPU quota all the same. Used by the broker's loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/macro.h"

struct busy_poll {
        uint64_t max_us;    /* 0: never */
        uint64_t window_us; /* now: 0 .. max_us */
};

/* Where this thread may run on a single processor only it stays off: there, looking keeps away whom we wait for. */
struct busy_poll busy_poll_new(unsigned max_us);
/* A wait took so long, looking and sleeping. Waits that max_us would have covered widen the window, longer ones narrow it. */
void busy_poll_learn(struct busy_poll *p, uint64_t waited_us);
/* Dispatches one event, as sd_event_run() without a timeout does, with that one's results. */
_must_check_ int busy_poll_run(struct busy_poll *p, sd_event *loop);
