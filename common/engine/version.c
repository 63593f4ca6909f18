#include <stdio.h>

#include "common/engine/internal.h"

/* "1.41" -> 41; 0 when it is not one. */
static unsigned parse_minor(const char *s)
{
        unsigned minor = 0;
        int n = 0;

        if (!s || strlen(s) > 8 || sscanf(s, "1.%u%n", &minor, &n) != 1 || s[n] != '\0' || minor > 9999)
                return 0;
        return minor;
}

static bool names_podman(json_object *body)
{
        json_object *list = json_get(body, "Components");

        if (!json_object_is_type(list, json_type_array))
                return false;
        for (size_t i = 0; i < json_object_array_length(list); i++) {
                const char *name = json_str(json_object_array_get_idx(list, i), "Name");
                if (name && str_has_prefix(name, "Podman"))
                        return true;
        }
        return false;
}

static int choose(struct engine *e, json_object *body, struct err **err)
{
        const char *version = json_str(body, "Version");
        unsigned newest = parse_minor(json_str(body, "ApiVersion"));
        unsigned oldest = parse_minor(json_str(body, "MinAPIVersion"));

        if (!version || newest == 0)
                return err_set(err, ERR_INVALID, "what answers at %s is no container engine: /version has no Version and ApiVersion",
                               e->socket_path);
        if (newest < ENGINE_API_FLOOR)
                return err_set(
                        err, ERR_UNAVAILABLE,
                        "the Engine at %s (%.40s) speaks API 1.%u, and 1.%d (Docker 20.10) is the oldest that is supported: upgrade it",
                        e->socket_path, version, newest, ENGINE_API_FLOOR);
        if (oldest > ENGINE_API_NEWEST)
                return err_set(err, ERR_UNAVAILABLE,
                               "the Engine at %s (%.40s) speaks API 1.%u and newer only, and this program 1.%d at most: upgrade bulkhead",
                               e->socket_path, version, oldest, ENGINE_API_NEWEST);
        e->minor = MIN(newest, (unsigned)ENGINE_API_NEWEST);
        mem_replace(&e->version, mem_strndup(version, 64));
        e->podman = names_podman(body);
        return 0;
}

/* Those that were waiting when the version could not be had fail with it; what their owners start meanwhile gets its own try. */
static void fail_waiting(struct engine *e, const struct err *why)
{
        uint64_t until = e->serial;
        struct engine_call *c;

        engine_hold(e);
        for (c = e->calls; c;) {
                if (c->state == CALL_WAITING && !c->unversioned && c->serial <= until) {
                        struct err *err = err_dup(why);
                        if (!str_has_prefix(err_msg(err), c->what))
                                (void)err_wrap(&err, "%s", c->what);
                        call_finish(c, 0, NULL, err);
                        if (e->dead)
                                break;
                        c = e->calls; /* anything may have changed */
                } else
                        c = c->next;
        }
        (void)engine_release(e);
}

static void on_version(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct engine *e = user;
        _cleanup_err_ struct err *why = err ? err_dup(err) : NULL;

        e->version_call = NULL;
        if (!why && choose(e, body, &why) == 0) {
                e->negotiated = true;
                engine_kick(e);
                return;
        }
        e->negotiated = false;
        fail_waiting(e, why);
}

void version_start(struct engine *e)
{
        struct engine_request request = {.method = "GET", .path = "/version", .timeout_ms = 10000, .max_answer = 64U << 10};

        e->version_call = call_new(e, &request, on_version, e);
        e->version_call->unversioned = true;
        call_enqueue(e->version_call);
}
