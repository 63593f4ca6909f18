/*
 * What the broker is told of each server, and how much it may ask for, as pure functions.
 */
#include "tests/unit/test.h"

#include "common/file.h"
#include "controller/catalogue.h"
#include "controller/controller.h"

#define SPEC_A    "v1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define MANIFEST  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CONTAINER "c000000000000000000000000000000000000000000000000000000000000001"

/* -- what is told, as a pure function ------------------------------------------------------------------------------------------ */

struct one {
        struct registry_entry entry;
        struct record record;
        struct desired_server server;
        struct plan_server plan;
        struct catalogue_facts facts;
};

static void one_init(struct one *w, enum transport transport, enum lifecycle lifecycle)
{
        *w = (struct one){.entry = {.name = (char *)"s", .enabled = true, .transport = transport, .lifecycle = lifecycle},
                          .record = {.id = (char *)"f-1"},
                          .plan = {.state = SERVER_RUNNING,
                                   .container = (char *)"s-aaaaaaaa",
                                   .id = (char *)CONTAINER,
                                   .address = (char *)"10.213.0.2",
                                   .instance = (char *)"0123456789ab"}};
        if (transport != TRANSPORT_STDIO) {
                w->entry.port = 3000;
                w->entry.path = (char *)"/mcp";
        }
        w->entry.idle_timeout_ms = 600000;
        w->server = (struct desired_server){.name = "s", .entry = &w->entry, .record = &w->record, .may_run = true, .may_stay = true};
        w->server.names = (struct instance_names){.container = (char *)"s-aaaaaaaa", .spec_hash = SPEC_A};
        w->facts = (struct catalogue_facts){.plan = &w->plan, .state = SERVER_RUNNING, .may_start = true};
}

/* "up 0123456789ab 10.213.0.2:3000/mcp", "down: why", "-" when it is not told. Owned. What is told can be read by the other side. */
static char *say(const struct one *w)
{
        _cleanup_(channel_message_deinit) struct channel_message back = {0};
        struct channel_message m = {.kind = CHANNEL_SERVER};
        static const char *const words[] = {"up", "asleep", "coming", "down"};
        _cleanup_buf_ struct buf text = {0};
        struct err *err = NULL;

        if (!catalogue_entry(&m.entry, &text, &w->server, &w->facts))
                return mem_strdup("-");
        _cleanup_free_ char *packet = channel_format(&m);
        assert_ok(channel_parse(&back, packet, strlen(packet), &err));
        const struct channel_entry *e = &back.entry;
        _cleanup_free_ char *place = e->address ? mem_printf(" %s:%u%s", e->address, e->port, e->path) : mem_strdup("");
        return mem_printf("%s%s%s%s%s%s", words[e->readiness], e->instance ? " " : "", e->instance ? e->instance : "", place,
                          e->why ? ": " : "", e->why ? e->why : "");
}

static void expect(const struct one *w, const char *want)
{
        _cleanup_free_ char *got = say(w);

        assert_string_equal(got, want);
}

static void test_tells_http(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STREAMABLE_HTTP, LIFECYCLE_ALWAYS_ON);
        expect(&w, "up 0123456789ab 10.213.0.2:3000/mcp");
        w.plan.address = NULL;
        expect(&w, "coming");
        w.plan.address = (char *)"10.213.0.2";
        w.plan.container = (char *)"s-bbbbbbbb"; /* of the spec before */
        expect(&w, "coming");
        w.facts.plan = NULL;
        expect(&w, "coming");
}

static void test_tells_stdio(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STDIO, LIFECYCLE_ALWAYS_ON);
        expect(&w, "coming"); /* it runs, and is started anew with a session */
        w.facts.session = "fedcba987654";
        expect(&w, "up fedcba987654");
        w.facts.session = NULL;
        w.facts.may_start = false;
        expect(&w, "down: it runs without a session, and nothing may be started now");
        w.facts.may_start = true;
        w.server.may_run = false; /* the approvals' tip is refused */
        expect(&w, "down: it runs without a session, and nothing may be started now");
        w.facts.session = "fedcba987654";
        expect(&w, "up fedcba987654");
}

static void test_tells_states(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STREAMABLE_HTTP, LIFECYCLE_ALWAYS_ON);
        w.facts.state = SERVER_STARTING;
        expect(&w, "coming");
        w.facts.state = SERVER_WAITING;
        w.facts.retry_in_ms = 500;
        expect(&w, "coming");
        w.facts.retry_in_ms = 60000;
        w.facts.why = "start s: \x1b[2J broke";
        expect(&w, "down: start s: \\x1b[2J broke");
        w.facts.why = NULL;
        w.facts.state = SERVER_BLOCKED;
        expect(&w, "down: it is not to be had now");
        /* Not approved any more, or while nothing may start: nobody is to know of it. */
        w.server.may_run = false;
        expect(&w, "-");
        w.server.may_stay = false;
        w.facts.state = SERVER_RUNNING;
        expect(&w, "-");
}

static void test_tells_on_demand(_unused_ void **state)
{
        struct one w;

        one_init(&w, TRANSPORT_STDIO, LIFECYCLE_ON_DEMAND);
        w.facts.plan = NULL;
        expect(&w, "asleep");
        w.facts.plan = &w.plan;
        w.facts.state = SERVER_STOPPED;
        expect(&w, "asleep");
        w.facts.called = true;
        expect(&w, "coming");
        w.facts.state = SERVER_QUARANTINED;
        w.facts.why = "manifest-mismatch";
        expect(&w, "down: manifest-mismatch");
}

static void test_tells_long_things(_unused_ void **state)
{
        struct one w;
        _cleanup_buf_ struct buf long_why = {0};
        _cleanup_strv_ char **tools = NULL;

        one_init(&w, TRANSPORT_STREAMABLE_HTTP, LIFECYCLE_ALWAYS_ON);
        w.facts.state = SERVER_ERROR;
        buf_adds(&long_why, "x");
        for (unsigned i = 0; i < 1000; i++)
                buf_adds(&long_why, "\xc3\xa9");
        w.facts.why = long_why.data;
        _cleanup_free_ char *got = say(&w); /* cut between characters: it was parsed */
        assert_int_equal(strlen(got), strlen("down: ") + 999);

        /* A list that the link cannot carry withholds the server, not the list. */
        w.facts.state = SERVER_RUNNING;
        for (unsigned i = 0; i < 700; i++) {
                _cleanup_free_ char *tool = mem_printf("%0100u", i);
                tools = strv_append(tools, tool);
        }
        w.record.tools = tools;
        expect(&w, "down: its approval names more tools than the gateway takes (64 KiB of names)");
        for (size_t i = 300; i < 700; i++)
                free(TAKE_PTR(tools[i]));
        expect(&w, "up 0123456789ab 10.213.0.2:3000/mcp");
}

/* -- admission ------------------------------------------------------------------------------------------------------------------ */

static void test_bucket(_unused_ void **state)
{
        struct bucket b = {0};
        uint64_t now = 1000000;

        for (unsigned i = 0; i < demand_starts.burst; i++)
                assert_true(bucket_take(&b, &demand_starts, now));
        assert_false(bucket_take(&b, &demand_starts, now));
        assert_false(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms - 1));
        assert_true(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms));
        assert_false(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms));
        /* Halves of the time add up, and no more than the burst is saved. */
        assert_false(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms * 3 / 2));
        assert_true(bucket_take(&b, &demand_starts, now + demand_starts.refill_ms * 2));
        now += UINT64_C(1) << 40;
        for (unsigned i = 0; i < demand_starts.burst; i++)
                assert_true(bucket_take(&b, &demand_starts, now));
        assert_false(bucket_take(&b, &demand_starts, now));
}

static void test_admission(_unused_ void **state)
{
        struct admission a = {.instances = 3, .max_instances = 4, .memory = 700 << 20, .max_memory = 1000 << 20};
        _cleanup_free_ char *fits = admission_refuses(&a, 300 << 20), *large = admission_refuses(&a, 301 << 20),
                            *huge = admission_refuses(&a, UINT64_MAX);

        assert_null(fits);
        assert_non_null(strstr(large, "gateway.max_memory"));
        assert_non_null(huge);
        a.instances = 4;
        _cleanup_free_ char *many = admission_refuses(&a, 1);
        assert_non_null(strstr(many, "gateway.max_instances"));
        a = (struct admission){.max_instances = 4, .memory = 2000, .max_memory = 1000}; /* the always-on ones alone are over it */
        _cleanup_free_ char *over = admission_refuses(&a, 1);
        assert_non_null(over);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_tells_http),      cmocka_unit_test(test_tells_stdio),       cmocka_unit_test(test_tells_states),
                cmocka_unit_test(test_tells_on_demand), cmocka_unit_test(test_tells_long_things), cmocka_unit_test(test_bucket),
                cmocka_unit_test(test_admission),
        };
        return cmocka_run_group_tests_name("broker_tells", tests, NULL, NULL);
}
