#include <arpa/inet.h>

#include "broker/gateway/internal.h"
#include "common/log.h"
#include "common/text.h"

static void on_ready(_unused_ struct upstream *u, void *user)
{
        struct leg *l = user;

        l->ready = true;
        l->era = upstream_era(l->u);
        l->ready_ms = now_ms(l->server->g->loop);
        if (l->server->shared == l)
                pins_forget(l->server);
        l->instructs = pins_instructions(l->server, upstream_info(l->u)->instructions);
        log_info("server ready", "server", l->server->entry.name, "revision", mcp_revision_name(upstream_revision(l->u)));
        server_leg_ready(l);
}

static void on_ended(_unused_ struct upstream *u, const struct err *why, void *user)
{
        struct leg *l = user;
        _cleanup_free_ char *tail = upstream_stderr_tail(l->u);

        log_warning("session with server ended", "server", l->server->entry.name, "why", err_msg(why), "stderr",
                    tail && *tail ? tail : NULL);
        /* Some legacy servers end on a request that is not initialize. If that one fails too, it was something else. */
        if (!l->ready_ms)
                l->server->legacy_only = upstream_probe_failed(l->u);
        server_leg_ended(l, why);
}

static void on_request(_unused_ struct upstream *u, struct upstream_call *up, const struct mcp_message *m, void *user)
{
        ask_request(user, up ? upstream_call_user(up) : NULL, m);
}

static void on_withdrawn(_unused_ struct upstream *u, struct mcp_slice id, void *user)
{
        ask_withdrawn(user, id);
}

static void on_notification(_unused_ struct upstream *u, const struct mcp_message *m, void *user)
{
        subs_notification(user, m);
}

static const struct upstream_events events = {
        .ready = on_ready, .ended = on_ended, .notification = on_notification, .request = on_request, .withdrawn = on_withdrawn};

static unsigned capabilities_of(const struct leg *l)
{
        if (l->owner)
                return l->owner->capabilities;
        return l->of_instance && l->of_instance->own ? 0 : CAP_SAMPLING | CAP_ELICITATION | CAP_ELICITATION_URL | CAP_ROOTS;
}

static struct leg *leg_new(struct server *s, struct session *owner, struct instance *i, struct upstream_config *config)
{
        struct leg *l = NEW(struct leg);

        l->server = s;
        l->owner = owner;
        l->of_instance = i;
        l->level = LEVEL_NONE;
        l->instance = mem_strdup(s->entry.instance);
        list_init(&l->calls);
        list_init(&l->subscribing);
        list_init(&l->asks);
        config->name = s->entry.name;
        config->legacy_only = s->legacy_only;
        config->limits = s->g->config.upstream;
        config->capabilities = mcp_slice_of(capability_text(capabilities_of(l)));
        return l;
}

static int leg_started(struct leg *l, int r)
{
        if (r < 0) {
                free(l->instance);
                free(l);
                return -1;
        }
        list_add(&l->server->legs, &l->in_server);
        if (l->owner)
                list_add(&l->owner->legs, &l->in_session);
        if (l->of_instance)
                l->of_instance->leg = l;
        else if (!l->owner)
                l->server->shared = l;
        l->server->g->counts.upstreams++;
        return 0;
}

int leg_new_stdio(struct server *s, struct instance *i, const char *instance, int fd, struct err **err)
{
        struct upstream_config config = {.fd = fd};
        struct leg *l = leg_new(s, i ? i->session : NULL, i, &config);

        mem_replace(&l->instance, mem_strdup(instance));
        return leg_started(l, upstream_stdio_new(&l->u, s->g->loop, &config, &events, l, err));
}

int leg_new_http(struct server *s, struct session *owner, struct err **err)
{
        struct upstream_config config = {.fd = -1,
                                         .port = s->entry.port,
                                         .path = s->entry.path,
                                         .tls_host = s->entry.tls_host,
                                         .tls_pins = s->entry.tls_pins,
                                         .headers = s->entry.headers,
                                         .sse = s->entry.transport == TRANSPORT_SSE,
                                         .pool = s->g->pool};
        struct leg *l;

        if (!s->entry.address || inet_pton(AF_INET, s->entry.address, &config.address) != 1)
                return err_set(err, ERR_INVALID, "server %s has no usable address", s->entry.name);
        l = leg_new(s, owner, NULL, &config);
        return leg_started(l, upstream_http_new(&l->u, s->g->loop, &config, &events, l, err));
}

struct leg *leg_free(struct leg *l)
{
        if (!l)
                return NULL;
        if (l->server->shared == l)
                l->server->shared = NULL;
        if (l->of_instance)
                l->of_instance->leg = NULL;
        l->ready = false;
        leg_listen_over(l);
        while (!list_empty(&l->asks))
                ask_free(list_first(&l->asks, struct ask, in_leg));
        upstream_free(TAKE_PTR(l->u)); /* its calls end here, and leave our list */
        list_del(&l->in_server);
        list_del(&l->in_session);
        l->server->g->counts.upstreams--;
        free(l->instance);
        free(l);
        return NULL;
}

struct mcp_slice leg_capability(const struct leg *l, const char *name)
{
        const struct mcp_message *info = l && l->ready ? upstream_info(l->u) : NULL;

        return info && mcp_is_object(info->capabilities) ? mcp_object_get(info->capabilities, name) : (struct mcp_slice){0};
}
