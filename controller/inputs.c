#include "controller/controller.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

/* Editors and git write a file in several steps: wait until they are through, but not longer than a revocation may take. */
#define SETTLE_US 30000
#define RETRY_US  2000000

time_t inputs_now(const struct controller *c)
{
        const struct forge_view *view = c->view ? c->view->value : NULL;
        time_t floor = view && view->next ? view->next->time_floor : c->initial_state ? c->initial_state->time_floor : 0;

        return MAX(time(NULL), floor);
}

static void free_registry(void *p)
{
        registry_free(p);
}

static void free_view(void *p)
{
        forge_view_free(p);
}

static int on_expiry(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        inputs_judge(user);
        return 0;
}

/* Wakes when the next approval ends. A clock that was set is noticed by the resync. */
static void watch_expiry(struct controller *c)
{
        uint64_t at = (uint64_t)c->desired->next_expiry * 1000000;

        c->expiry_timer = sd_event_source_disable_unref(c->expiry_timer);
        if (at && sd_event_add_time(c->loop, &c->expiry_timer, CLOCK_REALTIME, at, 1000, on_expiry, c) < 0)
                log_warning("no timer for the next expiry: it is seen at the resync after it");
}

void inputs_judge(struct controller *c)
{
        if (!c->registry || !c->view) {
                pass_request(c, 0, false); /* an approval may have ended all the same */
                return;
        }
        bool external = desired_has_external(c->desired);
        desired_unref(c->desired);
        c->desired = desired_new(c->conf, c->registry, c->view, inputs_now(c));
        watch_expiry(c);
        broker_tell(c, true);
        /* What the broker may no longer connect to has no network that would take the permission along: only a full pass looks for it. */
        pass_request(c, 0, external);
}

static void load_registry(struct controller *c)
{
        _cleanup_err_ struct err *err = NULL;
        struct registry *r = NULL;

        if (registry_load(&r, c->conf->registry_path, c->conf, &err) < 0) {
                if (!str_eq(c->registry_error, err_msg(err)))
                        log_error("the registry is not usable, the last good one stays in force", "reason", err_msg(err));
                mem_replace(&c->registry_error, mem_strdup(err_msg(err)));
                return;
        }
        if (r->n_entries > c->conf->max_servers) {
                mem_replace(&c->registry_error, mem_printf("%s declares %zu servers, more than controller.max_servers = %u",
                                                           c->conf->registry_path, r->n_entries, c->conf->max_servers));
                registry_free(r);
                return;
        }
        mem_replace(&c->registry_error, NULL);
        c->registry_loaded_at = time(NULL);
        shared_unref(c->registry);
        c->registry = shared_new(r, free_registry);
}

static const struct forge_state *state_of(const struct controller *c)
{
        const struct forge_view *view = c->view ? c->view->value : NULL;

        return view ? view->next : c->initial_state;
}

/* What was accepted is on disk before anything is done because of it. */
static int accept_view(struct controller *c, struct forge_view *view, struct err **err)
{
        _cleanup_json_ json_object *before = forge_state_to_json(state_of(c)), *after = forge_state_to_json(view->next);

        if (!c->state_unsaved && json_object_equal(before, after))
                return 0;
        c->state_unsaved = true;
        if (state_save_forge(c->conf, view->next, err) < 0)
                return err_wrap(err, "cannot remember what was approved");
        c->state_unsaved = false;
        return 0;
}

static void read_approvals(struct controller *c);

/* An unreadable repository is a refused one: what runs by the last good reading stays, nothing starts. Tried again soon. */
static void approvals_failed(struct controller *c, const struct err *problem)
{
        struct forge_view *view = c->view ? c->view->value : NULL;

        if (!str_eq(c->view_error, err_msg(problem)))
                log_error("the approvals cannot be taken in: nothing new starts", "reason", err_msg(problem));
        mem_replace(&c->view_error, mem_strdup(err_msg(problem)));
        c->fingerprint[0] = '\0';
        if (view && !view->refused) {
                view->refused = mem_strdup(err_msg(problem));
                inputs_judge(c);
        }
        if (c->watch_timer && sd_event_source_set_time_relative(c->watch_timer, RETRY_US) >= 0)
                sd_event_source_set_enabled(c->watch_timer, SD_EVENT_ONESHOT);
}

static void on_view(struct forge_view *view, struct err *err, void *user)
{
        struct controller *c = user;
        _cleanup_err_ struct err *problem = NULL;

        c->reading = NULL;
        if (!view)
                problem = err_dup(err);
        else if (accept_view(c, view, &problem) < 0 && !view->refused)
                /* Nothing starts by what could be forgotten. What it revokes ends all the same, full disk or not. */
                view->refused = mem_strdup(err_msg(problem));
        if (view) {
                const struct forge_view *before = c->view ? c->view->value : NULL;
                if (view->refused && !str_eq(view->refused, before ? before->refused : NULL))
                        log_error("the approvals' history is refused: nothing new starts", "reason", view->refused, "commit", view->commit);
                if (!problem)
                        mem_replace(&c->view_error, NULL);
                shared_unref(c->view);
                c->view = shared_new(view, free_view);
                c->initial_state = forge_state_free(c->initial_state);
                inputs_judge(c);
        }
        if (problem)
                approvals_failed(c, problem);
        if (c->read_again) {
                c->read_again = false;
                read_approvals(c);
        }
}

static void read_approvals(struct controller *c)
{
        _cleanup_err_ struct err *err = NULL;
        char fingerprint[SHA256_HEX] = "";

        if (c->reading) {
                c->read_again = true;
                return;
        }
        if (!state_of(c)) {
                struct forge_state *state = NULL;
                if (state_load_forge(&state, c->conf, &err) < 0) {
                        if (!str_eq(c->view_error, err_msg(err)))
                                log_error("nothing starts", "reason", err_msg(err));
                        mem_replace(&c->view_error, mem_strdup(err_msg(err)));
                        return;
                }
                c->initial_state = state;
        }
        if (forge_fingerprint(fingerprint, c->conf, NULL) == 0 && c->view && str_eq(fingerprint, c->fingerprint))
                return;
        strcpy(c->fingerprint, fingerprint);
        if (forge_read_start(&c->reading, c->loop, c->conf, state_of(c), on_view, c, &err) < 0)
                approvals_failed(c, err);
}

/* A clock that is set back while we are down must not give an approval more than this of new life. */
#define FLOOR_STEP_S 600

void inputs_raise_floor(struct controller *c)
{
        struct forge_view *view = c->view ? c->view->value : NULL;
        _cleanup_err_ struct err *err = NULL;
        time_t now = time(NULL);

        if (!view || !view->next || now < view->next->time_floor + FLOOR_STEP_S)
                return;
        view->next->time_floor = now;
        if (state_save_forge(c->conf, view->next, &err) < 0)
                log_error("the time of day cannot be remembered", "reason", err_msg(err));
}

/* -- watching ------------------------------------------------------------------------------------------------------------- */

static bool watch_directory_of(const struct controller *c, const char *path)
{
        const uint32_t what = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_ONLYDIR;
        _cleanup_free_ char *dir = mem_strdup(path);
        char *slash = strrchr(dir, '/');

        if (slash && slash != dir)
                *slash = '\0';
        /* A directory that is not there yet is found by the resync. */
        if (inotify_add_watch(c->inotify, dir, what) >= 0 || errno == ENOENT)
                return true;
        if (!c->unwatched)
                log_warning("cannot watch a directory: changes there are seen at the next resync only", "directory", dir, "reason",
                            strerror(errno));
        return false;
}

/* Again with every reading: a directory may have come, or have been replaced. One that is watched already costs a call. */
static void watch_all(struct controller *c)
{
        const struct conf *conf = c->conf;
        _cleanup_free_ char *repository = NULL;

        if (c->inotify < 0)
                return;
        if (forge_directory(&repository, conf, NULL) < 0)
                repository = mem_strdup(conf->approvals_repository);
        _cleanup_free_ char *ref = mem_printf("%s/%s", repository, conf->approvals_ref), *packed = mem_printf("%s/packed-refs", repository);
        const char *const paths[] = {conf->registry_path, ref, packed, conf->allowed_signers, conf->revoked_keys};
        bool right = true;

        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                right &= !paths[i] || watch_directory_of(c, paths[i]);
        c->unwatched = !right;
}

void inputs_reload(struct controller *c)
{
        const struct shared *before = c->registry;

        watch_all(c);
        load_registry(c);
        if (c->registry != before)
                inputs_judge(c);
        read_approvals(c);
}

static int on_settled(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        inputs_reload(user);
        return 0;
}

static int on_inotify(_unused_ sd_event_source *s, int fd, _unused_ uint32_t revents, void *user)
{
        struct controller *c = user;
        char events[4096];

        while (read(fd, events, sizeof(events)) > 0)
                ;
        int on = SD_EVENT_OFF;
        if (sd_event_source_get_enabled(c->watch_timer, &on) >= 0 && on == SD_EVENT_OFF) {
                sd_event_source_set_time_relative(c->watch_timer, SETTLE_US);
                sd_event_source_set_enabled(c->watch_timer, SD_EVENT_ONESHOT);
        }
        return 0;
}

int inputs_start(struct controller *c, struct err **err)
{
        c->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (c->inotify < 0)
                return err_sys(err, errno, "cannot watch files");
        int r = sd_event_add_io(c->loop, &c->watch, c->inotify, EPOLLIN, on_inotify, c);
        if (r >= 0)
                r = sd_event_add_time_relative(c->loop, &c->watch_timer, CLOCK_MONOTONIC, 0, 1000, on_settled, c);
        if (r >= 0)
                r = sd_event_source_set_enabled(c->watch_timer, SD_EVENT_OFF);
        if (r < 0)
                return err_sys(err, r, "cannot watch files");
        inputs_reload(c);
        return 0;
}

void inputs_stop(struct controller *c)
{
        c->reading = spawn_cancel(c->reading);
        sd_event_source_disable_unref(c->watch);
        sd_event_source_disable_unref(c->watch_timer);
        sd_event_source_disable_unref(c->expiry_timer);
        if (c->inotify >= 0)
                close(c->inotify);
        c->desired = desired_unref(c->desired);
        c->registry = shared_unref(c->registry);
        c->view = shared_unref(c->view);
        forge_state_free(c->initial_state);
        free(c->registry_error);
        free(c->view_error);
}
