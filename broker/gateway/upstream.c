#include "broker/gateway/upstream_internal.h"

static int on_kick(_unused_ sd_event_source *s, void *user)
{
        struct upstream *u = user;

        upstream_hold(u);
        call_finish_doomed(u);
        if (u->failure && upstream_alive(u)) {
                if (u->ops->drain)
                        u->ops->drain(u);
                upstream_end(u, TAKE_PTR(u->failure));
        }
        (void)upstream_release(u);
        return 0;
}

void upstream_kick(struct upstream *u)
{
        if (!u->dead)
                (void)sd_event_source_set_enabled(u->kick, SD_EVENT_ONESHOT);
}

/* -- the end ----------------------------------------------------------------------------------------------------------------- */

static void fail_calls(struct upstream *u, const struct err *why)
{
        while (u->calls || u->doomed)
                call_finish(u->doomed ? u->doomed : u->calls, NULL, why);
}

static void upstream_close(struct upstream *u)
{
        if (u->state == UPSTREAM_ENDED)
                return;
        u->failed_in_probe = u->state == UPSTREAM_STARTING && u->probed;
        u->state = UPSTREAM_ENDED;
        handshake_deinit(u);
        u->ops->close(u);
}

void upstream_end(struct upstream *u, struct err *why)
{
        _cleanup_err_ struct err *owned = why;

        if (!upstream_alive(u))
                return;
        err_wrap(&owned, "server %s", u->name);
        upstream_hold(u);
        upstream_close(u);
        fail_calls(u, owned);
        if (!u->dead)
                u->events.ended(u, owned, u->user);
        (void)upstream_release(u);
}

void upstream_end_later(struct upstream *u, struct err *why)
{
        if (u->failure || !upstream_alive(u)) {
                err_free(why);
                return;
        }
        u->failure = why;
        upstream_kick(u);
}

static void upstream_destroy(struct upstream *u)
{
        if (u->transport)
                u->ops->destroy(u);
        calls_deinit(u);
        handshake_deinit(u);
        sd_event_source_disable_unref(u->kick);
        sd_event_unref(u->loop);
        err_free(u->failure);
        buf_deinit(&u->info_text);
        buf_deinit(&u->note);
        free(u->capabilities);
        free(u->name);
        free(u);
}

void upstream_hold(struct upstream *u)
{
        u->held++;
}

bool upstream_release(struct upstream *u)
{
        u->held--;
        if (!u->dead)
                return true;
        if (u->held == 0)
                upstream_destroy(u);
        return false;
}

struct upstream *upstream_free(struct upstream *u)
{
        _cleanup_err_ struct err *why = NULL;

        if (!u || u->dead)
                return NULL;
        err_set(&why, ERR_UNAVAILABLE, "server %s: the session was closed", u->name);
        upstream_hold(u);
        u->dead = true;
        if (u->transport)
                upstream_close(u);
        fail_calls(u, why);
        (void)upstream_release(u);
        return NULL;
}

/* -- the beginning ------------------------------------------------------------------------------------------------------------ */

int upstream_new(struct upstream **ret, sd_event *loop, const struct upstream_config *config, const struct upstream_events *events,
                 void *user, struct err **err)
{
        _cleanup_(upstream_freep) struct upstream *u = NEW(struct upstream);
        int r;

        u->loop = sd_event_ref(loop);
        u->name = mem_strdup(config->name);
        u->limits = config->limits;
        u->events = *events;
        u->user = user;
        u->legacy_only = config->legacy_only;
        u->capabilities = config->capabilities.at ? mem_strndup(config->capabilities.at, config->capabilities.n) : mem_strdup("{}");
        r = sd_event_add_defer(loop, &u->kick, on_kick, u);
        if (r >= 0)
                r = sd_event_source_set_enabled(u->kick, SD_EVENT_OFF);
        if (r < 0)
                return err_sys(err, r, "event loop for server %s", u->name);
        if (calls_init(u, err) < 0)
                return -1;
        *ret = TAKE_PTR(u);
        return 0;
}

bool upstream_is_ready(const struct upstream *u)
{
        return u->state == UPSTREAM_READY && !u->dead;
}

enum mcp_era upstream_era(const struct upstream *u)
{
        return u->era;
}

enum mcp_revision upstream_revision(const struct upstream *u)
{
        return u->revision;
}

const struct mcp_message *upstream_info(const struct upstream *u)
{
        return &u->info;
}

unsigned upstream_calls(const struct upstream *u)
{
        return u->n_calls;
}

bool upstream_probe_failed(const struct upstream *u)
{
        return u->failed_in_probe;
}

uint64_t upstream_ignored(const struct upstream *u)
{
        return u->ignored;
}

char *upstream_stderr_tail(const struct upstream *u)
{
        return u->transport && u->ops->last_words ? u->ops->last_words(u) : mem_strdup("");
}
