/*
 * Sequences of actions against a scripted Engine: who gets a slot, what a newer judgement stops, and what ends beside a sequence.
 */
#include "tests/unit/test_engine.h"

#include "controller/controller.h"
#include "controller/egress/egress_private.h"

#define SPEC_A "v1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SPEC_B "v1:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

#define SERVERS 3
static const char *const names[SERVERS] = {"a", "b", "c"};

struct world {
        struct fixture x;
        struct conf conf;
        struct controller c;
        struct registry_entry entries[SERVERS];
        struct record records[SERVERS], newer;
        struct desired_server before[SERVERS], after[SERVERS];
        struct forge_view view;
        struct shared shared;
        struct desired desired, next; /* the judgement when the actions began, and the newest */
};

static void play(struct fake_request *r)
{
        if (strstr(r->path, "/networks/create"))
                fake_reply(r, "201 Created", "{\"Id\":\"n\"}");
        else if (str_eq(r->method, "DELETE"))
                fake_reply(r, "204 No Content", NULL);
        else
                fake_reply(r, "404 Not Found", "{\"message\":\"no\"}");
}

static void world_init(struct world *w)
{
        memset(w, 0, sizeof(*w));
        w->x = fixture_new(play, NULL);
        w->conf = (struct conf){.audience = (char *)"host", .max_starts = 1};
        w->c = (struct controller){.conf = &w->conf, .loop = w->x.loop, .engine = w->x.engine, .desired = &w->desired};
        w->shared = (struct shared){.refs = 1, .value = &w->view};
        for (size_t i = 0; i < SERVERS; i++) {
                w->entries[i] = (struct registry_entry){.name = (char *)names[i], .enabled = true, .lifecycle = LIFECYCLE_ALWAYS_ON};
                w->records[i] = (struct record){.kind = RECORD_APPROVAL, .id = (char *)"f-1", .server = (char *)names[i]};
                w->before[i] = (struct desired_server){
                        .name = names[i], .entry = &w->entries[i], .record = &w->records[i], .may_run = true, .may_stay = true};
                w->before[i].names = (struct instance_names){
                        .container = (char *)"x-aaaaaaaa", .network = (char *)"bh-x-aaaaaaaa", .bridge = "bh1", .spec_hash = SPEC_A};
                w->after[i] = w->before[i];
        }
        w->desired = (struct desired){.refs = 99, .servers = w->before, .n = SERVERS, .view = &w->shared};
        w->next = (struct desired){.refs = 99, .servers = w->after, .n = SERVERS, .view = &w->shared};
}

static void world_deinit(struct world *w)
{
        for (size_t i = 0; i < w->c.n_keys; i++)
                key_free(w->c.keys[i]);
        free(w->c.keys);
        fixture_deinit(&w->x);
}

static struct key *begin(struct world *w, const char *name, enum action_kind kind)
{
        struct key *key = key_get(&w->c, name);

        snprintf(key->subnet, sizeof(key->subnet), "10.213.0.0/29");
        key->plan = NEW(struct plan_server);
        key->plan->state = SERVER_STARTING;
        key->plan->actions = NEW(struct action);
        key->plan->n_actions = 1;
        key->plan->actions[0] = (struct action){.kind = kind, .object = mem_strdup("o"), .id = mem_strdup("id")};
        apply_begin(key);
        return key;
}

static void settle(struct world *w)
{
        for (unsigned i = 0; i < 50; i++) {
                bool busy = false;
                for (size_t k = 0; k < w->c.n_keys; k++)
                        busy |= w->c.keys[k]->busy || w->c.keys[k]->stopping;
                if (!busy)
                        return;
                run_ms(&w->x, 20);
        }
}

/* The one that was next is not wanted any more: the slot goes on to the one behind it. */
static void test_a_slot_is_passed_on(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        struct key *a = begin(&w, "a", ACTION_NETWORK), *b = begin(&w, "b", ACTION_NETWORK), *c = begin(&w, "c", ACTION_NETWORK);
        assert_true(a->holds_slot && b->waits_for_slot && c->waits_for_slot);
        w.after[1].may_run = w.after[1].may_stay = false;
        w.c.desired = &w.next;
        settle(&w);
        assert_false(a->busy || b->busy || c->busy);
        assert_int_equal(fake_engine_count(w.x.fake, "/networks/create"), 2);
        assert_int_equal(w.c.slots_used, 0);
        world_deinit(&w);
}

static void test_a_removal_waits_for_no_slot(_unused_ void **state)
{
        struct world w;

        world_init(&w);
        w.c.slots_used = 1; /* somebody holds it for long */
        struct key *a = begin(&w, "a", ACTION_REMOVE), *b = begin(&w, "b", ACTION_NETWORK);
        settle(&w);
        assert_false(a->busy);
        assert_true(b->busy && b->waits_for_slot);
        assert_int_equal(fake_engine_count(w.x.fake, "DELETE"), 1);
        world_deinit(&w);
}

/* Neither what only may stay, nor what another approval covers now, goes on towards a start. */
static void test_a_start_wants_its_approval(_unused_ void **state)
{
        static const enum action_kind kinds[] = {ACTION_IMAGE, ACTION_SMOKE, ACTION_NETWORK, ACTION_CREATE, ACTION_VERIFY, ACTION_START};

        for (size_t i = 0; i < 2 * ELEMENTSOF(kinds); i++) {
                struct world w;

                world_init(&w);
                w.newer = w.records[0];
                w.newer.id = (char *)"f-2";
                w.c.slots_used = 1;
                struct key *a = key_get(&w.c, "a");
                begin(&w, "a", ACTION_NETWORK); /* waits */
                a->plan->actions[0].kind = kinds[i / 2];
                if (i % 2)
                        w.after[0].record = &w.newer;
                else
                        w.after[0].may_run = false;
                w.c.desired = &w.next;
                a->waits_for_slot = true;
                w.c.slots_used = 0;
                struct key *b = begin(&w, "b", ACTION_NETWORK); /* its end wakes the other */
                assert_true(b->holds_slot);
                settle(&w);
                assert_false(a->busy);
                assert_null(a->error);
                assert_int_equal(fake_engine_count(w.x.fake, "/v1.41/"), 1);
                world_deinit(&w);
        }
}

/* The rules were in force when they were set, but a smoke test or a pull lies between that and the start. */
static void test_a_start_wants_its_rules(_unused_ void **state)
{
        struct instance instance = {.bridge = "bh1", .in_force = true}, *instances[] = {&instance};
        struct egress egress = {.sound = true, .instances = instances};

        for (unsigned i = 0; i < 5; i++) {
                struct world w;

                world_init(&w);
                w.c.egress = &egress;
                egress.n_instances = i > 0;
                egress.sound = i != 1;
                instance.in_force = i != 2;
                instance.adopted = i == 3;
                struct key *a = begin(&w, "a", ACTION_START);
                settle(&w);
                assert_non_null(strstr(a->error, i < 4 ? "firewall rules are not in force" : "HTTP 404"));
                assert_int_equal(fake_engine_count(w.x.fake, "/start"), i < 4 ? 0 : 1);
                world_deinit(&w);
        }
}

/* A pull takes minutes. The version before was revoked meanwhile: it ends now. */
static void test_revoked_while_busy(_unused_ void **state)
{
        struct world w;
        struct observed_container containers[] = {
                {.id = (char *)"old", .name = (char *)"a-b", .server = (char *)"a", .spec = (char *)SPEC_B},
                {.id = (char *)"new", .name = (char *)"a-a", .server = (char *)"a", .spec = (char *)SPEC_A},
                {.id = (char *)"theirs", .name = (char *)"t", .server = (char *)"b", .spec = (char *)SPEC_B},
        };
        struct observed observed = {.containers = containers, .n_containers = ELEMENTSOF(containers)};
        struct image_facts image = {0};
        struct record former = {.kind = RECORD_APPROVAL, .id = (char *)"f-0", .server = (char *)"a", .image = &image};
        struct forge_item item = {.record = &former};

        for (size_t i = 0; i < ELEMENTSOF(containers); i++) {
                containers[i].ours = true;
                containers[i].role = (char *)"server";
                containers[i].state = (char *)"running";
        }
        world_init(&w);
        former.spec_sha256 = (char *)SPEC_B + 3;
        w.view = (struct forge_view){.items = &item, .n_items = 1};
        w.c.slots_used = 1;
        struct key *a = begin(&w, "a", ACTION_NETWORK);
        end_unapproved(a, &observed);
        assert_null(a->stopping); /* covered by the former approval */
        former.expires_at = 1;
        end_unapproved(a, &observed);
        assert_string_equal(a->stopping, "old");
        for (unsigned i = 0; i < 50 && a->stopping; i++)
                run_ms(&w.x, 20);
        assert_null(a->stopping);
        assert_true(a->busy);
        assert_int_equal(fake_engine_count(w.x.fake, "DELETE"), 1);
        assert_int_equal(fake_engine_count(w.x.fake, "/containers/old?"), 1);
        /* the whole server is revoked, or switched off */
        w.after[0].may_run = w.after[0].may_stay = false;
        w.c.desired = &w.next;
        containers[0].state = (char *)"exited";
        end_unapproved(a, &observed);
        assert_string_equal(a->stopping, "new");
        world_deinit(&w);
}

/* The registry cannot be read since the start: what is declared is unknown, what is revoked is not. */
static void test_uncovered_without_a_registry(_unused_ void **state)
{
        struct world w;
        struct observed_container containers[] = {
                {.id = (char *)"covered", .name = (char *)"a-b", .server = (char *)"a", .spec = (char *)SPEC_B},
                {.id = (char *)"revoked", .name = (char *)"a-a", .server = (char *)"a", .spec = (char *)SPEC_A},
                {.id = (char *)"theirs", .name = (char *)"t", .server = NULL, .spec = (char *)SPEC_A},
        };
        struct observed observed = {.containers = containers, .n_containers = ELEMENTSOF(containers)};
        struct image_facts image = {0};
        struct record record = {
                .kind = RECORD_APPROVAL, .id = (char *)"f-0", .server = (char *)"a", .image = &image, .spec_sha256 = (char *)SPEC_B + 3};
        struct forge_item item = {.record = &record};

        world_init(&w);
        w.c.desired = NULL;
        for (size_t i = 0; i < ELEMENTSOF(containers); i++) {
                containers[i].ours = i < 2;
                containers[i].role = (char *)"server";
                containers[i].state = (char *)"running";
        }
        end_uncovered(&w.c, &observed); /* no approvals either: nothing is known */
        run_ms(&w.x, 100);
        assert_int_equal(fake_engine_count(w.x.fake, "DELETE"), 0);
        w.view = (struct forge_view){.items = &item, .n_items = 1};
        w.c.view = &w.shared;
        end_uncovered(&w.c, &observed);
        run_ms(&w.x, 100);
        assert_int_equal(fake_engine_count(w.x.fake, "DELETE"), 1);
        assert_int_equal(fake_engine_count(w.x.fake, "/containers/revoked?"), 1);
        world_deinit(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_slot_is_passed_on),          cmocka_unit_test(test_a_removal_waits_for_no_slot),
                cmocka_unit_test(test_a_start_wants_its_approval),   cmocka_unit_test(test_revoked_while_busy),
                cmocka_unit_test(test_uncovered_without_a_registry), cmocka_unit_test(test_a_start_wants_its_rules),
        };
        return cmocka_run_group_tests_name("apply", tests, NULL, NULL);
}
