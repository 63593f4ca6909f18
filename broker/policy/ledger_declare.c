#include "broker/policy/ledger_internal.h"

/* By name, of an array of places. */
struct named {
        const char *name;
        uint32_t place;
};

static int compare_named(const void *a, const void *b)
{
        return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static bool window_is_live(const struct window *w, uint64_t now_ms)
{
        struct window copy = *w;

        window_advance(&copy, now_ms);
        return copy.total > 0;
}

/* Does forgetting this state give anybody anything? */
static bool state_is_live(const struct ledger_state *s, uint64_t now_ms)
{
        for (uint32_t i = 0; i < s->n_windows; i++)
                if (window_is_live(&s->windows[i], now_ms))
                        return true;
        return s->calls > 0 && s->period_number == ledger_period_number(s->period, now_ms);
}

static const struct window *find_window(const struct ledger_state *s, const struct ledger_limit *limit)
{
        for (uint32_t i = 0; s && i < s->n_windows; i++)
                if (s->windows[i].key == limit->key && s->windows[i].window_ms == limit->window_ms)
                        return &s->windows[i];
        return NULL;
}

static bool is_declared_window(const struct window *w, const struct ledger_agent *a)
{
        for (size_t i = 0; i < a->n_limits; i++)
                if (a->limits[i].key == w->key && a->limits[i].window_ms == w->window_ms)
                        return true;
        return false;
}

/* The state as it is from now on, with what was counted before. old may be NULL. */
static struct ledger_state *make_state(const struct ledger_state *old, const struct ledger_agent *a, uint64_t now_ms)
{
        struct window windows[LEDGER_MAX_WINDOWS];
        uint32_t n = 0;

        for (size_t i = 0; i < a->n_limits; i++) {
                const struct window *w = find_window(old, &a->limits[i]);

                windows[n++] = w ? *w : (struct window){.key = a->limits[i].key, .window_ms = a->limits[i].window_ms};
        }
        /* A limit that comes back must not have forgotten. */
        for (uint32_t i = 0; old && i < old->n_windows && n < LEDGER_MAX_WINDOWS; i++)
                if (!is_declared_window(&old->windows[i], a) && window_is_live(&old->windows[i], now_ms))
                        windows[n++] = old->windows[i];
        struct ledger_state *s = mem_alloc(sizeof(*s) + n * sizeof(struct window));
        if (old && old->period == a->period)
                *s = *old;
        else
                *s = (struct ledger_state){.period = a->period, .period_number = ledger_period_number(a->period, now_ms)};
        memcpy(s->name, a->name, strlen(a->name) + 1);
        s->declared = true;
        s->max_calls = a->max_calls;
        s->max_tokens = a->max_tokens;
        s->max_cost = a->max_cost;
        s->n_limits = (uint32_t)a->n_limits;
        s->n_windows = n;
        for (size_t i = 0; i < a->n_limits; i++)
                s->max_in_window[i] = a->limits[i].max_calls;
        memcpy(s->windows, windows, n * sizeof(struct window));
        return s;
}

static struct ledger_state *copy_state(const struct ledger_state *old)
{
        struct ledger_state *s = mem_alloc(sizeof(*s) + old->n_windows * sizeof(struct window));

        memcpy(s, old, sizeof(*s) + old->n_windows * sizeof(struct window));
        s->declared = false;
        return s;
}

struct plan {
        struct ledger_state **states;
        size_t n;
        uint32_t *declared;
};

static void plan_deinit(struct plan *p)
{
        for (size_t i = 0; i < p->n; i++)
                free(p->states[i]);
        free(p->states);
        free(p->declared);
}

/* Before anything was declared no ticket names a place, so that what is over can go. */
static void plan_old(struct plan *p, const struct ledger *l)
{
        bool first = l->declared == NULL;

        for (size_t i = 0; i < l->n_states; i++)
                if (!first || state_is_live(l->states[i], l->now_ms))
                        p->states[p->n++] = copy_state(l->states[i]);
}

static int plan_new(struct plan *p, const struct ledger *l, const struct ledger_agent *agents, size_t n, struct err **err)
{
        _cleanup_free_ struct named *old = NEW_N(struct named, p->n + 1);
        size_t n_old = p->n;

        for (uint32_t i = 0; i < n_old; i++)
                old[i] = (struct named){p->states[i]->name, i};
        qsort(old, n_old, sizeof(*old), compare_named);
        for (size_t i = 0; i < n; i++) {
                struct named wanted = {agents[i].name, 0};
                const struct named *found = n_old ? bsearch(&wanted, old, n_old, sizeof(wanted), compare_named) : NULL;
                struct ledger_state *before = found ? p->states[found->place] : NULL;

                if (strlen(agents[i].name) > LEDGER_MAX_NAME || agents[i].n_limits > LEDGER_MAX_LIMITS)
                        return err_set(err, ERR_LIMIT, "the agent %.80s has too long a name or too many limits", agents[i].name);
                if (!before && p->n == LEDGER_MAX_AGENTS)
                        return err_set(err, ERR_LIMIT,
                                       "more than %u agents have counters; restart the broker to drop those of agents that are gone",
                                       LEDGER_MAX_AGENTS);
                p->declared[i] = before ? found->place : (uint32_t)p->n;
                p->states[p->declared[i]] = make_state(before, &agents[i], l->now_ms);
                if (before)
                        old[found - old].name = p->states[found->place]->name;
                else
                        p->n++;
                free(before);
        }
        return 0;
}

int ledger_declare(struct ledger *l, const struct ledger_agent *agents, size_t n, struct err **err)
{
        struct plan p = {.states = mem_alloc((l->n_states + n + 1) * sizeof(struct ledger_state *)),
                         .declared = mem_alloc((n + 1) * sizeof(uint32_t))};

        plan_old(&p, l);
        if (plan_new(&p, l, agents, n, err) < 0 || (l->dir && ledger_write_snapshot(l, p.states, p.n, err) < 0)) {
                plan_deinit(&p);
                return -1;
        }
        struct plan old = {l->states, l->n_states, l->declared};
        l->states = p.states;
        l->n_states = p.n;
        l->declared = p.declared;
        l->n_declared = n;
        plan_deinit(&old);
        return 0;
}
