/*
 * Walks the Engine client through a real Engine: `engine_real SOCKET IMAGE`. IMAGE is name@sha256:… (or name:tag) in a registry that the
 * Engine reaches, with a `cat` in it. Prints "ok STEP" or "FAIL STEP: why" for each step, exit code 0 when none failed. Creates objects
 * named bh-engine-real-PID and removes them. Run by the rig against dockerd and Podman.
 */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "common/engine/engine.h"
#include "common/file.h"

#define LABEL "io.bulkhead.test.engine-real"

struct run {
        sd_event *loop;
        struct engine *engine;
        struct engine_events *events;
        const char *image;
        char *name; /* of the container, the network and the label's value */
        char *id;   /* of the container */
        int fd;     /* attached */
        unsigned n_lost;
        char **seen; /* actions of the events of our container */
        struct attach_frames frames;
        struct buf output;
        struct engine_waiter w;
        unsigned failed;
};

static void report(struct run *r, const char *step, bool ok, const char *why)
{
        printf("%s %s%s%s\n", ok ? "ok" : "FAIL", step, ok ? "" : ": ", ok ? "" : why);
        fflush(stdout);
        r->failed += !ok;
}

/* Waits for the call that was just started with r->w. *err is the caller's. */
static int await(struct run *r, struct err **err)
{
        return engine_waiter_wait(r->engine, &r->w, err);
}

static struct engine_waiter *fresh(struct run *r)
{
        engine_waiter_deinit(&r->w);
        return &r->w;
}

static bool want_ok(struct run *r, const char *step)
{
        _cleanup_err_ struct err *err = NULL;
        bool ok = await(r, &err) == 0;

        report(r, step, ok, err_msg(err));
        return ok;
}

static void want_error(struct run *r, const char *step, enum err_code code)
{
        _cleanup_err_ struct err *err = NULL;
        int result = await(r, &err);
        _cleanup_free_ char *why = mem_printf("wanted error %d, got %d: %s", code, result < 0 ? (int)err_code(err) : 0, err_msg(err));

        report(r, step, result < 0 && err_code(err) == code, why);
}

static int run_until(struct run *r, bool (*reached)(struct run *), unsigned ms)
{
        for (unsigned i = 0; i < ms / 10 && !reached(r); i++)
                if (sd_event_run(r->loop, 10000) < 0)
                        return -1;
        return reached(r) ? 0 : -1;
}

/* -- steps --------------------------------------------------------------------------------------------------------------------- */

static void on_event(json_object *event, void *user)
{
        struct run *r = user;
        const char *name = json_str(json_path(event, "Actor", "Attributes", NULL), "name"), *action = json_str(event, "Action");

        /* By name: "create" comes before the answer with the id. */
        if (name && action && str_eq(name, r->name))
                r->seen = strv_append(r->seen, action);
}

static void on_lost(void *user)
{
        ((struct run *)user)->n_lost++;
}

static bool subscribed(struct run *r)
{
        return r->n_lost > 0;
}

static void step_events(struct run *r)
{
        _cleanup_err_ struct err *err = NULL;
        int result = engine_events_new(&r->events, r->engine, NULL, on_event, on_lost, NULL, r, &err);

        report(r, "subscribe to events", result == 0 && run_until(r, subscribed, 3000) == 0, err_msg(err));
}

/* progress and done get the same user. */
struct pulling {
        struct engine_waiter w; /* first: it is what engine_waiter_done() sees */
        unsigned n_progress;
};

static void on_progress(_unused_ uint64_t current, _unused_ uint64_t total, _unused_ const char *status, void *user)
{
        ((struct pulling *)user)->n_progress++;
}

static bool step_pull(struct run *r)
{
        struct engine_waiter *w = fresh(r);
        struct pulling p = {0};
        _cleanup_free_ char *missing = mem_printf("%.*s@sha256:%064d", (int)strcspn(r->image, "@"), r->image, 1);

        engine_image_pull(r->engine, NULL, missing, NULL, 0, 60000, NULL, engine_waiter_done, w);
        want_error(r, "pull of a digest that does not exist", ERR_NOT_FOUND);
        w = fresh(r);
        engine_image_pull(r->engine, NULL, r->image, NULL, 10, 60000, NULL, engine_waiter_done, w);
        want_error(r, "pull over the size limit", ERR_LIMIT);
        w = fresh(r);
        engine_image_pull(r->engine, NULL, "no-digest-and-no-tag", NULL, 0, 60000, NULL, engine_waiter_done, w);
        want_error(r, "pull without digest or tag", ERR_INVALID);
        engine_image_pull(r->engine, NULL, r->image, NULL, 0, 120000, on_progress, engine_waiter_done, &p);
        while (!p.w.finished && sd_event_run(r->loop, UINT64_MAX) >= 0)
                ;
        (void)fresh(r);
        r->w = p.w;
        report(r, "progress of the pull", p.n_progress > 0, "none came");
        if (!want_ok(r, "pull"))
                return false;
        w = fresh(r);
        engine_image_inspect(r->engine, r->image, engine_waiter_done, w);
        return want_ok(r, "inspect the image");
}

static json_object *network_body(struct run *r)
{
        json_object *o = json_object_new_object(), *labels = json_object_new_object();

        json_add_str(labels, LABEL, r->name);
        json_add_str(o, "Name", r->name);
        json_add_str(o, "Driver", "bridge");
        json_add_bool(o, "CheckDuplicate", true);
        json_add_bool(o, "Internal", true);
        json_add(o, "Labels", labels);
        return o;
}

static void step_network(struct run *r)
{
        _cleanup_json_ json_object *body = network_body(r);
        _cleanup_free_ char *id = NULL, *prefix = NULL;

        engine_network_create(r->engine, body, engine_waiter_done, fresh(r));
        if (!want_ok(r, "create a network"))
                return;
        id = mem_strdup(json_str(r->w.body, "Id"));
        engine_network_create(r->engine, body, engine_waiter_done, fresh(r));
        want_error(r, "create it again: conflict", ERR_CONFLICT);
        engine_network_list(r->engine, LABEL, r->name, engine_waiter_done, fresh(r));
        if (want_ok(r, "list networks by label"))
                report(r, "one network has the label", json_object_array_length(r->w.body) == 1, "not one");
        engine_network_inspect(r->engine, r->name, engine_waiter_done, fresh(r));
        (void)want_ok(r, "inspect the network by name");
        prefix = mem_strndup(id, 12);
        engine_network_inspect(r->engine, prefix, engine_waiter_done, fresh(r));
        want_error(r, "the beginning of its id is not its name", ERR_NOT_FOUND);
}

static json_object *ulimits(void)
{
        static const char *const names[] = {"nofile", "nproc"};
        json_object *list = json_object_new_array();

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                json_object *o = json_object_new_object();
                json_add_str(o, "Name", names[i]);
                json_add_int(o, "Soft", 1024);
                json_add_int(o, "Hard", 1024);
                json_object_array_add(list, o);
        }
        return list;
}

static json_object *container_body(struct run *r)
{
        json_object *o = json_object_new_object(), *host = json_object_new_object(), *labels = json_object_new_object();
        char *argv[] = {(char *)"cat", NULL};

        json_add_str(labels, LABEL, r->name);
        json_add_str(o, "Image", r->image);
        json_add(o, "Entrypoint", json_from_strv(argv));
        json_add(o, "Labels", labels);
        json_add_bool(o, "OpenStdin", true);
        json_add_bool(o, "StdinOnce", true);
        json_add_bool(o, "AttachStdin", true);
        json_add_bool(o, "AttachStdout", true);
        json_add_bool(o, "AttachStderr", true);
        json_add_str(host, "NetworkMode", r->name);
        json_add_bool(host, "ReadonlyRootfs", true);
        json_add(host, "Ulimits", ulimits()); /* Podman's default is above what a test machine may have */
        json_add(o, "HostConfig", host);
        return o;
}

static bool step_create(struct run *r)
{
        _cleanup_json_ json_object *body = container_body(r);

        engine_container_create(r->engine, r->name, NULL, body, engine_waiter_done, fresh(r));
        if (!want_ok(r, "create a container"))
                return false;
        r->id = mem_strdup(json_str(r->w.body, "Id"));
        engine_container_create(r->engine, r->name, NULL, body, engine_waiter_done, fresh(r));
        want_error(r, "create it again: the name is taken", ERR_CONFLICT);
        engine_container_list(r->engine, LABEL, r->name, engine_waiter_done, fresh(r));
        if (want_ok(r, "list containers by label"))
                report(r, "one container has the label", json_object_array_length(r->w.body) == 1, "not one");
        return true;
}

struct attached {
        bool finished;
        int fd;
        enum err_code code;
        char *why;
        size_t n_early;
};

static void on_attached(int fd, const void *early, size_t n_early, struct err *err, void *user)
{
        struct attached *a = user;

        (void)early;
        *a = (struct attached){
                .finished = true, .fd = fd, .n_early = n_early, .code = err ? err_code(err) : 0, .why = mem_strdup(err_msg(err))};
}

static struct attached attach(struct run *r, const char *id)
{
        struct attached a = {.fd = -1};

        engine_container_attach(r->engine, NULL, id, on_attached, &a);
        while (!a.finished)
                if (sd_event_run(r->loop, UINT64_MAX) < 0)
                        break;
        return a;
}

static void on_chunk(int stream, const void *data, size_t n, void *user)
{
        struct run *r = user;

        if (stream == 1)
                buf_add(&r->output, data, n);
}

/* Writes a line into the container and reads until it came back. */
static bool echo(struct run *r, const char *line)
{
        char piece[512];
        struct pollfd p = {.fd = r->fd, .events = POLLIN};

        if (fd_write_all(r->fd, line, strlen(line), NULL) < 0)
                return false;
        while (!(r->output.data && strstr(r->output.data, line))) {
                ssize_t n;
                if (poll(&p, 1, 5000) != 1 || (n = read(r->fd, piece, sizeof(piece))) <= 0)
                        return false;
                if (attach_frames_feed(&r->frames, piece, (size_t)n, on_chunk, r, NULL) < 0)
                        return false;
        }
        return true;
}

static bool saw_start(struct run *r)
{
        return strv_contains(r->seen, "create") && strv_contains(r->seen, "start");
}

static void step_run(struct run *r)
{
        struct attached none = attach(r, "bh-engine-real-none"), a;

        report(r, "attach to nothing: not found", none.fd < 0 && none.code == ERR_NOT_FOUND, none.why);
        free(none.why);
        a = attach(r, r->id);
        r->fd = a.fd;
        report(r, "attach before start", a.fd >= 0, a.why);
        free(a.why);
        engine_container_start(r->engine, r->id, engine_waiter_done, fresh(r));
        (void)want_ok(r, "start");
        engine_container_start(r->engine, r->id, engine_waiter_done, fresh(r));
        (void)want_ok(r, "start again: already so");
        report(r, "a line comes back through the stream", r->fd >= 0 && echo(r, "over the bulkhead\n"), "it did not");
        engine_container_inspect(r->engine, r->id, engine_waiter_done, fresh(r));
        if (want_ok(r, "inspect"))
                report(r, "it runs", str_eq(json_str(json_get(r->w.body, "State"), "Status"), "running"), "it does not");
        report(r, "events of create and start came", run_until(r, saw_start, 5000) == 0, "they did not");
}

static void step_remove(struct run *r)
{
        struct engine_waiter second = {0};
        _cleanup_err_ struct err *err = NULL;

        engine_network_remove(r->engine, r->name, engine_waiter_done, fresh(r));
        (void)want_ok(r, "remove the network under a running container");
        engine_network_remove(r->engine, r->name, engine_waiter_done, fresh(r));
        (void)want_ok(r, "remove the network again: gone");
        engine_container_stop(r->engine, r->id, 0, engine_waiter_done, fresh(r));
        (void)want_ok(r, "stop");
        engine_container_stop(r->engine, r->id, 0, engine_waiter_done, fresh(r));
        (void)want_ok(r, "stop again: already so");
        engine_container_remove(r->engine, r->id, engine_waiter_done, fresh(r));
        engine_container_remove(r->engine, r->id, engine_waiter_done, &second);
        (void)want_ok(r, "remove the container");
        report(r, "remove it at the same time", engine_waiter_wait(r->engine, &second, &err) == 0, err_msg(err));
        engine_waiter_deinit(&second);
        engine_container_inspect(r->engine, r->id, engine_waiter_done, fresh(r));
        want_error(r, "it is gone", ERR_NOT_FOUND);
}

static void step_many(struct run *r)
{
        enum { N = 200 };
        struct engine_waiter *w = mem_alloc(N * sizeof(*w));
        unsigned ok = 0;
        uint64_t before, after;

        sd_event_now(r->loop, CLOCK_MONOTONIC, &before);
        for (unsigned i = 0; i < N; i++)
                engine_container_list(r->engine, LABEL, NULL, engine_waiter_done, &w[i]);
        for (unsigned i = 0; i < N; i++) {
                ok += engine_waiter_wait(r->engine, &w[i], NULL) == 0;
                engine_waiter_deinit(&w[i]);
        }
        sd_event_now(r->loop, CLOCK_MONOTONIC, &after);
        report(r, "200 calls at once", ok == N, "some failed");
        printf("   %.0f us a call\n", (double)(after - before) / N);
        free(w);
}

static void clean_up(struct run *r)
{
        if (r->fd >= 0)
                close(r->fd);
        engine_container_remove(r->engine, r->name, engine_waiter_done, fresh(r));
        (void)!engine_waiter_wait(r->engine, &r->w, NULL);
        engine_network_remove(r->engine, r->name, engine_waiter_done, fresh(r));
        (void)!engine_waiter_wait(r->engine, &r->w, NULL);
        (void)fresh(r);
        engine_events_free(r->events);
        engine_free(r->engine);
        sd_event_unref(r->loop);
        strv_free(r->seen);
        buf_deinit(&r->output);
        free(r->name);
        free(r->id);
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        struct run r = {.fd = -1};

        if (argc != 3) {
                fprintf(stderr, "usage: %s SOCKET IMAGE\n", argv[0]);
                return 2;
        }
        r.image = argv[2];
        r.name = mem_printf("bh-engine-real-%d", getpid());
        if (sd_event_new(&r.loop) < 0 || engine_new(&r.engine, r.loop, argv[1], &err) < 0) {
                fprintf(stderr, "%s\n", err_msg(err));
                return 2;
        }
        step_events(&r);
        if (step_pull(&r)) {
                step_network(&r);
                if (step_create(&r)) {
                        step_run(&r);
                        step_remove(&r);
                        step_many(&r);
                }
        }
        /* At the end: an Engine that is slow to come up has said by now who it is. */
        printf("   Engine %s%s, API 1.%u\n", engine_version(r.engine), engine_is_podman(r.engine) ? " (Podman)" : "",
               engine_api_minor(r.engine));
        clean_up(&r);
        printf("%u failed\n", r.failed);
        return r.failed > 0;
}
