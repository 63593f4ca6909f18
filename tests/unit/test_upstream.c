#include "tests/unit/test_upstream.h"

#include <time.h>

uint64_t now_us(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void free_session(struct rig *r)
{
        r->u = upstream_free(r->u);
}

static char *text_of(const struct mcp_message *m)
{
        return mem_strndup(m->text, m->n);
}

static void on_ready(_unused_ struct upstream *u, void *user)
{
        struct rig *r = user;

        assert_false(r->ready || r->ended);
        r->ready = true;
        if (r->free_in_ready)
                free_session(r);
}

static void on_ended(struct upstream *u, const struct err *why, void *user)
{
        struct rig *r = user;

        assert_false(r->ended);
        assert_int_equal(upstream_calls(u), 0);
        r->ended = true;
        r->why = err_dup(why);
        if (r->free_in_ended)
                free_session(r);
}

static void on_notification(_unused_ struct upstream *u, const struct mcp_message *m, void *user)
{
        struct rig *r = user;

        assert_false(r->ended);
        r->n_notes++;
        mem_replace(&r->note, text_of(m));
        if (r->free_in_note)
                free_session(r);
}

static void on_request(struct upstream *u, struct upstream_call *call, const struct mcp_message *m, void *user)
{
        struct rig *r = user;

        r->n_requests++;
        r->request_on = call;
        mem_replace(&r->request, text_of(m));
        mem_replace(&r->request_id, mem_strndup(m->id.at, m->id.n));
        if (r->answer)
                upstream_answer(u, m->id, mcp_slice_of("{\"a\":1}"), (struct mcp_slice){0});
        if (r->free_in_request)
                free_session(r);
}

static void on_withdrawn(_unused_ struct upstream *u, struct mcp_slice id, void *user)
{
        struct rig *r = user;

        r->n_withdrawn++;
        mem_replace(&r->withdrawn, mem_strndup(id.at, id.n));
        if (r->free_in_withdrawn)
                free_session(r);
}

const struct upstream_events rig_events = {on_ready, on_ended, on_notification, on_request, on_withdrawn};

struct rig *rig_new(void)
{
        struct rig *r = NEW(struct rig);

        assert_true(sd_event_new(&r->loop) >= 0);
        r->config = (struct upstream_config){
                .name = "web",
                .limits = {.max_message = 1U << 20,
                           .max_queued = 1U << 20,
                           .max_calls = 100,
                           .max_noise = 50,
                           .handshake_ms = 5000,
                           .probe_ms = 2000},
                .fd = -1,
        };
        return r;
}

struct rig *rig_free(struct rig *r)
{
        upstream_free(r->u);
        upstream_pool_free(r->pool);
        sd_event_unref(r->loop);
        err_free(r->why);
        free(r->note);
        free(r->request);
        free(r->request_id);
        free(r->withdrawn);
        free(r);
        return NULL;
}

static int on_too_late(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        *(bool *)user = true;
        return 0;
}

void rig_wait(struct rig *r, const bool *flag)
{
        sd_event_source *timer = NULL;
        bool late = false;

        assert_true(sd_event_add_time_relative(r->loop, &timer, CLOCK_MONOTONIC, 60000000, 1, on_too_late, &late) >= 0);
        while (!*flag && !late)
                assert_true(sd_event_run(r->loop, UINT64_MAX) >= 0);
        sd_event_source_disable_unref(timer);
        if (!*flag)
                print_error("waited in vain; session: %s\n", r->why ? err_msg(r->why) : "no error");
        assert_true(*flag);
}

void rig_run(struct rig *r, uint64_t ms)
{
        sd_event_source *timer = NULL;
        bool over = false;

        assert_true(sd_event_add_time_relative(r->loop, &timer, CLOCK_MONOTONIC, ms * 1000, 1, on_too_late, &over) >= 0);
        while (!over)
                assert_true(sd_event_run(r->loop, UINT64_MAX) >= 0);
        sd_event_source_disable_unref(timer);
}

static void on_call_note(struct upstream_call *call, const struct mcp_message *m, void *user)
{
        struct asked *a = user;

        assert_ptr_equal(upstream_call_user(call), a);
        a->n_notes++;
        mem_replace(&a->note, text_of(m));
        if (a->cancel_in_note) {
                rig_cancel(a, "enough");
        }
        if (a->free_in_note)
                free_session(a->rig);
}

static void on_done(struct upstream_call *call, const struct mcp_message *answer, const struct err *why, void *user)
{
        struct asked *a = user;

        assert_ptr_equal(upstream_call_user(call), a);
        assert_true((answer == NULL) != (why == NULL));
        a->over = true;
        a->n_done++;
        a->why = why ? err_dup(why) : NULL;
        if (answer && answer->kind == MCP_RESULT)
                a->result = mem_strndup(answer->result.at, answer->result.n);
        if (answer && answer->kind == MCP_ERROR)
                a->error_code = answer->error_code;
        if (a->free_in_done)
                free_session(a->rig);
}

void rig_ask_more(struct rig *r, struct asked *a, const struct upstream_request *request)
{
        struct upstream_request q = *request;

        q.notification = on_call_note;
        q.done = on_done;
        q.user = a;
        a->rig = r;
        a->call = upstream_request(r->u, &q);
        assert_non_null(a->call);
        assert_false(a->over);
}

void rig_ask(struct rig *r, struct asked *a, const char *params)
{
        struct upstream_request q = {.method = MCP_M_TOOLS_CALL, .params = mcp_slice_of(params), .timeout_ms = 60000, .cap_ms = 60000};

        rig_ask_more(r, a, &q);
}

void rig_cancel(struct asked *a, const char *reason)
{
        upstream_call_cancel(TAKE_PTR(a->call), reason);
}

void asked_deinit(struct asked *a)
{
        if (a->call && !a->over && a->rig->u)
                rig_cancel(a, NULL);
        free(a->result);
        free(a->note);
        err_free(a->why);
}

void rig_wait_count(struct rig *r, const unsigned *count, unsigned at_least)
{
        for (int i = 0; *count < at_least && i < 2000; i++)
                rig_run(r, 5);
        assert_true(*count >= at_least);
}

void assert_says(const struct err *err, const char *part)
{
        assert_non_null(err);
        if (!strstr(err_msg(err), part))
                print_error("expected \"%s\" in: %s\n", part, err_msg(err));
        assert_non_null(strstr(err_msg(err), part));
}

void assert_ends(struct rig *r, const char *part)
{
        rig_wait(r, &r->ended);
        assert_says(r->why, part);
        assert_says(r->why, "server web: ");
}
