#include "broker/agents/denials.h"

#include "common/mem.h"

/* Those that are counted together are kinds of their own: one for each outcome, and that is few. */
#define ROOM (DENIALS_KINDS + 16U)

struct kind {
        char *text, *run;
        uint64_t number, times, since_ms;
        bool came;     /* in this period */
        bool together; /* of those that are not told apart */
};

struct denied {
        char *agent;
        struct kind kinds[ROOM];
        size_t n, apart; /* in all; those that are told apart */
};

struct denials {
        struct denied **agents; /* as many as were denied something in this period and the one before */
        size_t n;
};

struct denials *denials_new(void)
{
        return NEW(struct denials);
}

static void kind_deinit(struct kind *k)
{
        free(k->text);
        free(k->run);
}

static void denied_free(struct denied *a)
{
        for (size_t i = 0; i < a->n; i++)
                kind_deinit(&a->kinds[i]);
        free(a->agent);
        free(a);
}

struct denials *denials_free(struct denials *d)
{
        for (size_t i = 0; d && i < d->n; i++)
                denied_free(d->agents[i]);
        if (d)
                free(d->agents);
        free(d);
        return NULL;
}

static struct denied *of_agent(struct denials *d, const char *agent)
{
        for (size_t i = 0; i < d->n; i++)
                if (str_eq(d->agents[i]->agent, agent))
                        return d->agents[i];
        d->agents = mem_realloc(d->agents, d->n + 1, sizeof(*d->agents));
        struct denied *a = d->agents[d->n++] = NEW(struct denied);
        a->agent = mem_strdup(agent);
        return a;
}

static struct kind *find(struct denied *a, const char *run, const char *text)
{
        for (size_t i = 0; i < a->n; i++)
                if (str_eq(a->kinds[i].text, text) && str_eq(a->kinds[i].run, run))
                        return &a->kinds[i];
        return NULL;
}

static struct kind *add(struct denied *a, const char *run, const char *text, bool together)
{
        struct kind *k = &a->kinds[a->n++];

        *k = (struct kind){.text = mem_strdup(text), .run = mem_strdup(run), .together = together};
        a->apart += !together;
        return k;
}

bool denials_again(struct denials *d, const char *agent, const char *run, const char *kind, const char *together, uint64_t number,
                   uint64_t now_ms)
{
        struct denied *a = of_agent(d, agent);
        struct kind *k = find(a, run, kind);

        if (!k && a->apart < DENIALS_KINDS) {
                add(a, run, kind, false)->came = true;
                return false;
        }
        if (!k)
                k = find(a, "", together);
        if (!k && a->n < ROOM)
                k = add(a, "", together, true);
        if (!k) /* there are not that many outcomes: what has no room is counted with the last of them */
                k = &a->kinds[ROOM - 1];
        if (k->times++ == 0)
                k->since_ms = now_ms;
        k->number = number;
        k->came = true;
        return true;
}

bool denials_pending(const struct denials *d)
{
        return d->n > 0;
}

/* true: it is to be kept. */
static bool end_period(struct denied *a, struct kind *k, int (*write)(const struct denials_count *c, void *user), void *user)
{
        const struct denials_count c = {
                .agent = a->agent, .run = k->run, .kind = k->text, .number = k->number, .times = k->times, .since_ms = k->since_ms};
        bool came = k->came;

        k->came = false;
        if (k->times && write(&c, user) < 0)
                return true;
        k->times = 0;
        return came;
}

static void sweep(struct denied *a, int (*write)(const struct denials_count *c, void *user), void *user)
{
        size_t kept = 0, apart = 0;

        for (size_t i = 0; i < a->n; i++) {
                if (!end_period(a, &a->kinds[i], write, user)) {
                        kind_deinit(&a->kinds[i]);
                        continue;
                }
                apart += !a->kinds[i].together;
                a->kinds[kept++] = a->kinds[i];
        }
        a->n = kept;
        a->apart = apart;
}

void denials_flush(struct denials *d, int (*write)(const struct denials_count *c, void *user), void *user)
{
        size_t kept = 0;

        for (size_t i = 0; i < d->n; i++) {
                sweep(d->agents[i], write, user);
                if (d->agents[i]->n)
                        d->agents[kept++] = d->agents[i];
                else
                        denied_free(d->agents[i]);
        }
        d->n = kept;
}
