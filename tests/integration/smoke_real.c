/*
 * smoke_real [OPTION...] SOCKET IMAGE TRANSPORT [ARG...]: makes one smoke test on a real Engine and prints the result as JSON, for the rig.
 * IMAGE is there already, "host/name@sha256:…"; ARGs are the server's arguments. Exit: 0 passed, 2 failed the test, 1 the test could not be
 * made.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "common/smoke/smoke.h"

struct options {
        const char *subnet, *port, *path, *call, *secret, *timeout, *max_output, *helpers, *cancel_after, *env;
        const char *socket, *image, *transport;
        char **args;
};

struct run {
        sd_event *loop;
        struct smoke *smoke;
        unsigned calls;
        int code;
};

static const struct option known[] = {
        {"subnet", required_argument, NULL, 's'},
        {"port", required_argument, NULL, 'p'},
        {"path", required_argument, NULL, 'P'},
        {"call", required_argument, NULL, 'c'},
        {"secret", required_argument, NULL, 'S'},
        {"timeout", required_argument, NULL, 't'},
        {"max-output", required_argument, NULL, 'm'},
        {"helpers", required_argument, NULL, 'H'},
        {"env", required_argument, NULL, 'e'},
        {"cancel-after", required_argument, NULL, 'x'},
        {NULL, 0, NULL, 0},
};

static int take_options(struct options *o, int argc, char **argv)
{
        int c;

        *o = (struct options){.subnet = "10.213.255.240/29", .timeout = "20000", .max_output = "4194304", .helpers = "."};
        while ((c = getopt_long(argc, argv, "+", known, NULL)) != -1) {
                const char **slot = c == 's'   ? &o->subnet
                                    : c == 'p' ? &o->port
                                    : c == 'P' ? &o->path
                                    : c == 'c' ? &o->call
                                    : c == 'S' ? &o->secret
                                    : c == 't' ? &o->timeout
                                    : c == 'm' ? &o->max_output
                                    : c == 'H' ? &o->helpers
                                    : c == 'x' ? &o->cancel_after
                                    : c == 'e' ? &o->env
                                               : NULL;
                if (!slot)
                        return -1;
                *slot = optarg;
        }
        if (argc - optind < 3)
                return -1;
        o->socket = argv[optind];
        o->image = argv[optind + 1];
        o->transport = argv[optind + 2];
        o->args = argv + optind + 3;
        return 0;
}

static json_object *entry_json(const struct options *o, struct err **err)
{
        json_object *e = json_object_new_object(), *call = NULL, *test = NULL, *secrets = NULL, *env = NULL;
        const char *value = o->env ? strchr(o->env, '=') : NULL;

        json_add_bool(e, "enabled", true);
        json_add_str(e, "source", "docker_image");
        json_add_str(e, "image", o->image);
        json_add_str(e, "transport", o->transport);
        if (o->args[0])
                json_add(e, "args", json_from_strv(o->args));
        if (o->port)
                json_add_int(e, "port", strtol(o->port, NULL, 10));
        json_add_str(e, "path", o->path);
        if (value) {
                _cleanup_free_ char *name = mem_strndup(o->env, (size_t)(value - o->env));
                env = json_object_new_object();
                json_add_str(env, name, value + 1);
                json_add(e, "env", env);
        }
        if (o->secret) {
                secrets = json_object_new_array();
                json_object_array_add(secrets, json_object_new_string(o->secret));
                json_add(e, "secrets", secrets);
        }
        if (o->call && json_parse(&call, o->call, strlen(o->call), "--call", NULL, err) == 0) {
                test = json_object_new_object();
                json_add(test, "call", call);
                json_add(e, "smoke_test", test);
        }
        return e;
}

static void on_done(struct smoke_result *result, struct err *err, void *user)
{
        struct run *r = user;

        r->smoke = NULL;
        if (++r->calls > 1)
                abort();
        if (err) {
                fprintf(stderr, "%s\n", err_msg(err));
                r->code = 1;
        } else {
                json_object *o = smoke_result_to_json(result);
                puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
                json_object_put(o);
                r->code = result->passed ? 0 : 2;
        }
        smoke_result_free(result);
        sd_event_exit(r->loop, 0);
}

static void on_ready(struct smoke *s, const char *bridge, const char *address, _unused_ void *user)
{
        fprintf(stderr, "before the start: bridge %s, address %s\n", bridge, address);
        smoke_continue(s, NULL);
}

static int on_after_cancel(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct run *r = user;

        return sd_event_exit(r->loop, 0);
}

/* Goes on for a while: what the Engine still answers must find nobody. */
static int on_cancel(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct run *r = user;

        r->smoke = smoke_cancel(r->smoke);
        r->code = 3;
        return sd_event_add_time_relative(r->loop, NULL, CLOCK_MONOTONIC, 1000000, 0, on_after_cancel, r);
}

static int make_test(struct run *r, struct engine *engine, const struct options *o, const struct conf *conf,
                     const struct registry_entry *entry, struct err **err)
{
        _cleanup_(image_facts_freep) struct image_facts *image = NULL;
        _cleanup_(spec_freep) struct spec *spec = NULL;
        _cleanup_json_ json_object *inspect = NULL;
        _cleanup_free_ char *escaped = engine_escape(o->image), *path = mem_printf("/images/%s/json", escaped);
        const struct engine_request request = {.method = "GET", .path = path};

        if (engine_wait(engine, &request, NULL, &inspect, err) < 0 || image_facts_from_inspect(&image, inspect, o->image, err) < 0 ||
            spec_build(&spec, entry, image, err) < 0)
                return -1;
        const struct smoke_request wish = {.entry = entry, .image = image, .spec = spec, .subnet = o->subnet, .owner = conf->audience};
        if (smoke_start(&r->smoke, r->loop, engine, conf, &wish, on_ready, on_done, r, err) < 0)
                return -1;
        if (o->cancel_after &&
            sd_event_add_time_relative(r->loop, NULL, CLOCK_MONOTONIC, strtoull(o->cancel_after, NULL, 10) * 1000, 0, on_cancel, r) < 0)
                return err_set(err, ERR_INTERNAL, "no timer");
        return sd_event_loop(r->loop) < 0 ? err_set(err, ERR_INTERNAL, "the event loop failed") : 0;
}

static int run(struct run *r, const struct options *o, struct err **err)
{
        _cleanup_(engine_freep) struct engine *engine = NULL;
        _cleanup_(registry_entry_freep) struct registry_entry *entry = NULL;
        _cleanup_strv_ char **registries = NULL;
        _cleanup_free_ char *host = mem_strndup(o->image, strcspn(o->image, "/"));
        _cleanup_json_ json_object *json = entry_json(o, err);
        struct conf conf = {.audience = (char *)"smoke-real",
                            .smoke_timeout_ms = strtoull(o->timeout, NULL, 10),
                            .smoke_max_output = strtoull(o->max_output, NULL, 10),
                            .helper_dir = (char *)(uintptr_t)o->helpers};

        conf.allowed_registries = registries = strv_append(registries, host);
        if (registry_entry_parse(&entry, "smoked", json, "smoke_real", &conf, err) < 0)
                return -1;
        if (engine_new(&engine, r->loop, o->socket, err) < 0)
                return -1;
        return make_test(r, engine, o, &conf, entry, err);
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        struct options o;
        struct run r = {.code = 1};

        if (take_options(&o, argc, argv) < 0) {
                fputs("usage: smoke_real [--subnet S] [--port N] [--path P] [--call JSON] [--secret NAME] [--timeout MS] [--max-output N]\n"
                      "                  [--env NAME=VALUE] [--helpers DIR] [--cancel-after MS] SOCKET IMAGE TRANSPORT [ARG...]\n",
                      stderr);
                return 64;
        }
        /* sd-event collects children only where their signal waits for it. */
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        if (sigprocmask(SIG_BLOCK, &child, NULL) < 0 || sd_event_new(&r.loop) < 0)
                return 1;
        if (run(&r, &o, &err) < 0)
                fprintf(stderr, "smoke_real: %s\n", err_msg(err));
        sd_event_unref(r.loop);
        return r.code;
}
