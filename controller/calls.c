/*
 * Calls of agents that wait for a human: the control socket's verbs, asked of the broker. What an agent wrote passes through here as text
 * that nobody looks into.
 */
#include "controller/calls.h"

#include <pwd.h>

#include "common/text.h"
#include "controller/controller.h"

#define MAX_QUESTIONS 16U

struct question {
        unsigned serial;
        struct link_conn *conn;
        json_object *texts;
};

struct calls {
        struct question asked[MAX_QUESTIONS];
        size_t n;
        unsigned last;
};

struct calls *calls_new(void)
{
        return NEW(struct calls);
}

/* The first in the row was asked first. */
static struct question take(struct calls *calls, size_t at)
{
        struct question q = calls->asked[at];

        calls->n--;
        memmove(&calls->asked[at], &calls->asked[at + 1], (calls->n - at) * sizeof(q));
        return q;
}

static void fail(struct question q, const char *why)
{
        json_object_put(q.texts);
        link_fail(q.conn, 69, why);
}

void calls_end(struct calls *calls)
{
        while (calls->n)
                fail(take(calls, 0), "the broker went away: try again");
}

struct calls *calls_free(struct calls *calls)
{
        if (calls)
                calls_end(calls);
        free(calls);
        return NULL;
}

unsigned calls_asked(struct calls *calls, struct link_conn *conn)
{
        /* A broker that does not answer keeps nobody from asking again. */
        if (calls->n == MAX_QUESTIONS)
                fail(take(calls, 0), "the broker did not answer");
        if (++calls->last == 0)
                calls->last = 1;
        calls->asked[calls->n++] = (struct question){calls->last, conn, json_object_new_array()};
        return calls->last;
}

void calls_answer(struct calls *calls, const struct channel_message *m)
{
        size_t at = 0;

        while (at < calls->n && calls->asked[at].serial != m->serial)
                at++;
        if (at == calls->n)
                return; /* the one who asked is gone */
        if (m->kind == CHANNEL_CALL) {
                json_object *texts = calls->asked[at].texts;

                if (json_object_array_length(texts) < CALLS_MAX)
                        json_object_array_add(texts, json_object_new_string(m->text));
                return;
        }
        struct question q = take(calls, at);
        if (m->why) {
                json_object_put(q.texts);
                link_fail(q.conn, 1, m->why);
        } else {
                json_object *o = json_object_new_object();

                json_add(o, "calls", q.texts);
                link_answer(q.conn, o);
        }
}
