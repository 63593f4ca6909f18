#include "broker/http/internal.h"

/* How much later than asked for a deadline may be noticed: the timer need not be set again for each request. */
#define SLACK_US UINT64_C(50000)
/* How long nobody is accepted when there is no descriptor for one. */
#define REST_US UINT64_C(100000)

static uint64_t now_us(const struct front *f)
{
        uint64_t t = 0;

        (void)sd_event_now(f->loop, CLOCK_MONOTONIC, &t);
        return t;
}

static void set_timer(struct front *f, uint64_t at_us)
{
        if (f->timer_us <= at_us)
                return;
        f->timer_us = at_us;
        (void)sd_event_source_set_time(f->timer, at_us);
        (void)sd_event_source_set_enabled(f->timer, SD_EVENT_ONESHOT);
}

void deadline_end(struct deadline *d)
{
        struct deadlines *list = d->list;

        if (!list)
                return;
        if (d->prev)
                d->prev->next = d->next;
        else
                list->first = d->next;
        if (d->next)
                d->next->prev = d->prev;
        else
                list->last = d->prev;
        d->list = NULL;
}

void deadline_begin(struct deadlines *list, struct deadline *d)
{
        deadline_end(d);
        *d = (struct deadline){.prev = list->last, .list = list, .begun_us = now_us(list->front)};
        if (list->last)
                list->last->next = d;
        else
                list->first = d;
        list->last = d;
        /* The timer stays where it is when it comes too early; only the first of a list can make it come too late. */
        if (list->first == d)
                set_timer(list->front, d->begun_us + list->period_us);
}

static void run_list(struct deadlines *list, uint64_t now)
{
        while (list->first && list->first->begun_us + list->period_us <= now) {
                struct deadline *d = list->first;

                deadline_end(d);
                list->over(list->front, d);
        }
        if (list->first)
                set_timer(list->front, list->first->begun_us + list->period_us);
}

static int on_timer(_unused_ sd_event_source *s, _unused_ uint64_t at, void *user)
{
        struct front *f = user;
        uint64_t now = now_us(f);

        f->timer_us = UINT64_MAX;
        run_list(&f->receiving, now);
        run_list(&f->sending, now);
        run_list(&f->idle, now);
        run_list(&f->streaming, now);
        run_list(&f->draining, now);
        run_list(&f->resting, now);
        return 0;
}

int deadlines_start(struct front *f, struct err **err)
{
        const struct front_limits *l = &f->limits;

        f->timer_us = UINT64_MAX;
        f->receiving = (struct deadlines){.front = f, .period_us = l->header_timeout_ms * 1000, .over = conn_receive_over};
        f->sending = (struct deadlines){.front = f, .period_us = l->header_timeout_ms * 1000, .over = conn_send_over};
        f->idle = (struct deadlines){.front = f, .period_us = l->idle_timeout_ms * 1000, .over = conn_idle_over};
        f->streaming = (struct deadlines){.front = f, .period_us = l->heartbeat_ms * 1000, .over = stream_silence_over};
        f->draining = (struct deadlines){.front = f, .period_us = MIN(l->header_timeout_ms, 2000U) * 1000, .over = conn_drain_over};
        f->resting = (struct deadlines){.front = f, .period_us = REST_US, .over = front_rested};
        int r = sd_event_add_time(f->loop, &f->timer, CLOCK_MONOTONIC, 0, SLACK_US, on_timer, f);
        if (r >= 0)
                r = sd_event_source_set_enabled(f->timer, SD_EVENT_OFF);
        return r < 0 ? err_sys(err, r, "cannot set up a timer") : 0;
}

void deadlines_stop(struct front *f)
{
        f->timer = sd_event_source_disable_unref(f->timer);
}
