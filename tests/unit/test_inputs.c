/*
 * What the controller takes in, with a real repository, real signatures and the real helper: what must hold when the disk does not.
 */
#include "tests/unit/forge_rig.h"
#include "tests/unit/test.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controller/controller.h"

#define ONES "1111111111111111111111111111111111111111111111111111111111111111"

static const char registry[] = "{\"version\":\"1.0\",\"servers\":{\"github\":{"
                               "\"source\":\"docker_image\",\"image\":\"registry.example/mcp/github:1.4@sha256:" ONES "\","
                               "\"transport\":\"stdio\",\"secrets\":[\"GITHUB_TOKEN\"],"
                               "\"egress\":[{\"cidr\":\"192.0.2.0/24\",\"protocol\":\"tcp\",\"ports\":[443]}]}}}";

struct world {
        struct rig rig;
        struct controller c;
        char *state_dir, *away, *registry;
};

static void world_init(struct world *w)
{
        struct err *err = NULL;

        *w = (struct world){0};
        rig_init(&w->rig);
        w->state_dir = mem_printf("%s/state", w->rig.dir);
        w->away = mem_printf("%s/away", w->rig.dir);
        w->registry = rig_write(&w->rig, "registry.json", registry);
        w->rig.conf.state_dir = w->state_dir;
        w->rig.conf.registry_path = w->registry;
        w->rig.conf.helper_dir = mem_strdup(".");
        w->rig.conf.max_servers = 10;
        assert_ok(state_init(&w->rig.conf, &err));
        w->c.conf = &w->rig.conf;
        w->c.inotify = -1;
        assert_true(sd_event_new(&w->c.loop) >= 0);
}

static void world_deinit(struct world *w)
{
        inputs_stop(&w->c);
        sd_event_unref(w->c.loop);
        rig_deinit(&w->rig);
        free(w->state_dir);
        free(w->away);
        free(w->registry);
}

static void until_read(struct world *w)
{
        do
                assert_true(sd_event_run(w->c.loop, 20000000) > 0);
        while (w->c.reading);
}

static char *approve(struct world *w)
{
        json_object *approval = rig_approval(&w->rig, 1);

        json_object_object_del(approval, "expires_at");
        return rig_commit_record(&w->rig, approval, w->rig.key);
}

static bool may_run(const struct world *w)
{
        const struct desired_server *s = desired_find(w->c.desired, "github");

        assert_non_null(s);
        return s->may_run;
}

static bool may_stay(const struct world *w)
{
        return desired_find(w->c.desired, "github")->may_stay;
}

/* The state cannot be written (a full disk): nothing starts by what could be forgotten, and a revocation counts all the same. */
static void test_revocation_on_a_full_disk(_unused_ void **state)
{
        struct world w;
        struct err *err = NULL;

        world_init(&w);
        free(approve(&w));
        assert_ok(inputs_start(&w.c, &err));
        until_read(&w);
        assert_null(w.c.view_error);
        assert_true(may_run(&w));

        assert_int_equal(rename(w.state_dir, w.away), 0);
        free(rig_commit_record(&w.rig, rig_record(&w.rig, "Revocation", 2), w.rig.key));
        inputs_reload(&w.c);
        until_read(&w);
        assert_non_null(w.c.view_error);
        assert_false(may_run(&w));
        assert_false(may_stay(&w));

        /* room again: it is remembered, though nothing changed in the repository */
        assert_int_equal(rename(w.away, w.state_dir), 0);
        inputs_reload(&w.c);
        until_read(&w);
        assert_null(w.c.view_error);
        struct forge_state *saved = NULL;
        assert_ok(state_load_forge(&saved, &w.rig.conf, &err));
        assert_int_equal(strv_len(saved->revoked), 1);
        forge_state_free(saved);
        world_deinit(&w);
}

static void test_approval_on_a_full_disk(_unused_ void **state)
{
        struct world w;
        struct err *err = NULL;

        world_init(&w);
        free(rig_commit_record(&w.rig, rig_record(&w.rig, "Revocation", 1), w.rig.key));
        assert_ok(inputs_start(&w.c, &err));
        until_read(&w);
        assert_int_equal(rename(w.state_dir, w.away), 0);
        json_object *approval = rig_approval(&w.rig, 2);
        json_object_object_del(approval, "expires_at");
        free(rig_commit_record(&w.rig, approval, w.rig.key));
        inputs_reload(&w.c);
        until_read(&w);
        assert_non_null(w.c.view_error);
        assert_false(may_run(&w));
        /* and it is not taken for remembered at the next look */
        inputs_reload(&w.c);
        until_read(&w);
        assert_false(may_run(&w));
        assert_int_equal(rename(w.away, w.state_dir), 0);
        inputs_reload(&w.c);
        until_read(&w);
        assert_true(may_run(&w));
        world_deinit(&w);
}

/* A repository that cannot be read any more is no reason to start or to stop anything. */
static void test_unreadable_repository(_unused_ void **state)
{
        struct world w;
        struct err *err = NULL;

        world_init(&w);
        _cleanup_free_ char *elsewhere = mem_printf("%s/elsewhere.git", w.rig.dir);
        free(approve(&w));
        assert_ok(inputs_start(&w.c, &err));
        until_read(&w);
        assert_true(may_run(&w));

        assert_int_equal(rename(w.rig.conf.approvals_repository, elsewhere), 0);
        inputs_reload(&w.c);
        until_read(&w);
        assert_non_null(w.c.view_error);
        assert_false(may_run(&w));
        assert_true(may_stay(&w));

        assert_int_equal(rename(elsewhere, w.rig.conf.approvals_repository), 0);
        inputs_reload(&w.c);
        until_read(&w);
        assert_null(w.c.view_error);
        assert_true(may_run(&w));
        world_deinit(&w);
}

/* A reading that nobody asked for: the files' own news. */
static void until_noticed(struct world *w)
{
        assert_null(w->c.reading);
        while (!w->c.reading)
                assert_true(sd_event_run(w->c.loop, 2000000) > 0);
        until_read(w);
}

/* The repository's own files lie elsewhere in a checkout than in a bare repository. */
static void test_change_in_a_checkout_is_seen(_unused_ void **state)
{
        struct world w;
        struct err *err = NULL;

        world_init(&w);
        free(approve(&w));
        _cleanup_free_ char *bare = mem_strdup(w.rig.conf.approvals_repository), *checkout = mem_printf("%s/checkout", w.rig.dir),
                            *inner = mem_printf("%s/.git", checkout);
        assert_int_equal(mkdir(checkout, 0755), 0);
        assert_int_equal(rename(bare, inner), 0);
        mem_replace(&w.rig.conf.approvals_repository, mem_strdup(checkout));
        assert_ok(inputs_start(&w.c, &err));
        until_read(&w);
        assert_true(may_run(&w));

        mem_replace(&w.rig.conf.approvals_repository, mem_strdup(inner));
        free(rig_commit_record(&w.rig, rig_record(&w.rig, "Revocation", 2), w.rig.key));
        mem_replace(&w.rig.conf.approvals_repository, mem_strdup(checkout));
        until_noticed(&w);
        assert_false(may_stay(&w));
        world_deinit(&w);
}

/* The reference's directory comes with its first push: once that was found, it is watched. */
static void test_change_in_a_later_directory_is_seen(_unused_ void **state)
{
        struct world w;
        struct err *err = NULL;

        world_init(&w);
        free(approve(&w));
        _cleanup_free_ char *tip = rig_tip(&w.rig);
        mem_replace(&w.rig.conf.approvals_ref, mem_strdup("refs/heads/team/main"));
        assert_ok(inputs_start(&w.c, &err));
        until_read(&w);
        assert_null(w.c.view_error);
        assert_false(may_run(&w));
        rig_move_ref(&w.rig, tip);
        inputs_reload(&w.c);
        until_read(&w);
        assert_true(may_run(&w));

        free(rig_commit_record(&w.rig, rig_record(&w.rig, "Revocation", 2), w.rig.key));
        until_noticed(&w);
        assert_false(may_stay(&w));
        world_deinit(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_revocation_on_a_full_disk),
                cmocka_unit_test(test_approval_on_a_full_disk),
                cmocka_unit_test(test_unreadable_repository),
                cmocka_unit_test(test_change_in_a_checkout_is_seen),
                cmocka_unit_test(test_change_in_a_later_directory_is_seen),
        };
        sigset_t child;

        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        sigprocmask(SIG_BLOCK, &child, NULL);
        return cmocka_run_group_tests_name("inputs", tests, NULL, NULL);
}
