#include "broker/policy/ledger_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define HOUR_MS UINT64_C(3600000)
#define DAY_MS  (24 * HOUR_MS)

/* -- time ---------------------------------------------------------------------------------------------------------------------- */
static uint32_t month_number(uint64_t now_ms)
{
        time_t seconds = (time_t)(now_ms / 1000);
        struct tm tm;

        if (!gmtime_r(&seconds, &tm))
                return 0;
        return (uint32_t)(12 * tm.tm_year + tm.tm_mon);
}

uint32_t ledger_period_number(enum ledger_period period, uint64_t now_ms)
{
        switch (period) {
        case LEDGER_HOUR:
                return (uint32_t)(now_ms / HOUR_MS);
        case LEDGER_DAY:
                return (uint32_t)(now_ms / DAY_MS);
        case LEDGER_MONTH:
                return month_number(now_ms);
        case LEDGER_FOREVER:
                break;
        }
        return 0;
}

/* Until the next period; 0 when there is none. */
static uint64_t period_left(enum ledger_period period, uint64_t now_ms)
{
        uint64_t days = 1;

        switch (period) {
        case LEDGER_HOUR:
                return HOUR_MS - now_ms % HOUR_MS;
        case LEDGER_DAY:
                return DAY_MS - now_ms % DAY_MS;
        case LEDGER_MONTH:
                while (month_number(now_ms + days * DAY_MS) == month_number(now_ms))
                        days++;
                return days * DAY_MS - now_ms % DAY_MS;
        case LEDGER_FOREVER:
                break;
        }
        return 0;
}

static void roll_period(struct ledger_state *s, uint64_t now_ms)
{
        uint32_t number = ledger_period_number(s->period, now_ms);

        if (number == s->period_number)
                return;
        s->period_number = number;
        s->calls = s->tokens = s->cost = 0;
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
        uint64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* -- counting ------------------------------------------------------------------------------------------------------------------ */
static void apply_take(struct ledger *l, struct ledger_state *s, const struct record *r)
{
        l->now_ms = MAX(l->now_ms, r->now_ms);
        roll_period(s, l->now_ms);
        s->calls++;
        s->tokens = add_capped(s->tokens, r->tokens);
        s->cost = add_capped(s->cost, r->cost);
        for (uint32_t i = 0; i < s->n_windows && i < LEDGER_MAX_LIMITS; i++) {
                if (!(r->limits & 1U << i))
                        continue;
                window_advance(&s->windows[i], l->now_ms);
                window_add(&s->windows[i]);
        }
}

static uint64_t corrected(uint64_t used, uint64_t delta)
{
        if (delta <= INT64_MAX)
                return add_capped(used, delta);
        return used > -delta ? used + delta : 0;
}

void ledger_apply(struct ledger *l, const struct record *r)
{
        struct ledger_state *s = l->states[r->agent];

        if (r->type == RECORD_TAKE) {
                apply_take(l, s, r);
        } else if (r->period == s->period_number) {
                s->tokens = corrected(s->tokens, r->tokens);
                s->cost = corrected(s->cost, r->cost);
        }
}

static struct ledger_state *look(struct ledger *l, size_t agent, uint64_t now_ms)
{
        struct ledger_state *s = l->states[l->declared[agent]];

        l->now_ms = MAX(l->now_ms, now_ms);
        roll_period(s, l->now_ms);
        for (uint32_t i = 0; i < s->n_limits; i++)
                window_advance(&s->windows[i], l->now_ms);
        return s;
}

static enum ledger_outcome check_budget(const struct ledger_state *s, const struct ledger_ask *ask)
{
        if (s->calls >= s->max_calls)
                return LEDGER_CALLS;
        /* A call uses something, also when nothing is reserved for it. */
        if (s->max_tokens != UINT64_MAX && add_capped(s->tokens, MAX(ask->tokens, 1)) > s->max_tokens)
                return LEDGER_TOKENS;
        if (s->max_cost != UINT64_MAX && ask->cost > 0 && add_capped(s->cost, ask->cost) > s->max_cost)
                return LEDGER_COST;
        return LEDGER_ADMITTED;
}

void ledger_probe(struct ledger *l, const struct ledger_ask *ask, struct ledger_answer *answer)
{
        const struct ledger_state *s = look(l, ask->agent, ask->now_ms);

        *answer = (struct ledger_answer){0};
        for (uint32_t i = 0; i < s->n_limits; i++) {
                if (!(ask->limits & 1U << i) || s->windows[i].total < s->max_in_window[i])
                        continue;
                uint64_t wait = window_retry_after(&s->windows[i], l->now_ms, s->max_in_window[i]);
                if (answer->outcome == LEDGER_RATE && (answer->retry_after_ms == 0 || (wait > 0 && wait <= answer->retry_after_ms)))
                        continue;
                *answer = (struct ledger_answer){LEDGER_RATE, i, wait};
        }
        if (answer->outcome == LEDGER_RATE)
                return;
        answer->outcome = check_budget(s, ask);
        if (answer->outcome != LEDGER_ADMITTED)
                answer->retry_after_ms = period_left(s->period, l->now_ms);
}

int ledger_take(struct ledger *l, const struct ledger_ask *ask, struct ledger_answer *answer, struct ledger_ticket *ticket,
                struct err **err)
{
        *ticket = (struct ledger_ticket){0};
        ledger_probe(l, ask, answer);
        if (answer->outcome != LEDGER_ADMITTED)
                return 0;
        uint32_t place = l->declared[ask->agent];
        const struct ledger_state *s = l->states[place];
        struct record r = {.type = RECORD_TAKE,
                           .agent = place,
                           .period = s->period_number,
                           .now_ms = l->now_ms,
                           .tokens = ask->tokens,
                           .cost = ask->cost,
                           .limits = (uint16_t)(ask->limits & ((1U << s->n_limits) - 1))};
        if (ledger_append(l, &r, err) < 0)
                return -1;
        ledger_apply(l, &r);
        *ticket = (struct ledger_ticket){place + 1, r.period, ask->tokens, ask->cost};
        return 0;
}

int ledger_settle(struct ledger *l, struct ledger_ticket *ticket, uint64_t tokens, uint64_t cost, struct err **err)
{
        struct ledger_ticket t = *ticket;

        *ticket = (struct ledger_ticket){0};
        if (t.agent == 0 || (tokens == t.tokens && cost == t.cost))
                return 0;
        /* Beyond 2^62 nobody counts; so a difference fits into 63 bits and a sign. */
        struct record r = {.type = RECORD_SETTLE,
                           .agent = t.agent - 1,
                           .period = t.period,
                           .now_ms = l->now_ms,
                           .tokens = MIN(tokens, UINT64_C(1) << 62) - t.tokens,
                           .cost = MIN(cost, UINT64_C(1) << 62) - t.cost};
        int written = ledger_append(l, &r, err);
        ledger_apply(l, &r);
        return written;
}

void ledger_usage(struct ledger *l, size_t agent, uint64_t now_ms, struct ledger_usage *usage)
{
        const struct ledger_state *s = look(l, agent, now_ms);

        *usage = (struct ledger_usage){.calls = s->calls, .tokens = s->tokens, .cost = s->cost};
        for (uint32_t i = 0; i < s->n_limits; i++)
                usage->in_window[i] = s->windows[i].total;
}

uint64_t ledger_clock_behind(const struct ledger *l, uint64_t now_ms)
{
        return l->now_ms > now_ms ? l->now_ms - now_ms : 0;
}

/* -- life ---------------------------------------------------------------------------------------------------------------------- */
static int lock_directory(struct ledger *l, struct err **err)
{
        l->lock = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (l->lock < 0)
                return err_sys(err, errno, "cannot open the directory of the counters, %s", l->dir);
        if (flock(l->lock, LOCK_EX | LOCK_NB) == 0)
                return 0;
        if (errno == EWOULDBLOCK)
                return err_set(err, ERR_CONFLICT, "another process counts in %s: stop the other broker first", l->dir);
        return err_sys(err, errno, "cannot lock %s", l->dir);
}

int ledger_open(struct ledger **ret, const char *dir, struct err **err)
{
        _cleanup_(ledger_freep) struct ledger *l = NEW(struct ledger);

        l->journal = l->lock = -1;
        l->dir = mem_strdup(dir);
        if (dir)
                ledger_sync_init(l);
        if (dir && (lock_directory(l, err) < 0 || ledger_read(l, err) < 0))
                return -1;
        *ret = TAKE_PTR(l);
        return 0;
}

struct ledger *ledger_free(struct ledger *l)
{
        if (!l)
                return NULL;
        for (size_t i = 0; i < l->n_states; i++)
                free(l->states[i]);
        free(l->states);
        free(l->declared);
        ledger_sync_deinit(l);
        ledger_close_journal(l);
        if (l->lock >= 0)
                close(l->lock);
        free(l->dir);
        free(l);
        return NULL;
}
