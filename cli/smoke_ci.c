#include "cli/smoke_ci.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define PULL_TIMEOUT_MS   (30 * 60 * 1000)
#define CLEAN_UPS         3
#define CLEAN_UP_PAUSE_MS 300
#define SUBNETS           32 /* at the pool's end, where the controller comes last */

struct ci {
        struct cli *c;
        const struct conf *conf;
        const struct registry_entry *entry;
        sd_event *loop;
        struct engine *engine;
        struct progress progress;
        struct smoke *smoke;
        struct engine_call *pull;
        const char *socket; /* the Engine's */
        char owner[80], subnet[INET_ADDRSTRLEN + 4];
        struct image_facts *image;
        struct spec *spec;
        struct smoke_result *result;
        struct err *err;
        bool interrupted;
};

static void finish(struct ci *ci, const struct err *err)
{
        if (err && !ci->err)
                ci->err = err_dup(err);
        sd_event_exit(ci->loop, 0);
}

static void on_smoke(struct smoke_result *result, struct err *err, void *user)
{
        struct ci *ci = user;

        ci->smoke = NULL;
        ci->result = result;
        finish(ci, err);
}

static void begin_test(struct ci *ci)
{
        const struct smoke_request request = {
                .entry = ci->entry, .image = ci->image, .spec = ci->spec, .subnet = ci->subnet, .owner = ci->owner};
        _cleanup_err_ struct err *err = NULL;

        progress_show(&ci->progress, "testing in quarantine", 0, 0);
        if (smoke_start(&ci->smoke, ci->loop, ci->engine, ci->conf, &request, NULL, on_smoke, ci, &err) < 0)
                finish(ci, err);
}

static void begin_external(struct ci *ci)
{
        _cleanup_err_ struct err *err = NULL;

        if (spec_build(&ci->spec, ci->entry, NULL, &err) < 0)
                finish(ci, err);
        else
                begin_test(ci);
}

/* Facts as the Engine tells them, as the controller takes them: asking the registry for more would give another container's hash. */
static void have_image(struct ci *ci, json_object *inspect)
{
        _cleanup_err_ struct err *err = NULL;

        if (image_facts_from_inspect(&ci->image, inspect, ci->entry->image, &err) < 0 ||
            spec_build(&ci->spec, ci->entry, ci->image, &err) < 0)
                finish(ci, err);
        else
                begin_test(ci);
}

static void on_pulled(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct ci *ci = user;

        ci->pull = NULL;
        if (err)
                finish(ci, err);
        else
                have_image(ci, body);
}

static void on_pull_progress(uint64_t current, uint64_t total, const char *status, void *user)
{
        struct ci *ci = user;

        progress_show(&ci->progress, status && *status ? status : "pulling", current, total);
}

static void on_inspected(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct ci *ci = user;

        if (err && err_code(err) == ERR_NOT_FOUND)
                engine_image_pull(ci->engine, &ci->pull, ci->entry->image, NULL, ci->conf->max_image_bytes, PULL_TIMEOUT_MS,
                                  on_pull_progress, on_pulled, ci);
        else if (err)
                finish(ci, err);
        else
                have_image(ci, body);
}

static int on_signal(_unused_ sd_event_source *s, const struct signalfd_siginfo *si, void *user)
{
        struct ci *ci = user;
        _cleanup_err_ struct err *err = NULL;

        err_set(&err, ERR_UNAVAILABLE, "interrupted by signal %u", si->ssi_signo);
        ci->interrupted = true;
        if (ci->pull)
                ci->pull = engine_call_cancel(ci->pull);
        if (ci->smoke)
                ci->smoke = smoke_cancel(ci->smoke);
        finish(ci, err);
        return 0;
}

/* A /29 at the end of the pool; which one follows from our pid, so that tests side by side seldom meet. */
static int choose_subnet(struct ci *ci, struct err **err)
{
        unsigned bits = 0;
        char address[INET_ADDRSTRLEN] = "", text[INET_ADDRSTRLEN];
        struct in_addr a;

        if (sscanf(ci->conf->pool, "%15[0-9.]/%u", address, &bits) != 2 || bits < 8 || bits > 29 || inet_pton(AF_INET, address, &a) != 1)
                return err_set(err, ERR_INVALID, "network.pool \"%s\" is not a network of at least 8 addresses", ci->conf->pool);
        uint32_t size = 1U << (32 - bits);
        uint32_t n = MIN(size / 8, (uint32_t)SUBNETS);
        a.s_addr = htonl(ntohl(a.s_addr) + size - 8 * (1 + (uint32_t)getpid() % n));
        if (!inet_ntop(AF_INET, &a, text, sizeof(text)))
                return err_set(err, ERR_INTERNAL, "writing an address");
        snprintf(ci->subnet, sizeof(ci->subnet), "%s/29", text);
        return 0;
}

/* The label is looked at here again: what the Engine lists must never decide alone what is removed. */
static void remove_all(struct engine *engine, const char *owner, const char *list, const char *query, const char *kind)
{
        _cleanup_json_ json_object *found = NULL;
        const struct engine_request request = {.method = "GET", .path = list, .query = query};
        int status;

        if (engine_wait(engine, &request, &status, &found, NULL) < 0 || !json_object_is_type(found, json_type_array))
                return;
        for (size_t i = 0; i < json_object_array_length(found); i++) {
                json_object *object = json_object_array_get_idx(found, i);
                const char *id = json_str(object, "Id");
                _cleanup_free_ char *path = mem_printf("/%s/%s", kind, id ? id : "");
                const struct engine_request del = {.method = "DELETE", .path = path, .query = kind[0] == 'c' ? "force=1&v=1" : NULL};
                _cleanup_json_ json_object *body = NULL;
                if (id && str_eq(json_str(json_get(object, "Labels"), LABEL_OWNER), owner))
                        (void)!engine_wait(engine, &del, &status, &body, NULL);
        }
}

/* After an interruption: what carries our label, which no other process uses. On a loop of its own, because the test's has ended. */
static void clean_up(const char *socket, const char *owner)
{
        _cleanup_free_ char *label = mem_printf(LABEL_OWNER "=%s", owner), *value = engine_filters("label", label);
        _cleanup_free_ char *filters = mem_printf("filters=%s", value), *all = mem_printf("all=1&%s", filters);
        _cleanup_(engine_freep) struct engine *engine = NULL;
        sd_event *loop = NULL;

        if (sd_event_new(&loop) < 0)
                return;
        /* More than once: what we asked the Engine for just before we were interrupted, it may make after our first look. */
        for (unsigned i = 0; engine_new(&engine, loop, socket, NULL) == 0 && i < CLEAN_UPS; i++) {
                remove_all(engine, owner, "/containers/json", all, "containers");
                remove_all(engine, owner, "/networks", filters, "networks");
                engine = engine_free(engine);
                poll(NULL, 0, CLEAN_UP_PAUSE_MS);
        }
        engine = engine_free(engine);
        sd_event_unref(loop);
}

static int start(struct ci *ci, struct err **err)
{
        int r = sd_event_new(&ci->loop);

        if (r < 0)
                return err_sys(err, r, "making an event loop");
        r = sd_event_add_signal(ci->loop, NULL, SIGINT, on_signal, ci);
        if (r >= 0)
                r = sd_event_add_signal(ci->loop, NULL, SIGTERM, on_signal, ci);
        if (r < 0)
                return err_sys(err, r, "watching for signals");
        if (ci->entry->source == SOURCE_URL) {
                begin_external(ci);
        } else if (choose_subnet(ci, err) < 0 || engine_new(&ci->engine, ci->loop, ci->socket, err) < 0) {
                return -1;
        } else {
                engine_image_inspect(ci->engine, ci->entry->image, on_inspected, ci);
        }
        r = sd_event_loop(ci->loop);
        return r < 0 ? err_sys(err, r, "running the event loop") : 0;
}

static void ci_deinit(struct ci *ci)
{
        engine_free(ci->engine);
        spec_free(ci->spec);
        image_facts_free(ci->image);
        smoke_result_free(ci->result);
        err_free(ci->err);
        sd_event_unref(ci->loop);
        if (ci->interrupted)
                clean_up(ci->socket, ci->owner);
}

int smoke_ci_run(struct cli *c, const char *engine_socket, const struct registry_entry *entry, struct image_facts **image,
                 struct smoke_result **smoke, struct err **err)
{
        _cleanup_(ci_deinit) struct ci ci = {.c = c, .conf = c->conf, .entry = entry};
        sigset_t mask;

        sigemptyset(&mask);
        sigaddset(&mask, SIGINT);
        sigaddset(&mask, SIGTERM);
        sigaddset(&mask, SIGCHLD); /* sd-event learns of ended helpers only so */
        sigprocmask(SIG_BLOCK, &mask, NULL);
        progress_init(&ci.progress, &c->errors);
        /* Never the host's own owner label: a running controller would take our container for an orphan of its own. */
        snprintf(ci.owner, sizeof(ci.owner), "ci-%ld-%.50s", (long)getpid(), c->conf->audience ? c->conf->audience : "none");
        ci.socket = engine_socket ? engine_socket : c->conf->engine_socket;
        int r = start(&ci, err);
        progress_end(&ci.progress);
        if (r < 0)
                return -1;
        if (ci.err || !ci.result)
                return ci.err ? err_move(err, TAKE_PTR(ci.err)) : err_set(err, ERR_INTERNAL, "the smoke test ended without a result");
        *image = TAKE_PTR(ci.image);
        *smoke = TAKE_PTR(ci.result);
        return 0;
}
