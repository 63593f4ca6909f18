/*
 * What the tests of the Engine client share: a loop, a client and a scripted Engine, and calls that wait for their end.
 */
#pragma once

#include <time.h>

#include "common/engine/engine.h"
#include "tests/unit/fake_engine.h"
#include "tests/unit/test.h"

struct fixture {
        sd_event *loop;
        struct engine *engine;
        struct fake_engine *fake;
};

static inline void fixture_deinit(struct fixture *x)
{
        engine_free(x->engine);
        fake_engine_free(x->fake);
        sd_event_unref(x->loop);
}
#define _cleanup_fixture_ _cleanup_(fixture_deinit)

static inline struct fixture fixture_new(fake_handler handler, void *user)
{
        struct fixture x = {0};
        struct err *err = NULL;

        assert_true(sd_event_new(&x.loop) >= 0);
        x.fake = fake_engine_new(handler, user);
        assert_ok(engine_new(&x.engine, x.loop, fake_engine_path(x.fake), &err));
        return x;
}

/* One GET of /x; the waiter is the caller's to deinit. */
static inline int get(struct fixture *x, uint64_t timeout_ms, struct engine_waiter *w, struct err **err)
{
        engine_call_start(x->engine, NULL,
                          &(struct engine_request){.method = "GET", .path = "/x", .timeout_ms = timeout_ms, .max_answer = 64U << 10},
                          engine_waiter_done, w);
        assert_false(w->finished); /* never from inside start */
        return engine_waiter_wait(x->engine, w, err);
}

#define assert_code(err, code)                                                                                                             \
        do {                                                                                                                               \
                if (err_code(err) != (code))                                                                                               \
                        print_error("code %d instead of %d: %s\n", (int)err_code(err), (int)(code), err_msg(err));                         \
                assert_int_equal(err_code(err), code);                                                                                     \
        } while (0)

/* A GET fails with a code and a text, within its 5 s. */
static inline void get_fails(struct fixture *x, enum err_code code, const char *part)
{
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        struct err *err = NULL;
        int r = get(x, 5000, &w, &err);

        assert_int_equal(r, -1);
        assert_code(err, code);
        assert_fails(r, part);
}

static inline void get_ok(struct fixture *x)
{
        _cleanup_(engine_waiter_deinit) struct engine_waiter w = {0};
        struct err *err = NULL;

        assert_ok(get(x, 5000, &w, &err));
}

static inline void run_ms(struct fixture *x, unsigned ms)
{
        uint64_t now, end;

        sd_event_now(x->loop, CLOCK_MONOTONIC, &now);
        for (end = now + ms * 1000; now < end;) {
                struct timespec t;
                assert_true(sd_event_run(x->loop, end - now) >= 0);
                clock_gettime(CLOCK_MONOTONIC, &t);
                now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
        }
}
