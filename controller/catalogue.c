#include "controller/catalogue.h"

#include "common/text.h"

/* Who calls a server that is tried again so soon had better wait than be told to come back. */
#define SOON_MS 2000U

#define MAX_WHY 1000U

void catalogue_why(struct buf *text, const char *why)
{
        _cleanup_free_ char *safe = text_escape(why && *why ? why : "it is not to be had now");
        size_t n = MIN(strlen(safe), (size_t)MAX_WHY);

        while (safe[n] && ((unsigned char)safe[n] & 0xc0) == 0x80) /* not in the middle of a character */
                n--;
        text->len = 0;
        buf_add(text, safe, n);
}

static void say_why(struct channel_entry *e, struct buf *text, const char *why)
{
        catalogue_why(text, why);
        e->readiness = READINESS_DOWN;
        e->why = text->data;
}

static void running(struct channel_entry *e, struct buf *text, const struct desired_server *s, const struct catalogue_facts *f)
{
        const struct plan_server *p = f->plan;

        e->readiness = READINESS_COMING;
        if (s->entry->source != SOURCE_URL && !str_eq(p->container, s->names.container)) /* another version is wanted since */
                return;
        if (s->entry->transport == TRANSPORT_STDIO) {
                if (f->session) {
                        e->readiness = READINESS_UP;
                        e->instance = (char *)f->session;
                } else if (!s->may_run || !f->may_start) {
                        say_why(e, text, f->why ? f->why : "it runs without a session, and nothing may be started now");
                }
        } else if (p->address && p->instance) {
                e->readiness = READINESS_UP;
                e->instance = p->instance;
                e->address = p->address;
        }
}

/* What it lists could not be compared with anything, so that all of it would be withheld. */
static void await_pins(struct channel_entry *e)
{
        if (e->readiness != READINESS_UP || !e->pinned || e->pins)
                return;
        e->readiness = READINESS_COMING;
        e->instance = e->address = NULL;
}

static void not_looked_at(struct channel_entry *e, const struct desired_server *s)
{
        e->readiness = desired_on_demand(s) ? READINESS_ASLEEP : READINESS_COMING;
}

/* Making the packet to see how long it gets is only worth it where there are very many names. */
static bool is_too_long(const struct channel_entry *e)
{
        const struct channel_message whole = {.kind = CHANNEL_SERVER, .entry = *e};
        size_t names = 0;

        for (char **t = e->tools; t && *t; t++)
                names += strlen(*t) + 3;
        for (char **a = e->actions; a && *a; a++)
                names += strlen(*a) + 3;
        return names > CHANNEL_MAX_PACKET / 4 && !channel_fits(&whole);
}

bool catalogue_entry(struct channel_entry *ret, struct buf *text, const struct desired_server *s, const struct catalogue_facts *f)
{
        const struct registry_entry *e = s->entry;
        bool http = e->transport != TRANSPORT_STDIO, on_demand = desired_on_demand(s);
        bool runs = registry_entry_has_instances(e) || (f->plan && f->state == SERVER_RUNNING);

        if (!s->may_run && !(s->may_stay && runs))
                return false;
        *ret = (struct channel_entry){.name = (char *)s->name,
                                      .transport = e->transport,
                                      .lifecycle = on_demand ? LIFECYCLE_ON_DEMAND : LIFECYCLE_ALWAYS_ON,
                                      .port = http ? e->port : 0,
                                      .path = http ? e->path : NULL,
                                      .tls_host = e->tls_host,
                                      .tls_pins = e->tls_pins,
                                      .headers = http ? e->headers : NULL,
                                      .prefix = e->prefix,
                                      .per_session = e->sharing == SHARING_PER_SESSION,
                                      .manifest = s->record->manifest_sha256,
                                      .tools = s->record->tools,
                                      .actions = e->actions,
                                      .pinned = s->record->manifest_sha256,
                                      .pins = f->pins,
                                      .idle_ms = on_demand ? e->idle_timeout_ms : 0,
                                      .expires_at = (uint64_t)s->record->expires_at};
        if (!f->plan)
                not_looked_at(ret, s);
        else if (f->state == SERVER_RUNNING)
                running(ret, text, s, f);
        else if (f->state == SERVER_STARTING || (f->state == SERVER_WAITING && f->retry_in_ms <= SOON_MS))
                ret->readiness = READINESS_COMING;
        else if (f->state == SERVER_STOPPED && on_demand)
                ret->readiness = f->called ? READINESS_COMING : READINESS_ASLEEP;
        else
                say_why(ret, text, f->why);

        await_pins(ret);
        if (is_too_long(ret)) {
                /* Without its list, what was never approved would be offered too. */
                ret->tools = ret->actions = ret->pins = NULL;
                ret->instance = ret->address = NULL;
                say_why(ret, text, "its approval names more tools than the gateway takes (64 KiB of names)");
        }
        return true;
}
