#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "tests/rig/servers/conformance.h"

#define ANSWER_SECONDS 60

/* A request of ours that waits for the client's response. On the asker's stack, under the server's lock. */
struct question {
        struct question *next;
        char id[24];
        const char *key;
        json_object *answer; /* the whole response */
};

struct session *session_new(struct server *s, json_object *params)
{
        static const char *const revisions[] = {"2024-11-05", "2025-03-26", "2025-06-18", NEWEST_LEGACY};
        struct session *session = NEW(struct session);
        unsigned char random[16];
        json_object *capabilities = json_get(params, "capabilities");

        randombytes_buf(random, sizeof(random));
        hex_encode(session->id, random, sizeof(random));
        session->revision = NEWEST_LEGACY;
        for (size_t i = 0; i < ELEMENTSOF(revisions); i++)
                if (str_eq(revisions[i], json_str(params, "protocolVersion")))
                        session->revision = revisions[i];
        if (capabilities)
                json_object_deep_copy(capabilities, &session->capabilities, NULL);
        pthread_mutex_lock(&s->lock);
        session->next = s->sessions;
        s->sessions = session;
        pthread_mutex_unlock(&s->lock);
        return session;
}

struct session *session_find(struct server *s, const char *id)
{
        struct session *found = NULL;

        pthread_mutex_lock(&s->lock);
        for (struct session *i = s->sessions; i && !found; i = i->next)
                if (!i->ended && (!id || str_eq(i->id, id)))
                        found = i;
        pthread_mutex_unlock(&s->lock);
        return found;
}

void session_end(struct server *s, struct session *session)
{
        pthread_mutex_lock(&s->lock);
        session->ended = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
}

void session_answered(struct server *s, struct session *session, json_object *m)
{
        const char *id = json_str(m, "id");

        pthread_mutex_lock(&s->lock);
        for (struct question *q = session->questions; q; q = q->next)
                if (!q->answer && str_eq(q->id, id)) {
                        q->answer = TAKE_PTR(m);
                        break;
                }
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        if (m)
                json_object_put(m);
}

static void deadline_in(struct timespec *t, unsigned ms)
{
        clock_gettime(CLOCK_REALTIME, t);
        t->tv_sec += ms / 1000;
        t->tv_nsec += (long)(ms % 1000) * 1000000;
        if (t->tv_nsec >= 1000000000) {
                t->tv_sec++;
                t->tv_nsec -= 1000000000;
        }
}

/* With the lock held. A client that hangs up is noticed within a fifth of a second. */
static bool wait_until(struct call *c, const struct timespec *deadline)
{
        struct timespec soon;
        int rc;

        deadline_in(&soon, 200);
        if (soon.tv_sec > deadline->tv_sec || (soon.tv_sec == deadline->tv_sec && soon.tv_nsec > deadline->tv_nsec))
                soon = *deadline;
        rc = pthread_cond_timedwait(&c->server->changed, &c->server->lock, &soon);
        /* In the legacy era a lost connection takes no request back. */
        if (c->modern && c->alive && !c->alive(c))
                c->cancelled = true;
        return rc == ETIMEDOUT && soon.tv_sec == deadline->tv_sec && soon.tv_nsec == deadline->tv_nsec;
}

static bool is_over(const struct call *c)
{
        return c->cancelled || (c->session && c->session->ended);
}

static void put_question(struct call *c, struct question *q, const char *key, json_object *request)
{
        _cleanup_json_ json_object *m = json_object_new_object();

        pthread_mutex_lock(&c->server->lock);
        snprintf(q->id, sizeof(q->id), "question-%u", ++c->server->questions);
        q->key = key;
        q->next = c->session->questions;
        c->session->questions = q;
        pthread_mutex_unlock(&c->server->lock);
        json_add_str(m, "jsonrpc", "2.0");
        json_add_str(m, "id", q->id);
        json_add_str(m, "method", json_str(request, "method"));
        json_add(m, "params", json_object_get(json_get(request, "params")));
        if (!c->send(c, json_text(m)))
                c->cancelled = true;
}

static void take_back(struct session *session, const struct question *q)
{
        for (struct question **i = &session->questions; *i; i = &(*i)->next)
                if (*i == q) {
                        *i = q->next;
                        return;
                }
}

static bool all_answered(const struct question *q, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (!q[i].answer)
                        return false;
        return true;
}

json_object *session_ask(struct call *c, json_object *asks, const char **why)
{
        size_t n = (size_t)json_object_object_length(asks), i = 0;
        _cleanup_free_ struct question *q = mem_alloc(n * sizeof(*q) + 1);
        _cleanup_json_ json_object *answers = json_object_new_object();
        struct timespec deadline;

        json_object_object_foreach (asks, key, request)
                put_question(c, &q[i++], key, request);
        deadline_in(&deadline, ANSWER_SECONDS * 1000);
        pthread_mutex_lock(&c->server->lock);
        while (!all_answered(q, n) && !is_over(c))
                if (wait_until(c, &deadline))
                        break;
        for (i = 0; i < n; i++)
                take_back(c->session, &q[i]);
        pthread_mutex_unlock(&c->server->lock);
        *why = NULL;
        for (i = 0; i < n; i++) {
                json_object *result = json_get(q[i].answer, "result");
                if (result)
                        json_add(answers, q[i].key, json_object_get(result));
                else
                        *why = q[i].answer ? "the client refused" : "the client did not answer";
                if (q[i].answer)
                        json_object_put(q[i].answer);
        }
        return *why ? NULL : TAKE_PTR(answers);
}

void call_begin(struct call *c)
{
        pthread_mutex_lock(&c->server->lock);
        c->next = c->server->calls;
        c->server->calls = c;
        pthread_mutex_unlock(&c->server->lock);
}

void call_end(struct call *c)
{
        pthread_mutex_lock(&c->server->lock);
        for (struct call **i = &c->server->calls; *i; i = &(*i)->next)
                if (*i == c) {
                        *i = c->next;
                        break;
                }
        pthread_mutex_unlock(&c->server->lock);
}

void call_cancel(struct server *s, json_object *id)
{
        pthread_mutex_lock(&s->lock);
        for (struct call *i = s->calls; i; i = i->next)
                if (json_object_equal(i->id, id))
                        i->cancelled = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
}

bool call_sleep(struct call *c, unsigned ms)
{
        struct timespec deadline;

        deadline_in(&deadline, ms);
        pthread_mutex_lock(&c->server->lock);
        while (!is_over(c))
                if (wait_until(c, &deadline))
                        break;
        pthread_mutex_unlock(&c->server->lock);
        return !is_over(c);
}

static bool wants(const struct listener *l, enum change what, const char *uri)
{
        if (what == CHANGE_RESOURCE)
                return strv_contains(l->session ? l->session->watched : l->watched, uri);
        return l->session || (what == CHANGE_TOOLS ? l->tools : l->prompts);
}

void announce(struct server *s, enum change what, const char *uri)
{
        static const char *const methods[] = {"tools/list_changed", "prompts/list_changed", "resources/updated"};

        pthread_mutex_lock(&s->lock);
        for (struct listener *l = s->listeners; l; l = l->next) {
                _cleanup_json_ json_object *m = json_object_new_object(), *params = json_object_new_object();
                _cleanup_free_ char *method = mem_printf("notifications/%s", methods[what]);

                if (!wants(l, what, uri))
                        continue;
                json_add_str(params, "uri", uri);
                if (!l->session) {
                        json_object *meta = json_object_new_object();
                        json_add(meta, META("subscriptionId"), parse(l->id));
                        json_add(params, "_meta", meta);
                }
                json_add_str(m, "jsonrpc", "2.0");
                json_add_str(m, "method", method);
                json_add(m, "params", json_object_get(params));
                l->waiting = strv_append(l->waiting, json_text(m));
        }
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
}

static bool send_waiting(struct call *c, struct listener *l)
{
        _cleanup_strv_ char **texts = TAKE_PTR(l->waiting);
        bool there = true;

        pthread_mutex_unlock(&c->server->lock);
        for (size_t i = 0; there && i < strv_len(texts); i++)
                there = c->send(c, texts[i]);
        pthread_mutex_lock(&c->server->lock);
        return there;
}

void listen_until_end(struct call *c, struct listener *l)
{
        struct server *s = c->server;
        struct timespec never;

        pthread_mutex_lock(&s->lock);
        l->next = s->listeners;
        s->listeners = l;
        while (!is_over(c) && (!c->alive || c->alive(c))) {
                if (l->waiting && !send_waiting(c, l))
                        break;
                deadline_in(&never, 3600 * 1000);
                if (!l->waiting)
                        wait_until(c, &never);
        }
        for (struct listener **i = &s->listeners; *i; i = &(*i)->next)
                if (*i == l) {
                        *i = l->next;
                        break;
                }
        pthread_mutex_unlock(&s->lock);
        strv_free(l->waiting);
}
