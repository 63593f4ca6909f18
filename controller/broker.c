#include "controller/broker.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "common/log.h"
#include "common/text.h"
#include "controller/calls.h"
#include "controller/catalogue.h"
#include "controller/controller.h"

/* So much may wait for the broker before more of the catalogue is queued: a large one goes at the pace of its reader. */
#define AHEAD (256U << 10)
/* A broker that asks for nonsense does not fill the log. */
#define REFUSED_LOG_MS 1000U

struct told {
        struct channel_entry entry;
        char *container; /* id of the one that it speaks of */
};

struct broker {
        struct controller *c;
        bool have_user;
        uid_t peer;                        /* the broker's user; looked up once, as the guard's rules for it are */
        struct channel_listener *listener; /* NULL: see error */
        char *error;
        struct channel *channel; /* NULL: nobody is linked */
        struct calls *calls;
        uint64_t alone_since_ms; /* 0 = linked */
        time_t linked_at;
        uint64_t refused_logged_ms;
        char **troubles;     /* what it says of its own files */
        bool synced, behind; /* all was told once; something could not be told yet */
        struct told *told;   /* sorted by name */
        size_t n_told;
};

void session_close(struct session *s)
{
        if (s->fd >= 0)
                close(TAKE_FD(s->fd));
}

void session_end(struct session *s)
{
        session_close(s);
        mem_replace(&s->container, NULL);
}

static void told_deinit(struct told *t)
{
        channel_entry_deinit(&t->entry);
        free(t->container);
}

/* -- telling --------------------------------------------------------------------------------------------------------------- */

/* serial: of the instance that it is about; 0 = of none. */
static void send_about(struct broker *b, enum channel_kind kind, const char *name, unsigned serial, const char *why)
{
        const struct channel_message m = {.kind = kind, .entry = {.name = (char *)name}, .serial = serial, .why = (char *)why};

        channel_send(b->channel, &m, -1);
}

static void send_name(struct broker *b, enum channel_kind kind, const char *name)
{
        send_about(b, kind, name, 0, NULL);
}

static bool describe(struct channel_entry *ret, struct buf *text, const struct desired_server *s, const struct key *key)
{
        struct catalogue_facts f = {0};

        if (key) {
                bool session = key->plan && key->session.container && str_eq(key->session.container, key->plan->id);
                f = (struct catalogue_facts){.plan = key->plan,
                                             .state = key_state(key),
                                             .why = key_why(key),
                                             .retry_in_ms = key_retry_in_ms(key),
                                             .called = key->demand.called,
                                             .session = session ? key->session.instance : NULL,
                                             .pins = smoked_pins(key->c->smoked, s->names.spec_hash),
                                             .may_start = key->c->egress_ok && !key->image_refused};
        }
        return catalogue_entry(ret, text, s, &f);
}

/* While a new version comes up, the one before goes on being called. */
static bool goes_on(const struct told *t, const struct channel_entry *e, const struct key *key)
{
        return t && t->entry.readiness == READINESS_UP && e->readiness != READINESS_UP && key && key->plan && key->plan->older &&
               str_eq(t->container, key->plan->older) && e->transport == t->entry.transport &&
               (e->transport != TRANSPORT_STDIO || str_eq(key->session.container, t->container));
}

/* One server that is desired: what stands in the new list of what was told. false = nothing of it was ever told. */
static bool tell_one(struct broker *b, struct told *next, struct told *before, const struct desired_server *s, bool ends_only)
{
        const struct key *key = key_find(b->c, s->name);
        _cleanup_buf_ struct buf text = {0};
        struct channel_message m = {.kind = CHANNEL_SERVER};

        if (!describe(&m.entry, &text, s, key)) {
                if (before) {
                        send_name(b, CHANNEL_GONE, s->name);
                        told_deinit(before);
                }
                return false;
        }
        bool keep = ends_only || (before && (channel_entry_equal(&before->entry, &m.entry) || goes_on(before, &m.entry, key)));
        if (!keep && channel_queued(b->channel) > AHEAD)
                keep = b->behind = true;
        if (keep && !before)
                return false;
        if (keep) {
                *next = *before;
                return true;
        }
        channel_send(b->channel, &m, -1);
        if (before)
                told_deinit(before);
        channel_entry_copy(&next->entry, &m.entry);
        next->container = mem_strdup(key && key->plan ? key->plan->id : NULL);
        return true;
}

/* An instance that does not come up now: who waits for it had better hear why than wait until it is tried again. */
static void tell_place(struct broker *b, const struct desired_server *s)
{
        struct key *key = key_find(b->c, s->name);
        _cleanup_buf_ struct buf why = {0};
        enum server_state state;

        if (!key || !key->demand.called || key->busy || !key->plan)
                return;
        state = key_state(key);
        if (state == SERVER_RUNNING || state == SERVER_STARTING || state == SERVER_STOPPED)
                return;
        catalogue_why(&why, key_why(key));
        send_about(b, CHANNEL_REFUSED, s->server, key->demand.serial, why.data);
        demand_end(key, "it does not come up");
        pass_request(b->c, 0, false);
}

void broker_tell(struct controller *c, bool ends_only)
{
        struct broker *b = c->broker;

        /* Before the first plan a server that runs would be told as one that is still to come, and its sessions would end. */
        if (!broker_linked(b) || !c->desired || !c->passes)
                return;
        for (size_t i = 0; !ends_only && i < c->desired->n; i++)
                if (c->desired->servers[i].place)
                        tell_place(b, &c->desired->servers[i]);
        const struct desired *d = c->desired;
        struct told *next = mem_alloc((d->n + 1) * sizeof(*next));
        size_t n_next = 0, old = 0;

        b->behind = false;
        for (size_t i = 0; i <= d->n; i++) {
                int order = -1;

                /* Those that nothing declares any more. */
                while (old < b->n_told && (order = i < d->n ? strcmp(b->told[old].entry.name, d->servers[i].name) : -1) < 0) {
                        send_name(b, CHANNEL_GONE, b->told[old].entry.name);
                        told_deinit(&b->told[old++]);
                }
                struct told *before = old < b->n_told && order == 0 ? &b->told[old++] : NULL;
                if (i < d->n && !d->servers[i].place && tell_one(b, &next[n_next], before, &d->servers[i], ends_only))
                        n_next++;
        }
        free(b->told);
        b->told = next;
        b->n_told = n_next;
        if (!ends_only && !b->behind && !b->synced) {
                b->synced = true;
                send_name(b, CHANNEL_SYNCED, NULL);
        }
}

void broker_hand_over(struct key *key)
{
        struct broker *b = key->c->broker;
        const struct plan_server *p = key->plan;
        const struct desired_server *s = desired_find(key->desired, key->name);
        unsigned char random[CHANNEL_INSTANCE_HEX / 2];

        if (key->session.fd < 0)
                return;
        if (!broker_linked(b) || (s->place && !key->demand.called)) {
                /* It left meanwhile, or the session that it was for ended. The server sees its input end: no fault of its own. */
                session_end(&key->session);
                key->exit_counted = true;
                return;
        }
        randombytes_buf(random, sizeof(random));
        hex_encode(key->session.instance, random, sizeof(random));
        mem_replace(&key->session.container, mem_strdup(p->actions[key->next].id));
        key->session.since_us = controller_now_us();
        const struct channel_message m = {.kind = CHANNEL_STREAM,
                                          .serial = key->demand.serial,
                                          .entry = {.name = (char *)s->server, .instance = key->session.instance}};
        channel_send(b->channel, &m, TAKE_FD(key->session.fd));
}

/* -- the three questions --------------------------------------------------------------------------------------------------- */

static void refuse(struct broker *b, const char *name, unsigned serial, const char *why)
{
        uint64_t now = controller_now_ms();

        if (now - b->refused_logged_ms >= REFUSED_LOG_MS) {
                log_info("refused what the broker asked for", "server", name, "reason", why);
                b->refused_logged_ms = now;
        }
        if (broker_linked(b))
                send_about(b, CHANNEL_REFUSED, name, serial, why);
}

static void on_call_instance(struct broker *b, struct key *server, const struct desired_server *s, const struct channel_message *m)
{
        _cleanup_err_ struct err *err = NULL;
        struct key *key;

        if (demand_call_instance(&key, server, s, m->serial, m->lists, &err) < 0)
                refuse(b, s->name, m->serial, err_msg(err));
        else
                pass_now(b->c);
}

static void on_call(struct broker *b, struct key *key, const struct desired_server *s)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_buf_ struct buf text = {0};
        bool fresh = !key->demand.called;
        struct channel_entry e;

        if (demand_call(key, s, &err) < 0)
                refuse(b, s->name, 0, err_msg(err));
        else if (describe(&e, &text, s, key) && e.readiness == READINESS_DOWN)
                refuse(b, s->name, 0, e.why);
        else if (fresh) /* however often it is asked for: the Engine is looked at once */
                pass_now(b->c);
}

static void on_let_go(struct broker *b, struct key *key, const struct desired_server *s, unsigned serial)
{
        if (serial)
                key = demand_find(b->c, s, serial);
        if (serial && !key) /* it was refused, or ended by itself */
                return;
        if (!desired_on_demand(s)) {
                refuse(b, s->name, 0, "it is no on-demand server: the controller keeps it running");
                return;
        }
        if (!key->demand.called)
                return;
        demand_end(key, serial ? "its session is over" : "it is idle");
        pass_request(b->c, 0, false);
}

/*
 * A stream that was given back, or an HTTP server that hangs: an end of the server like any other, with the same backoff, unless that end
 * was seen and counted.
 */
static void on_renew(struct broker *b, struct key *key, const struct desired_server *s, const char *instance)
{
        if (s->entry->source == SOURCE_URL) {
                refuse(b, s->name, 0, "it runs elsewhere: who runs it must start it anew");
                return;
        }
        if (s->entry->transport != TRANSPORT_STDIO) {
                if (!key->plan || !str_eq(key->plan->instance, instance) || str_eq(key->hung, instance))
                        return; /* of an instance that is history, or is ended already */
                log_warning("the broker says that a server does not answer, and it is started anew", "server", key->name);
                mem_replace(&key->hung, mem_strdup(instance));
        } else {
                if (!key->session.container || !str_eq(key->session.instance, instance))
                        return; /* of a session that is history */
                log_warning("the broker gives a server's session back, and it is made anew", "server", key->name);
                session_end(&key->session);
        }
        if (!key->exit_counted)
                key_count_end(key);
        pass_now(b->c);
}

/* Shown to people; nothing is done because of it. */
static void on_differs(struct key *key, const struct channel_message *m)
{
        strv_free(key->differs);
        key->differs = m->differs[0] ? strv_dup(m->differs) : NULL;
        for (char **d = key->differs; d && *d; d++)
                log_warning("the broker withholds what differs from its approval", "server", key->name, "what", *d);
}

static void on_message(_unused_ struct channel *channel, const struct channel_message *m, _unused_ int fd, void *user)
{
        struct broker *b = user;
        struct controller *c = b->c;
        const struct desired_server *s;

        if (m->kind == CHANNEL_CALL || m->kind == CHANNEL_DONE) {
                calls_answer(b->calls, m);
                return;
        }
        if (m->kind == CHANNEL_STATE) {
                strv_free(b->troubles);
                b->troubles = strv_dup(m->troubles);
                return;
        }
        s = desired_find(c->desired, m->entry.name);
        if (!s || !(s->may_run || s->may_stay)) {
                refuse(b, m->entry.name, m->serial, "no server of that name may be called");
                return;
        }
        struct key *key = key_get(c, s->name);
        if (m->kind == CHANNEL_START && m->serial)
                on_call_instance(b, key, s, m);
        else if (m->kind == CHANNEL_START)
                on_call(b, key, s);
        else if (m->kind == CHANNEL_STOP)
                on_let_go(b, key, s, m->serial);
        else if (m->kind == CHANNEL_RENEW)
                on_renew(b, key, s, m->entry.instance);
        else if (m->kind == CHANNEL_DIFFERS)
                on_differs(key, m);
}

/* -- the link's life ------------------------------------------------------------------------------------------------------- */

static void forget_told(struct broker *b)
{
        for (size_t i = 0; i < b->n_told; i++)
                told_deinit(&b->told[i]);
        free(TAKE_PTR(b->told));
        b->n_told = 0;
        b->synced = b->behind = false;
}

/* Its streams are closed with it, so servers that read from them end now: none is to wait for that. */
static void unlink_broker(struct broker *b)
{
        struct controller *c = b->c;

        b->channel = channel_free(b->channel);
        calls_end(b->calls);
        b->alone_since_ms = controller_now_ms();
        b->troubles = strv_free(b->troubles);
        forget_told(b);
        for (size_t i = 0; i < c->n_keys; i++) {
                c->keys[i]->differs = strv_free(c->keys[i]->differs);
                if (c->keys[i]->demand.serial)
                        demand_end(c->keys[i], "the broker left");
                if (!c->keys[i]->session.container)
                        continue;
                mem_replace(&c->keys[i]->session.container, NULL);
                c->keys[i]->exit_counted = true;
        }
}

static void on_closed(_unused_ struct channel *channel, const struct err *why, void *user)
{
        struct broker *b = user;

        log_warning("the link to the broker ended", "reason", err_msg(why));
        unlink_broker(b);
        pass_request(b->c, 0, false);
}

static void on_drained(_unused_ struct channel *channel, void *user)
{
        struct broker *b = user;

        if (b->behind)
                broker_tell(b->c, false);
}

static void on_accepted(int fd, void *user)
{
        static const struct channel_events events = {.message = on_message, .closed = on_closed, .drained = on_drained};
        const struct channel_message hello = {.kind = CHANNEL_HELLO, .version = CHANNEL_VERSION};
        _cleanup_err_ struct err *err = NULL;
        struct broker *b = user;

        if (b->channel && channel_alive(b->channel)) {
                log_warning("a second broker is refused: one is linked already");
                close(fd);
                return;
        }
        if (b->channel)
                unlink_broker(b);
        if (channel_new(&b->channel, b->c->loop, fd, false, &events, b, &err) < 0) {
                log_error("the broker cannot be linked", "reason", err_msg(err));
                return;
        }
        b->alone_since_ms = 0;
        b->linked_at = time(NULL);
        log_info("the broker is linked");
        channel_send(b->channel, &hello, -1);
        broker_tell(b->c, false);
        pass_request(b->c, 0, false);
}

void broker_listen(struct broker *b)
{
        const struct conf *conf = b->c->conf;
        _cleanup_err_ struct err *err = NULL;

        if (b->listener)
                return;
        if (!b->have_user)
                (void)err_set(&err, ERR_NOT_FOUND, "there is no user %s (network.broker_user): make it and restart the controller",
                              conf->broker_user);
        else if (channel_listen(&b->listener, b->c->loop, conf->link_socket, -1, b->peer, on_accepted, b, &err) == 0)
                log_info("waiting for the broker", "socket", conf->link_socket, "user", conf->broker_user);
        if (err && !str_eq(b->error, err_msg(err)))
                log_warning("no broker can come: servers run, and nobody can call them", "reason", err_msg(err));
        mem_replace(&b->error, err ? mem_strdup(err_msg(err)) : NULL);
}

struct broker *broker_new(struct controller *c)
{
        const struct passwd *user = getpwnam(c->conf->broker_user);
        struct broker *b = NEW(struct broker);

        *b = (struct broker){.c = c, .alone_since_ms = controller_now_ms(), .have_user = user, .peer = user ? user->pw_uid : (uid_t)-1};
        b->calls = calls_new();
        broker_listen(b);
        return b;
}

struct broker *broker_free(struct broker *b)
{
        if (!b)
                return NULL;
        calls_free(b->calls);
        channel_free(b->channel);
        channel_listener_free(b->listener);
        forget_told(b);
        strv_free(b->troubles);
        free(b->error);
        free(b);
        return NULL;
}

static void ask_broker(struct broker *b, struct link_conn *conn, struct channel_message *m)
{
        if (!broker_linked(b)) {
                link_fail(conn, 69, "the broker is not linked: calls wait there");
                return;
        }
        m->serial = calls_asked(b->calls, conn);
        channel_send(b->channel, m, -1);
}

void broker_ask_calls(struct broker *b, struct link_conn *conn)
{
        struct channel_message m = {.kind = CHANNEL_CALLS};

        ask_broker(b, conn, &m);
}

void broker_decide_call(struct broker *b, struct link_conn *conn, json_object *request)
{
        struct channel_message m = {.kind = CHANNEL_DECIDE,
                                    .call = (char *)(uintptr_t)json_str(request, "id"),
                                    .by = (char *)(uintptr_t)json_str(request, "by"),
                                    .approve = json_flag(request, "approve", false),
                                    .valid_ms = (uint64_t)MAX(json_int(request, "valid_ms", 0), (int64_t)0)};
        _cleanup_free_ char *text = NULL;
        struct channel_message read = {0};

        m.serial = 1;
        text = channel_format(&m);
        /* Only what the broker will take for a message goes out: else the link would end. */
        if (!m.call || !m.by || channel_parse(&read, text, strlen(text), NULL) < 0) {
                link_fail(conn, 64, "a call's id is \"c-\" and 16 hexadecimal digits");
                return;
        }
        channel_message_deinit(&read);
        ask_broker(b, conn, &m);
}

bool broker_linked(const struct broker *b)
{
        return b && b->channel;
}

uint64_t broker_alone_since_ms(const struct controller *c)
{
        return c->broker ? c->broker->alone_since_ms : 1;
}

json_object *broker_json(const struct controller *c)
{
        const struct broker *b = c->broker;
        json_object *o = json_object_new_object();
        char text[TEXT_TIME_MAX];

        json_add_str(o, "user", c->conf->broker_user);
        json_add_str(o, "socket", c->conf->link_socket);
        json_add_bool(o, "listening", b && b->listener);
        json_add_str(o, "error", b ? b->error : NULL);
        json_add_bool(o, "linked", broker_linked(b));
        if (broker_linked(b))
                json_add_str(o, "since", text_format_time(text, b->linked_at));
        if (b && b->troubles && b->troubles[0])
                json_add(o, "troubles", json_from_strv(b->troubles));
        return o;
}
