#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/smoke_internal.h"
#include "common/text.h"

int smoke_addresses(struct smoke *s, const char *subnet, struct err **err)
{
        const char *slash = subnet ? strchr(subnet, '/') : NULL;
        _cleanup_free_ char *base = slash ? mem_strndup(subnet, (size_t)(slash - subnet)) : NULL;
        struct in_addr a, host;
        long bits = slash ? strtol(slash + 1, NULL, 10) : 0;

        if (!base || inet_pton(AF_INET, base, &a) != 1 || bits < 8 || bits > 30 || (ntohl(a.s_addr) & ((1UL << (32 - bits)) - 1)) != 0)
                return err_set(err, ERR_INVALID, "a smoke test needs an IPv4 subnet like 10.213.0.8/29, not \"%s\"", subnet ? subnet : "");
        host.s_addr = htonl(ntohl(a.s_addr) + 1);
        inet_ntop(AF_INET, &host, s->gateway, sizeof(s->gateway));
        host.s_addr = htonl(ntohl(a.s_addr) + 2);
        inet_ntop(AF_INET, &host, s->address, sizeof(s->address));
        return 0;
}

static bool answered_well(struct smoke *s, struct err *err)
{
        if (err)
                smoke_fail(s, err_dup(err));
        return !err;
}

/* -- what there is ------------------------------------------------------------------------------------------------------------- */

static void on_info(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        if (!answered_well(s, err))
                return;
        s->info = json_object_get(body);
        smoke_next(s);
}

void smoke_read_info(struct smoke *s)
{
        engine_call_start(s->engine, NULL, &(struct engine_request){.method = "GET", .path = "/info"}, smoke_answered,
                          smoke_pending_new(s, &s->pending, on_info));
}

static void on_image(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        _cleanup_(image_facts_freep) struct image_facts *seen = NULL;
        struct err *problem = NULL;

        if (!answered_well(s, err))
                return;
        if (image_facts_from_inspect(&seen, body, s->request.entry->image, &problem) < 0 ||
            image_facts_compare(s->request.image, seen, &problem) < 0) {
                smoke_fail(s, problem);
                return;
        }
        s->image_inspect = json_object_get(body);
        smoke_next(s);
}

void smoke_read_image(struct smoke *s)
{
        engine_image_inspect(s->engine, s->request.entry->image, smoke_answered, smoke_pending_new(s, &s->pending, on_image));
}

/* -- the network --------------------------------------------------------------------------------------------------------------- */

static void on_network_made(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        if (!answered_well(s, err))
                return;
        mem_replace(&s->network_id, mem_strdup(json_str(body, "Id")));
        smoke_next(s);
}

void smoke_make_network(struct smoke *s)
{
        /* Internal: the Engine itself gives it no way out, whatever our own rules say; the host can still reach the server, which HTTP
         * needs. */
        const struct spec_network network = {
                .name = s->network,
                .bridge = s->bridge,
                .subnet = s->request.subnet,
                .gateway = s->gateway,
                .internal = true,
                .owner = s->request.owner,
                .server = s->request.entry->name,
                .spec = s->request.spec->hash,
                .role = ROLE_SMOKE,
        };
        _cleanup_json_ json_object *body = spec_network_body(&network);

        s->network_asked = true;
        engine_network_create(s->engine, body, smoke_answered, smoke_pending_new(s, &s->pending, on_network_made));
}

static void on_network_seen(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        json_object *configs = json_path(body, "IPAM", "Config", NULL), *config = NULL;
        struct err *problem = NULL;

        if (!answered_well(s, err))
                return;
        if (json_object_is_type(configs, json_type_array) && json_object_array_length(configs) == 1)
                config = json_object_array_get_idx(configs, 0);
        if (!str_eq(json_str(body, "Driver"), "bridge") || !json_flag(body, "Internal", false) || json_flag(body, "EnableIPv6", true) ||
            !str_eq(json_str(config, "Subnet"), s->request.subnet)) {
                err_set(&problem, ERR_CONFLICT, "the network %s is not the internal bridge for %s that was asked for", s->network,
                        s->request.subnet);
                smoke_fail(s, problem);
                return;
        }
        smoke_next(s);
}

void smoke_check_network(struct smoke *s)
{
        engine_network_inspect(s->engine, s->network, smoke_answered, smoke_pending_new(s, &s->pending, on_network_seen));
}

/* -- the container ------------------------------------------------------------------------------------------------------------- */

static struct spec_host host_of(const struct smoke *s)
{
        return (struct spec_host){.network = s->network,
                                  .address = s->address,
                                  .dns = s->gateway,
                                  .owner = s->request.owner,
                                  .role = ROLE_SMOKE,
                                  .server = s->request.entry->name,
                                  .extra_env = s->placeholders,
                                  .default_runtime = json_str(s->info, "DefaultRuntime"),
                                  .no_swap_limit = !json_flag(s->info, "SwapLimit", true)};
}

static void on_container_made(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        if (!answered_well(s, err))
                return;
        mem_replace(&s->container_id, mem_strdup(json_str(body, "Id")));
        smoke_next(s);
}

void smoke_make_container(struct smoke *s)
{
        const struct spec_host host = host_of(s);
        _cleanup_json_ json_object *body = spec_create_body(s->request.spec, &host);

        s->container_asked = true;
        engine_container_create(s->engine, s->container, NULL, body, smoke_answered, smoke_pending_new(s, &s->pending, on_container_made));
}

static void on_container_seen(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        _cleanup_(image_facts_freep) struct image_facts *image = NULL;
        _cleanup_strv_ char **drift = NULL;
        struct spec_host host = host_of(s);
        struct err *problem = NULL;

        if (!answered_well(s, err))
                return;
        if (image_facts_from_inspect(&image, s->image_inspect, s->request.entry->image, &problem) < 0) {
                smoke_fail(s, problem);
                return;
        }
        host.image = image;
        drift = spec_drift(s->request.spec, &host, body);
        if (drift) {
                _cleanup_free_ char *all = strv_join(drift, "; ");
                err_set(&problem, ERR_CONFLICT, "the Engine made another container than was asked for: %.1000s", all);
                smoke_fail(s, problem);
                return;
        }
        smoke_next(s);
}

void smoke_check_container(struct smoke *s)
{
        engine_container_inspect(s->engine, s->container_id, smoke_answered, smoke_pending_new(s, &s->pending, on_container_seen));
}

static void on_attached(int fd, _unused_ const void *early, size_t n_early, struct err *err, void *user)
{
        struct smoke *s = user;
        struct err *problem = NULL;

        s->attaching = NULL;
        s->stream = fd;
        if (!answered_well(s, err))
                return;
        if (n_early > 0) {
                err_set(&problem, ERR_INVALID, "the Engine sent %zu bytes of a container that does not run yet", n_early);
                smoke_fail(s, problem);
                return;
        }
        smoke_next(s);
}

/*
 * Before the start: what a server writes first would be lost otherwise. For HTTP servers too: what they say on standard error explains a
 * failure, and the end of the stream says at once that they are gone.
 */
void smoke_attach(struct smoke *s)
{
        engine_container_attach(s->engine, &s->attaching, s->container_id, on_attached, s);
}

/* An Engine that refuses a start says that this image does not run (no such program, not executable): that is a result. 5xx is its own
 * trouble. */
static void on_started(struct smoke *s, int status, _unused_ json_object *body, struct err *err)
{
        _cleanup_free_ char *safe = NULL;

        if (err && (status == 0 || status >= 500)) {
                smoke_fail(s, err_dup(err));
                return;
        }
        if (err) {
                safe = text_escape(err_msg(err));
                s->result = smoke_result_failed(mem_printf("the container does not start: %.1000s", safe));
        }
        smoke_next(s);
}

void smoke_start_container(struct smoke *s)
{
        engine_container_start(s->engine, s->container_id, smoke_answered, smoke_pending_new(s, &s->pending, on_started));
}

/* -- how it ended -------------------------------------------------------------------------------------------------------------- */

static void on_end(struct smoke *s, _unused_ int status, json_object *body, struct err *err)
{
        json_object *state = json_get(body, "State");
        int64_t code = json_int(state, "ExitCode", 0);
        bool memory = json_flag(state, "OOMKilled", false);

        /* With status 0 it did what a server should when its input ends, and its input ended because it had failed already. */
        if (!err && state && !json_flag(state, "Running", true) && (code != 0 || memory)) {
                char *why = mem_printf("%s; it exited with status %lld%s", s->result->why, (long long)code,
                                       memory ? ", killed for using more memory than its limit" : "");
                mem_replace(&s->result->why, why);
        }
        smoke_next(s);
}

/* Only to explain a failure: nothing depends on it. */
void smoke_see_end(struct smoke *s)
{
        if (s->result->passed)
                smoke_next(s);
        else
                engine_container_inspect(s->engine, s->container_id, smoke_answered, smoke_pending_new(s, &s->pending, on_end));
}
