#include "broker/link.h"

#include <inttypes.h>
#include <sodium.h>
#include <unistd.h>

#include "common/log.h"
#include "common/text.h"

#define RETRY_MIN_MS 100U
#define RETRY_MAX_MS 5000U
#define MAX_TROUBLE  1000U /* bytes */

/* A server that the gateway knows. */
struct known {
        char *name;
        uint64_t expires_at; /* seconds since the epoch; 0 = never */
        bool told;           /* since the link came up: what is not, when all was told, is gone */
};

struct uplink {
        sd_event *loop;
        char *path;
        uid_t controller;
        struct gateway *gateway;
        struct channel *channel;
        struct uplink_calls calls;
        char **troubles; /* never NULL */
        sd_event_source *retry;
        uint64_t retry_ms;
        sd_event_source *stale; /* runs while the controller is away */
        uint64_t grace_ms;
        sd_event_source *expiry; /* the next end of an approval */
        bool greeted, synced;    /* on this channel */
        bool was_synced;
        bool complained; /* that it cannot be reached: once until it can */
        struct known *known;
        size_t n_known;
};

/* -- who is there ------------------------------------------------------------------------------------------------------------ */

static struct known *find(struct uplink *u, const char *name)
{
        for (size_t i = 0; i < u->n_known; i++)
                if (str_eq(u->known[i].name, name))
                        return &u->known[i];
        return NULL;
}

static void watch_expiry(struct uplink *u);

static void server_is_there(struct uplink *u, const struct channel_entry *entry)
{
        struct known *k = find(u, entry->name);

        if (!k) {
                u->known = mem_realloc(u->known, u->n_known + 1, sizeof(*u->known));
                k = &u->known[u->n_known++];
                k->name = mem_strdup(entry->name);
        }
        k->told = true;
        k->expires_at = entry->expires_at;
        gateway_server(u->gateway, entry);
        watch_expiry(u);
}

static void forget(struct uplink *u, struct known *k)
{
        gateway_server_gone(u->gateway, k->name);
        free(k->name);
        *k = u->known[--u->n_known];
}

/* -- approvals that end ------------------------------------------------------------------------------------------------------ */

/*
 * The controller says so, too, when it is there. A clock that is set back gives nothing of it back: what has ended is not known any more,
 * and only the controller, which remembers the time, can tell it again.
 */
static int on_expiry(_unused_ sd_event_source *source, _unused_ uint64_t at, void *user)
{
        struct uplink *u = user;
        uint64_t now = 0;

        if (sd_event_now(u->loop, CLOCK_REALTIME, &now) < 0)
                now = UINT64_MAX;
        for (size_t i = u->n_known; i-- > 0;) {
                if (!u->known[i].expires_at || u->known[i].expires_at > now / 1000000)
                        continue;
                log_info("an approval ended: the server is not called any more", "server", u->known[i].name);
                forget(u, &u->known[i]);
        }
        watch_expiry(u);
        return 0;
}

static void watch_expiry(struct uplink *u)
{
        uint64_t next = 0;

        for (size_t i = 0; i < u->n_known; i++)
                if (u->known[i].expires_at && (!next || u->known[i].expires_at < next))
                        next = u->known[i].expires_at;
        u->expiry = sd_event_source_disable_unref(u->expiry);
        if (next && sd_event_add_time(u->loop, &u->expiry, CLOCK_REALTIME, next * 1000000, 1000, on_expiry, u) < 0)
                log_error("no timer for the end of an approval: restart the broker");
}

/* -- a controller that stays away -------------------------------------------------------------------------------------------- */

static int on_stale(_unused_ sd_event_source *source, _unused_ uint64_t at, void *user)
{
        struct uplink *u = user;

        log_error("the controller is away for too long: nobody could tell of a revocation, so calls stop until it is back", "socket",
                  u->path);
        u->stale = sd_event_source_disable_unref(u->stale);
        gateway_link_stale(u->gateway, "the controller is away for longer than gateway.controller_grace, and calls stop until it is back: "
                                       "try again later");
        return 0;
}

static void watch_stale(struct uplink *u)
{
        if (sd_event_add_time_relative(u->loop, &u->stale, CLOCK_MONOTONIC, u->grace_ms * 1000, 0, on_stale, u) < 0)
                (void)on_stale(NULL, 0, u);
}

static void tell_state(struct uplink *u)
{
        const struct channel_message m = {.kind = CHANNEL_STATE, .troubles = u->troubles};

        if (u->synced)
                channel_send(u->channel, &m, -1);
}

static void all_was_told(struct uplink *u)
{
        for (size_t i = u->n_known; i-- > 0;)
                if (!u->known[i].told)
                        forget(u, &u->known[i]);
        u->synced = u->was_synced = true;
        u->stale = sd_event_source_disable_unref(u->stale);
        u->retry_ms = RETRY_MIN_MS;
        u->complained = false;
        log_info("the controller is there, and told which servers there are", "socket", u->path);
        tell_state(u);
        gateway_link(u->gateway, true);
}

/* -- the channel ------------------------------------------------------------------------------------------------------------- */

static void connect_later(struct uplink *u);

static void disconnect(struct uplink *u, const char *why)
{
        bool was_up = u->synced;

        if (was_up)
                log_warning("the link to the controller is lost: servers that run are used on, none is started", "why", why);
        else
                log_warning("no use of the link to the controller", "why", why);
        u->channel = channel_free(u->channel);
        u->greeted = u->synced = false;
        if (was_up) {
                gateway_link(u->gateway, false);
                watch_stale(u);
        }
        connect_later(u);
}

static void greet(struct uplink *u, const struct channel_message *m)
{
        _cleanup_free_ char *why = NULL;

        if (m->kind == CHANNEL_HELLO && m->version == CHANNEL_VERSION) {
                u->greeted = true;
                return;
        }
        why = m->kind == CHANNEL_HELLO ? mem_printf("it speaks version %u of the link, and this broker version %u: upgrade both",
                                                    m->version, CHANNEL_VERSION)
                                       : mem_strdup("its first message is no greeting");
        disconnect(u, why);
}

/* -- calls that wait for a human --------------------------------------------------------------------------------------------- */

static void done(struct uplink *u, unsigned serial, const struct err *why)
{
        _cleanup_free_ char *safe = why ? text_escape(err_msg(why)) : NULL;
        const struct channel_message m = {.kind = CHANNEL_DONE, .serial = serial, .why = safe};

        channel_send(u->channel, &m, -1);
}

/* So much of a list may wait for the controller: what it has no room for must not end the link. */
#define MAX_LISTED (CHANNEL_MAX_QUEUED / 2)

struct telling {
        struct uplink *u;
        unsigned serial, left_out;
};

static void tell_call(const char *text, void *to)
{
        struct telling *t = to;
        const struct channel_message m = {.kind = CHANNEL_CALL, .serial = t->serial, .text = (char *)(uintptr_t)text};
        struct channel_message read = {0};
        _cleanup_free_ char *packet = channel_format(&m);

        /* What the controller would not take for a message ends the link: rather one call is not shown. */
        if (channel_parse(&read, packet, strlen(packet), NULL) < 0) {
                log_warning("a call that waits for a human cannot be shown to one");
                return;
        }
        channel_message_deinit(&read);
        if (channel_queued(t->u->channel) + strlen(packet) > MAX_LISTED)
                t->left_out++;
        else
                channel_send(t->u->channel, &m, -1);
}

static void list_calls(struct uplink *u, unsigned serial)
{
        struct telling t = {u, serial, 0};

        if (u->calls.list)
                u->calls.list(tell_call, &t, u->calls.user);
        if (t.left_out)
                log_warning("too many long calls wait for a human: the newest are not listed");
        done(u, serial, NULL);
}

static void decide_call(struct uplink *u, const struct channel_message *m)
{
        _cleanup_err_ struct err *err = NULL;

        if (!u->calls.decide)
                (void)err_set(&err, ERR_UNAVAILABLE, "the broker serves no agents");
        else if (u->calls.decide(m->call, m->approve, m->valid_ms, m->by, u->calls.user, &err) == 0)
                log_info("a call was decided", "call", m->call, "as", m->approve ? "approved" : "rejected", "by", m->by);
        done(u, m->serial, err);
}

static void on_message(_unused_ struct channel *c, const struct channel_message *m, int fd, void *user)
{
        struct uplink *u = user;
        struct known *k;

        if (!u->greeted) {
                greet(u, m);
                return;
        }
        switch (m->kind) {
        case CHANNEL_SERVER:
                server_is_there(u, &m->entry);
                break;
        case CHANNEL_GONE:
                k = find(u, m->entry.name);
                if (k)
                        forget(u, k);
                break;
        case CHANNEL_SYNCED:
                all_was_told(u);
                break;
        case CHANNEL_STREAM:
                gateway_stream(u->gateway, m->entry.name, m->serial, m->entry.instance, fd);
                break;
        case CHANNEL_REFUSED:
                gateway_refused(u->gateway, m->entry.name, m->serial, m->why);
                break;
        case CHANNEL_CALLS:
                list_calls(u, m->serial);
                break;
        case CHANNEL_DECIDE:
                decide_call(u, m);
                break;
        case CHANNEL_HELLO: /* once more: means nothing */
        case CHANNEL_PINS:  /* the channel keeps them for itself */
        case CHANNEL_START: /* the channel lets none of these in */
        case CHANNEL_STOP:
        case CHANNEL_RENEW:
        case CHANNEL_CALL:
        case CHANNEL_DONE:
        case CHANNEL_STATE:
        case CHANNEL_DIFFERS:
                break;
        }
}

static void on_closed(_unused_ struct channel *c, const struct err *why, void *user)
{
        disconnect(user, err_msg(why));
}

static int connect_now(struct uplink *u, struct err **err)
{
        static const struct channel_events events = {.message = on_message, .closed = on_closed};
        int fd;

        if (channel_connect(&fd, u->path, u->controller, err) < 0 || channel_new(&u->channel, u->loop, fd, true, &events, u, err) < 0)
                return -1;
        for (size_t i = 0; i < u->n_known; i++)
                u->known[i].told = false;
        return 0;
}

static int on_retry(_unused_ sd_event_source *s, _unused_ uint64_t at, void *user)
{
        struct uplink *u = user;
        _cleanup_err_ struct err *err = NULL;

        u->retry = sd_event_source_disable_unref(u->retry);
        if (connect_now(u, &err) == 0)
                return 0;
        if (!u->complained)
                log_warning("the controller cannot be reached, and is tried again", "why", err_msg(err));
        u->complained = true;
        connect_later(u);
        return 0;
}

/* After half to all of a pause that grows: brokers that lost the same controller do not come back in step. */
static void connect_later(struct uplink *u)
{
        uint64_t ms = u->retry_ms / 2 + randombytes_uniform((uint32_t)u->retry_ms / 2 + 1);

        u->retry_ms = MIN(2 * u->retry_ms, (uint64_t)RETRY_MAX_MS);
        if (sd_event_add_time_relative(u->loop, &u->retry, CLOCK_MONOTONIC, ms * 1000, 0, on_retry, u) < 0)
                log_error("no timer for the next connection to the controller: restart the broker");
}

/* -- what the gateway asks --------------------------------------------------------------------------------------------------- */

static void ask(struct uplink *u, enum channel_kind kind, const char *name, unsigned serial, bool lists, const char *instance)
{
        struct channel_message m = {.kind = kind, .serial = serial, .lists = lists};

        /* Only read while it is sent. */
        m.entry.name = (char *)(uintptr_t)name;
        m.entry.instance = (char *)(uintptr_t)instance;
        if (u->synced)
                channel_send(u->channel, &m, -1);
}

static void on_start(const char *name, unsigned serial, bool lists, void *user)
{
        ask(user, CHANNEL_START, name, serial, lists, NULL);
}

static void on_stop(const char *name, unsigned serial, void *user)
{
        ask(user, CHANNEL_STOP, name, serial, false, NULL);
}

static void on_renew(const char *name, const char *instance, void *user)
{
        ask(user, CHANNEL_RENEW, name, 0, false, instance);
}

static void on_differs(const char *name, const char *const *what, size_t n, void *user)
{
        struct uplink *u = user;
        char *list[CHANNEL_MAX_DIFFERS + 1];
        struct channel_message m = {.kind = CHANNEL_DIFFERS, .differs = list};

        n = MIN(n, (size_t)CHANNEL_MAX_DIFFERS);
        for (size_t i = 0; i < n; i++)
                list[i] = (char *)(uintptr_t)what[i];
        list[n] = NULL;
        m.entry.name = (char *)(uintptr_t)name;
        if (u->synced)
                channel_send(u->channel, &m, -1);
}

/* -- from main --------------------------------------------------------------------------------------------------------------- */

struct uplink *uplink_new(sd_event *loop, const char *path, uid_t controller, uint64_t grace_ms)
{
        struct uplink *u = NEW(struct uplink);

        *u = (struct uplink){.loop = sd_event_ref(loop),
                             .path = mem_strdup(path),
                             .controller = controller,
                             .retry_ms = RETRY_MIN_MS,
                             .grace_ms = grace_ms};
        u->troubles = NEW(char *);
        return u;
}

struct gateway_controller uplink_controller(struct uplink *u)
{
        return (struct gateway_controller){.start = on_start, .stop = on_stop, .renew = on_renew, .differs = on_differs, .user = u};
}

int uplink_start(struct uplink *u, struct gateway *gateway, struct err **err)
{
        int r;

        u->gateway = gateway;
        r = sd_event_add_time_relative(u->loop, &u->retry, CLOCK_MONOTONIC, 0, 0, on_retry, u);
        return r < 0 ? err_sys(err, r, "setting up the link to the controller") : 0;
}

struct uplink *uplink_free(struct uplink *u)
{
        if (!u)
                return NULL;
        sd_event_source_disable_unref(u->retry);
        sd_event_source_disable_unref(u->stale);
        sd_event_source_disable_unref(u->expiry);
        channel_free(u->channel);
        for (size_t i = 0; i < u->n_known; i++)
                free(u->known[i].name);
        free(u->known);
        sd_event_unref(u->loop);
        strv_free(u->troubles);
        free(u->path);
        free(u);
        return NULL;
}

void uplink_serve_calls(struct uplink *u, const struct uplink_calls *calls)
{
        u->calls = *calls;
}

void uplink_set_troubles(struct uplink *u, char *const *troubles)
{
        strv_free(u->troubles);
        u->troubles = NEW(char *);
        for (size_t i = 0; troubles && troubles[i] && i < CHANNEL_MAX_TROUBLES; i++) {
                _cleanup_free_ char *safe = text_escape(troubles[i]);

                /* Escapes are ASCII: cut anywhere, it stays text. */
                if (strlen(safe) > MAX_TROUBLE)
                        safe[MAX_TROUBLE] = '\0';
                u->troubles = strv_append(u->troubles, safe);
        }
        tell_state(u);
}

bool uplink_is_up(const struct uplink *u)
{
        return u->synced;
}

bool uplink_was_synced(const struct uplink *u)
{
        return u->was_synced;
}
