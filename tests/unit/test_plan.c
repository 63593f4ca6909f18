/*
 * The plan is a pure function: every case of what should be and what is, without an Engine.
 */
#include "tests/unit/test.h"

#include "controller/plan.h"

#define SPEC_A   "v1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SPEC_B   "v1:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define MANIFEST "1111111111111111111111111111111111111111111111111111111111111111"

/* One server "s", approved with spec A; tests bend what they need. */
struct world {
        struct registry_entry entry;
        struct record record;
        struct desired_server server;
        struct forge_item items[2];
        struct record former;
        struct image_facts image;
        struct forge_view view;
        struct shared shared;
        struct desired desired;
        struct observed_container containers[4];
        struct observed_network networks[4];
        struct observed observed;
        struct plan_input in;
};

static char *drift_of_memory[] = {(char *)"HostConfig.Memory: is 1, approved 2", NULL};

static void world_init(struct world *w)
{
        memset(w, 0, sizeof(*w));
        w->entry = (struct registry_entry){.name = (char *)"s", .enabled = true, .image = (char *)"r/i@sha256:x"};
        w->record = (struct record){.kind = RECORD_APPROVAL, .id = (char *)"f-1", .manifest_sha256 = (char *)MANIFEST};
        w->server = (struct desired_server){
                .name = "s", .entry = &w->entry, .verdict = FORGE_APPROVED, .record = &w->record, .may_run = true, .may_stay = true};
        w->server.names = (struct instance_names){
                .container = (char *)"s-aaaaaaaa", .network = (char *)"bh-s-aaaaaaaa", .bridge = "bh00000001", .spec_hash = SPEC_A};
        w->shared = (struct shared){.refs = 1, .value = &w->view};
        w->desired = (struct desired){.refs = 1, .servers = &w->server, .n = 1, .view = &w->shared};
        w->observed = (struct observed){.containers = w->containers, .networks = w->networks, .complete = true};
        w->in = (struct plan_input){.desired = &w->desired, .server = &w->server, .name = "s", .observed = &w->observed};
        w->in.facts =
                (struct plan_facts){.image_ok = true, .smoked = MANIFEST, .subnet = "10.213.0.0/29", .egress_ok = true, .rules_ok = true};
}

static struct observed_container *add_container(struct world *w, const char *name, const char *spec, const char *state)
{
        struct observed_container *c = &w->containers[w->observed.n_containers++];

        *c = (struct observed_container){.id = (char *)name,
                                         .name = (char *)name,
                                         .server = (char *)"s",
                                         .spec = (char *)spec,
                                         .role = (char *)"server",
                                         .state = (char *)state,
                                         .ours = true,
                                         .inspected = true};
        c->current = str_eq(name, w->server.names.container) && str_eq(spec, w->server.names.spec_hash);
        return c;
}

static struct observed_network *add_network(struct world *w, const char *name, const char *spec, const char *bridge)
{
        struct observed_network *n = &w->networks[w->observed.n_networks++];

        *n = (struct observed_network){.id = (char *)name,
                                       .name = (char *)name,
                                       .server = (char *)"s",
                                       .spec = (char *)spec,
                                       .role = (char *)"server",
                                       .subnet = (char *)"10.213.0.0/29",
                                       .bridge = (char *)bridge,
                                       .ours = true,
                                       .internal = true};
        return n;
}

static void add_running(struct world *w)
{
        add_container(w, "s-aaaaaaaa", SPEC_A, "running");
        add_network(w, "bh-s-aaaaaaaa", SPEC_A, "bh00000001");
}

/* The plan as text: "create s-aaaaaaaa, start s-aaaaaaaa". */
static void expect(struct world *w, enum server_state state, const char *want)
{
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w->in);
        _cleanup_buf_ struct buf got = {0};

        buf_adds(&got, "");
        for (size_t i = 0; i < p->n_actions; i++)
                buf_addf(&got, "%s%s %s", i ? ", " : "", action_name(p->actions[i].kind), p->actions[i].object);
        assert_string_equal(got.data, want);
        assert_string_equal(server_state_name(p->state), server_state_name(state));
        if (state != SERVER_RUNNING)
                assert_non_null(p->why);
}

static void test_nothing_there(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        expect(&w, SERVER_STARTING, "allow bh00000001, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start s-aaaaaaaa");
        w.in.facts.image_ok = false;
        w.in.facts.smoked = NULL;
        expect(&w, SERVER_STARTING,
               "allow bh00000001, pull r/i@sha256:x, smoke-test s, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start s-aaaaaaaa");
        assert_true(plan_needs_subnet(&w.server, &w.observed, false));
}

static void test_all_well(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        expect(&w, SERVER_RUNNING, "");
        assert_false(plan_needs_subnet(&w.server, &w.observed, false));
        w.in.facts.rules_ok = false;
        expect(&w, SERVER_RUNNING, "allow bh00000001");
        w.in.facts.rules_ok = true;
        w.in.facts.smoked = NULL; /* what its manifest has is not known any more, and the broker needs it */
        expect(&w, SERVER_RUNNING, "smoke-test s");
}

static void test_ended(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        w.containers[0].state = (char *)"exited";
        w.containers[0].started_at = 1;
        expect(&w, SERVER_STARTING, "allow bh00000001, verify s-aaaaaaaa, start s-aaaaaaaa");
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w.in);
        assert_true(p->crashed);
        w.containers[0].state = (char *)"created";
        expect(&w, SERVER_STARTING, "allow bh00000001, verify s-aaaaaaaa, start s-aaaaaaaa");
        w.containers[0].state = (char *)"removing";
        expect(&w, SERVER_STARTING, "");
        w.containers[0].state = (char *)"paused";
        expect(&w, SERVER_STARTING, "remove s-aaaaaaaa, allow bh00000001, create s-aaaaaaaa, start s-aaaaaaaa");
}

/* What was not looked at is neither started nor removed. */
static void test_not_inspected(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        w.containers[0].inspected = false;
        expect(&w, SERVER_STARTING, "");
        w.containers[0].state = (char *)"created";
        expect(&w, SERVER_STARTING, "");
}

static void test_drift(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        w.containers[0].drift = drift_of_memory;
        expect(&w, SERVER_STARTING, "remove s-aaaaaaaa, allow bh00000001, create s-aaaaaaaa, start s-aaaaaaaa");
        w.containers[0].state = (char *)"exited";
        expect(&w, SERVER_STARTING, "remove s-aaaaaaaa, allow bh00000001, create s-aaaaaaaa, start s-aaaaaaaa");
}

static void test_network_of_another_make(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_network(&w, "bh-s-aaaaaaaa", SPEC_A, "bh00000001")->internal = false;
        expect(&w, SERVER_STARTING,
               "allow bh00000001, remove-network bh-s-aaaaaaaa, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start s-aaaaaaaa");
        add_container(&w, "s-aaaaaaaa", SPEC_A, "running");
        expect(&w, SERVER_STARTING,
               "remove s-aaaaaaaa, allow bh00000001, remove-network bh-s-aaaaaaaa, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start "
               "s-aaaaaaaa");
}

static void test_duplicates_and_strays(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        add_container(&w, "copy", SPEC_A, "running");
        add_network(&w, "bh-s-cccccccc", "v1:c", "bh0000000c");
        expect(&w, SERVER_RUNNING, "remove copy, remove-network bh-s-cccccccc, deny bh0000000c");
        /* what is not ours is not touched */
        w.containers[1].ours = false;
        w.containers[1].server = NULL;
        w.observed.n_networks = 1;
        expect(&w, SERVER_RUNNING, "");
}

/* `docker rename`: the address is taken until the renamed one is gone. */
static void test_renamed(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_container(&w, "renamed", SPEC_A, "running");
        add_network(&w, "bh-s-aaaaaaaa", SPEC_A, "bh00000001");
        expect(&w, SERVER_STARTING, "remove renamed, allow bh00000001, create s-aaaaaaaa, start s-aaaaaaaa");
        add_container(&w, "s-aaaaaaaa", SPEC_A, "created");
        expect(&w, SERVER_STARTING, "remove renamed, allow bh00000001, verify s-aaaaaaaa, start s-aaaaaaaa");
}

static void test_foreign_holder(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        struct observed_container *c = add_container(&w, "s-aaaaaaaa", SPEC_A, "running");
        c->ours = c->current = false;
        c->server = NULL;
        expect(&w, SERVER_BLOCKED, "");
}

static void approve_former(struct world *w, time_t expires)
{
        w->former = (struct record){.kind = RECORD_APPROVAL,
                                    .id = (char *)"f-0",
                                    .server = (char *)"s",
                                    .image = &w->image,
                                    .spec_sha256 = (char *)SPEC_B + 3,
                                    .expires_at = expires};
        w->items[0] = (struct forge_item){.record = &w->former};
        w->view.items = w->items;
        w->view.n_items = 1;
        w->in.now = 1000;
}

static void test_new_before_old(_unused_ void **state)
{
        static const char new_first[] = "allow bh00000001, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start s-aaaaaaaa";
        struct world w;

        world_init(&w);
        add_container(&w, "s-bbbbbbbb", SPEC_B, "running");
        add_network(&w, "bh-s-bbbbbbbb", SPEC_B, "bh00000002");
        approve_former(&w, 2000);
        expect(&w, SERVER_STARTING, new_first);
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w.in);
        assert_string_equal(p->older, "s-bbbbbbbb"); /* whoever calls it goes on meanwhile */
        /* once the new one runs, the old one goes */
        add_running(&w);
        expect(&w, SERVER_RUNNING, "remove s-bbbbbbbb, remove-network bh-s-bbbbbbbb, deny bh00000002");
        /* the old one does not outlive its own approval */
        w.observed.n_containers = w.observed.n_networks = 1;
        approve_former(&w, 999);
        _cleanup_free_ char *also = mem_printf("remove s-bbbbbbbb, %s, remove-network bh-s-bbbbbbbb, deny bh00000002", new_first);
        expect(&w, SERVER_STARTING, also);
}

/* A start may fail for hours. What was revoked does not run as long: it ends first, whatever the backoff. */
static void test_revoked_ends_before_anything_starts(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_container(&w, "s-bbbbbbbb", SPEC_B, "running");
        w.in.facts.image_ok = false;
        expect(&w, SERVER_STARTING,
               "remove s-bbbbbbbb, allow bh00000001, pull r/i@sha256:x, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start s-aaaaaaaa");
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w.in);
        assert_true(p->urgent);
        approve_former(&w, 2000);
        _cleanup_(plan_server_freep) struct plan_server *kept = plan_server(&w.in);
        assert_false(kept->urgent);
}

/* The approval of the same container was replaced by one for another manifest. */
static void test_running_with_another_manifest(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        w.in.facts.smoked = "another manifest";
        expect(&w, SERVER_QUARANTINED, "remove s-aaaaaaaa");
        /* the knowledge is older than the approval: test once more, not with it running */
        w.in.facts.test_again = true;
        expect(&w, SERVER_STARTING, "remove s-aaaaaaaa, allow bh00000001, smoke-test s, create s-aaaaaaaa, start s-aaaaaaaa");
}

static void test_new_one_fails_its_test(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_container(&w, "s-bbbbbbbb", SPEC_B, "running");
        add_network(&w, "bh-s-bbbbbbbb", SPEC_B, "bh00000002");
        approve_former(&w, 2000);
        w.in.facts.smoked = "another manifest";
        expect(&w, SERVER_QUARANTINED, "");
        w.in.facts.smoked = MANIFEST;
        w.in.facts.image_refused = "another image";
        expect(&w, SERVER_REFUSED, "");
}

static void test_not_to_run(_unused_ void **state)
{
        static const char gone[] = "remove s-aaaaaaaa, remove-network bh-s-aaaaaaaa, deny bh00000001";
        struct world w;

        world_init(&w);
        add_running(&w);
        w.server.may_run = w.server.may_stay = false;
        w.server.verdict = FORGE_REVOKED;
        w.server.why = (char *)"revoked";
        expect(&w, SERVER_REFUSED, gone);
        w.entry.enabled = false;
        expect(&w, SERVER_DISABLED, gone);
        w.in.server = NULL;
        expect(&w, SERVER_REMOVED, gone);
}

static void test_refused_history_starts_nothing(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.server.may_run = false;
        w.server.verdict = FORGE_HISTORY_REFUSED;
        w.server.why = (char *)"rolled back";
        expect(&w, SERVER_REFUSED, "");
        add_running(&w);
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w.in);
        assert_int_equal(p->state, SERVER_RUNNING);
        assert_string_equal(p->why, "rolled back");
        assert_int_equal(p->n_actions, 0);
        w.containers[0].state = (char *)"exited";
        expect(&w, SERVER_REFUSED, "remove s-aaaaaaaa, remove-network bh-s-aaaaaaaa, deny bh00000001");
}

static void test_no_start_without_rules(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.in.facts.egress_ok = false;
        expect(&w, SERVER_ERROR, "");
        add_running(&w);
        w.containers[0].state = (char *)"exited";
        expect(&w, SERVER_ERROR, "");
}

static void test_smoke_tests_are_no_orphans(_unused_ void **state)
{
        char *smoking[] = {(char *)SPEC_B, NULL};
        struct world w;

        world_init(&w);
        add_running(&w);
        add_container(&w, "s-bbbbbbbb-smoke", SPEC_B, "running")->role = (char *)"smoke";
        add_network(&w, "bh-s-bbbbbbbb-smoke", SPEC_B, "bh00000003")->role = (char *)"smoke";
        w.in.facts.smoking = smoking;
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.smoking = NULL;
        expect(&w, SERVER_RUNNING, "remove s-bbbbbbbb-smoke, remove-network bh-s-bbbbbbbb-smoke, deny bh00000003");
}

/* Nobody calls it: nothing of it is there, and it is known beforehand whether it may start. */
static void test_asleep(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.entry.lifecycle = LIFECYCLE_ON_DEMAND;
        expect(&w, SERVER_STOPPED, "");
        assert_false(plan_needs_subnet(&w.server, &w.observed, false));
        w.in.facts.image_ok = false; /* a tested image is fetched when it is needed */
        expect(&w, SERVER_STOPPED, "");
        w.in.facts.smoked = NULL;
        expect(&w, SERVER_STOPPED, "pull r/i@sha256:x, smoke-test s");
        w.in.facts.image_ok = true;
        w.in.facts.smoked = "another manifest";
        expect(&w, SERVER_QUARANTINED, "");
        w.in.facts.test_again = true;
        expect(&w, SERVER_STOPPED, "smoke-test s");
        w.in.facts.image_refused = "another image";
        expect(&w, SERVER_REFUSED, "");

        world_init(&w);
        w.entry.lifecycle = LIFECYCLE_ON_DEMAND;
        add_running(&w);
        expect(&w, SERVER_STOPPED, "remove s-aaaaaaaa, remove-network bh-s-aaaaaaaa, deny bh00000001");
        w.server.may_run = false; /* the approvals' tip is refused, and it is let go meanwhile */
        w.server.why = (char *)"rolled back";
        expect(&w, SERVER_REFUSED, "remove s-aaaaaaaa, remove-network bh-s-aaaaaaaa, deny bh00000001");
}

static void test_called(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.entry.lifecycle = LIFECYCLE_ON_DEMAND;
        w.in.facts.called = true;
        expect(&w, SERVER_STARTING, "allow bh00000001, create-network bh-s-aaaaaaaa, create s-aaaaaaaa, start s-aaaaaaaa");
        assert_true(plan_needs_subnet(&w.server, &w.observed, true));
        add_running(&w);
        expect(&w, SERVER_RUNNING, "");
        w.server.may_run = w.server.may_stay = false;
        w.server.verdict = FORGE_REVOKED;
        w.server.why = (char *)"revoked";
        expect(&w, SERVER_REFUSED, "remove s-aaaaaaaa, remove-network bh-s-aaaaaaaa, deny bh00000001");
}

/* A broker can speak with a stdio server only from its start on. */
static void test_session(_unused_ void **state)
{
        static const char anew[] = "stop s-aaaaaaaa, allow bh00000001, verify s-aaaaaaaa, start s-aaaaaaaa";
        struct world w;

        world_init(&w);
        add_running(&w);
        w.in.facts.session = "s-aaaaaaaa";
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.linked = true;
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.session = "another container";
        expect(&w, SERVER_STARTING, anew);
        w.in.facts.session = NULL;
        expect(&w, SERVER_STARTING, anew);
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w.in);
        assert_false(p->crashed);
        /* It is not ended where it could not be started again. */
        w.in.facts.egress_ok = false;
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.egress_ok = true;
        w.in.facts.image_refused = "another image";
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.image_refused = NULL;
        w.server.may_run = false;
        w.server.why = (char *)"rolled back";
        _cleanup_(plan_server_freep) struct plan_server *stays = plan_server(&w.in);
        assert_int_equal(stays->n_actions, 0);
        w.server.may_run = true;
        w.entry.transport = TRANSPORT_STREAMABLE_HTTP;
        expect(&w, SERVER_RUNNING, "");
}

/* What runs elsewhere: asked before it is called, again and again, and withdrawn when it offers something else. */
static void test_external(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.entry = (struct registry_entry){.name = (char *)"s", .enabled = true, .source = SOURCE_URL, .address = (char *)"127.0.0.1"};
        w.in.facts.ask = true;
        w.in.facts.rules_ok = false;
        /* It passed once, perhaps years ago: that is not enough for this process. */
        expect(&w, SERVER_STARTING, "allow bh00000001, smoke-test s");
        assert_false(plan_needs_subnet(&w.server, &w.observed, false));
        w.in.facts.asked = true;
        w.in.facts.ask = false;
        expect(&w, SERVER_STARTING, "allow bh00000001");
        w.in.facts.rules_ok = true;
        expect(&w, SERVER_RUNNING, "");
        _cleanup_(plan_server_freep) struct plan_server *p = plan_server(&w.in);
        assert_string_equal(p->address, "127.0.0.1");
        assert_string_equal(p->instance, "aaaaaaaaaaaa");
        assert_null(p->container);
        w.in.facts.ask = true;
        expect(&w, SERVER_RUNNING, "smoke-test s");
        w.in.facts.smoked = "2222222222222222222222222222222222222222222222222222222222222222";
        w.in.facts.rules_there = true;
        expect(&w, SERVER_QUARANTINED, "deny bh00000001, smoke-test s");
        /* So does a permission that only the kernel knows of, from a controller before this one. */
        w.in.facts.ask = w.in.facts.rules_ok = false;
        expect(&w, SERVER_QUARANTINED, "deny bh00000001");
        w.in.facts.rules_there = false;
        expect(&w, SERVER_QUARANTINED, "");
        w.in.facts.smoked = NULL;
        expect(&w, SERVER_STARTING, "allow bh00000001");
}

static void test_external_takes_no_container_over(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        add_running(&w);
        w.entry = (struct registry_entry){.name = (char *)"s", .enabled = true, .source = SOURCE_URL, .address = (char *)"127.0.0.1"};
        w.containers[0].current = false;
        w.in.facts.asked = true;
        expect(&w, SERVER_RUNNING, "remove s-aaaaaaaa, remove-network bh-s-aaaaaaaa, deny bh00000001");
        /* Nothing new is asked while the approvals' history is refused, and what was found good stays. */
        w.observed.n_containers = w.observed.n_networks = 0;
        w.server.may_run = false;
        w.server.why = (char *)"the approvals' history is refused";
        w.in.facts.ask = true;
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.asked = false;
        expect(&w, SERVER_REFUSED, "");
        w.server.may_stay = false;
        expect(&w, SERVER_REFUSED, "");
}

/* What the broker cannot speak to any more: this run of it, and no other. */
static void test_hung(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.entry.transport = TRANSPORT_STREAMABLE_HTTP;
        add_running(&w);
        w.containers[0].instance = (char *)"0123456789ab";
        w.in.facts.hung = "0123456789ab";
        expect(&w, SERVER_STARTING, "stop s-aaaaaaaa, allow bh00000001, verify s-aaaaaaaa, start s-aaaaaaaa");
        w.in.facts.egress_ok = false;
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.egress_ok = true;
        w.in.facts.hung = "ffffffffffff";
        expect(&w, SERVER_RUNNING, "");
}

/* -- an instance for every session ---------------------------------------------------------------------------------------------- */

/* The world's server becomes the first place of one. */
static void place_init(struct world *w)
{
        world_init(w);
        w->entry.sharing = SHARING_PER_SESSION;
        w->server.server = "s";
        w->server.name = "s.1";
        w->server.place = 1;
        w->server.names = (struct instance_names){
                .container = (char *)"s-aaaaaaaa-1", .network = (char *)"bh-s-aaaaaaaa-1", .bridge = "bh00000011", .spec_hash = SPEC_A};
        w->in.name = "s.1";
        w->in.facts.called = w->in.facts.linked = true;
}

static void add_running_place(struct world *w)
{
        add_container(w, "s-aaaaaaaa-1", SPEC_A, "running")->server = (char *)"s.1";
        add_network(w, "bh-s-aaaaaaaa-1", SPEC_A, "bh00000011")->server = (char *)"s.1";
}

static void test_place(_unused_ void **state)
{
        struct world w;

        place_init(&w);
        expect(&w, SERVER_STARTING, "allow bh00000011, create-network bh-s-aaaaaaaa-1, create s-aaaaaaaa-1, start s-aaaaaaaa-1");
        w.in.facts.image_ok = false;
        expect(&w, SERVER_STARTING,
               "allow bh00000011, pull r/i@sha256:x, create-network bh-s-aaaaaaaa-1, create s-aaaaaaaa-1, start s-aaaaaaaa-1");
        /* The server itself sees to its smoke test, once for all. */
        w.in.facts.smoked = NULL;
        expect(&w, SERVER_STARTING, "");
        w.in.facts.smoked = "2222222222222222222222222222222222222222222222222222222222222222";
        w.in.facts.test_again = true;
        expect(&w, SERVER_STARTING, "");
        w.in.facts.test_again = false;
        expect(&w, SERVER_QUARANTINED, "");
        w.in.facts.called = false;
        w.in.facts.smoked = NULL;
        expect(&w, SERVER_STOPPED, "");
        /* Neither is it a place that runs. */
        w.server.place = 0;
        expect(&w, SERVER_STOPPED, "pull r/i@sha256:x, smoke-test s.1");
}

static void test_place_session(_unused_ void **state)
{
        struct world w;

        place_init(&w);
        add_running_place(&w);
        w.in.facts.session = "s-aaaaaaaa-1";
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.rules_ok = false;
        expect(&w, SERVER_RUNNING, "allow bh00000011");
        w.in.facts.rules_ok = true;
        /* Its session is over: it goes, with its network. */
        w.in.facts.called = false;
        expect(&w, SERVER_STOPPED, "remove s-aaaaaaaa-1, remove-network bh-s-aaaaaaaa-1, deny bh00000011");
        w.in.facts.called = true;
        /* It ended, or somebody changed it: never again for the same session. */
        w.containers[0].state = (char *)"exited";
        expect(&w, SERVER_STOPPED, "remove s-aaaaaaaa-1, remove-network bh-s-aaaaaaaa-1, deny bh00000011");
        w.in.facts.session_fresh = true; /* what was seen is from before its start */
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.session_fresh = false;
        w.containers[0].state = (char *)"running";
        w.containers[0].drift = drift_of_memory;
        expect(&w, SERVER_STOPPED, "remove s-aaaaaaaa-1, remove-network bh-s-aaaaaaaa-1, deny bh00000011");
        w.containers[0].drift = NULL;
        w.networks[0].internal = false;
        expect(&w, SERVER_STOPPED, "remove s-aaaaaaaa-1, remove-network bh-s-aaaaaaaa-1, deny bh00000011");
        w.networks[0].internal = true;
        w.in.facts.smoked = "2222222222222222222222222222222222222222222222222222222222222222";
        expect(&w, SERVER_STOPPED, "remove s-aaaaaaaa-1, remove-network bh-s-aaaaaaaa-1, deny bh00000011");
        w.in.facts.smoked = MANIFEST;
        /* The place's next session gets a fresh one. */
        w.in.facts.session = NULL;
        expect(&w, SERVER_STARTING, "stop s-aaaaaaaa-1, allow bh00000011, verify s-aaaaaaaa-1, start s-aaaaaaaa-1");
}

/* A session keeps the version that it began with, as long as that is approved. */
static void test_place_of_another_version(_unused_ void **state)
{
        struct world w;

        place_init(&w);
        add_container(&w, "s-bbbbbbbb-1", SPEC_B, "running")->server = (char *)"s.1";
        add_network(&w, "bh-s-bbbbbbbb-1", SPEC_B, "bh00000022")->server = (char *)"s.1";
        w.in.facts.session = "s-bbbbbbbb-1";
        expect(&w, SERVER_STOPPED, "remove s-bbbbbbbb-1, remove-network bh-s-bbbbbbbb-1, deny bh00000022");
        w.former = (struct record){.kind = RECORD_APPROVAL, .id = (char *)"f-0", .server = (char *)"s", .image = &w.image};
        w.former.spec_sha256 = (char *)SPEC_B + 3;
        w.items[0] = (struct forge_item){.record = &w.former};
        w.view = (struct forge_view){.items = w.items, .n_items = 1};
        expect(&w, SERVER_RUNNING, "");
        w.in.facts.called = false;
        expect(&w, SERVER_STOPPED, "remove s-bbbbbbbb-1, remove-network bh-s-bbbbbbbb-1, deny bh00000022");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_place),
                cmocka_unit_test(test_place_session),
                cmocka_unit_test(test_place_of_another_version),
                cmocka_unit_test(test_nothing_there),
                cmocka_unit_test(test_all_well),
                cmocka_unit_test(test_ended),
                cmocka_unit_test(test_drift),
                cmocka_unit_test(test_not_inspected),
                cmocka_unit_test(test_network_of_another_make),
                cmocka_unit_test(test_duplicates_and_strays),
                cmocka_unit_test(test_renamed),
                cmocka_unit_test(test_foreign_holder),
                cmocka_unit_test(test_new_before_old),
                cmocka_unit_test(test_revoked_ends_before_anything_starts),
                cmocka_unit_test(test_running_with_another_manifest),
                cmocka_unit_test(test_new_one_fails_its_test),
                cmocka_unit_test(test_not_to_run),
                cmocka_unit_test(test_refused_history_starts_nothing),
                cmocka_unit_test(test_no_start_without_rules),
                cmocka_unit_test(test_smoke_tests_are_no_orphans),
                cmocka_unit_test(test_asleep),
                cmocka_unit_test(test_called),
                cmocka_unit_test(test_session),
                cmocka_unit_test(test_hung),
                cmocka_unit_test(test_external),
                cmocka_unit_test(test_external_takes_no_container_over),
        };
        return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
