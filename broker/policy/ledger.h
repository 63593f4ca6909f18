/*
 * What agents have used: sliding windows of calls, and budgets of calls, tokens and cost, exact and kept over restarts. One thread; every
 * admission is reserved before the call and settled behind it, so that calls at the same time cannot share what is left. Knows nothing of
 * rules: numbers in, numbers out. Used by broker/policy.
 *
 * Durability. A directory holds `counters` (a snapshot, replaced by tmp + fsync + rename) and `counters.N.journal` (what came after
 * snapshot N, fixed-size records with a checksum, in memory that is the file's). ledger_take() has written its record before it returns,
 * so whatever kills the process, nothing that was admitted is forgotten; a record torn by the kill belongs to a call that never went out.
 * No fsync stands in the way of a call: only a crash of the kernel or of the power can lose records, and agents cause neither.
 * ledger_sync(), called once a second, bounds what such a crash forgets. A counter is never lower than what was admitted, but may be
 * higher: what was reserved and not settled when the process died counts as used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define LEDGER_MAX_AGENTS    4096U /* with those that are no longer declared, whose windows and budgets still run */
#define LEDGER_MAX_LIMITS    16U   /* of one agent */
#define LEDGER_JOURNAL_BYTES (16U << 20)

struct ledger;

enum ledger_period { LEDGER_HOUR, LEDGER_DAY, LEDGER_MONTH, LEDGER_FOREVER }; /* by UTC */

struct ledger_limit {
        uint64_t key;       /* names the counter; the same key and window after a restart is the same counter */
        uint64_t window_ms; /* > 0. A call counts for window_ms to 33/32 of it. */
        uint32_t max_calls;
};

struct ledger_agent {
        const char *name; /* at most 64 bytes */
        const struct ledger_limit *limits;
        size_t n_limits;
        enum ledger_period period;
        uint64_t max_tokens, max_calls, max_cost; /* UINT64_MAX: no bound */
};

/*
 * Opens or makes the state in directory (which exists, and is locked until ledger_free()); dir NULL keeps everything in memory, for tests.
 * -1: it cannot be read or written, another process has it, or it is damaged: then nobody may be admitted, because nobody knows what was
 * used.
 */
_must_check_ int ledger_open(struct ledger **ret, const char *dir, struct err **err);
struct ledger *ledger_free(struct ledger *l);
DEFINE_FREEP(struct ledger *, ledger_free)

/*
 * Declares the agents from now on; their places in the array are their numbers. Counters of the same agent and key are kept. -1: nothing
 * changed. Writes a snapshot.
 */
_must_check_ int ledger_declare(struct ledger *l, const struct ledger_agent *agents, size_t n, struct err **err);

enum ledger_outcome { LEDGER_ADMITTED, LEDGER_RATE, LEDGER_CALLS, LEDGER_TOKENS, LEDGER_COST };

struct ledger_ask {
        size_t agent;
        uint32_t limits;       /* bit i: the agent's limit i counts this call */
        uint64_t now_ms;       /* since the epoch. The ledger goes by the latest it has ever seen: a clock set back wins nothing. */
        uint64_t tokens, cost; /* to reserve */
};

struct ledger_answer {
        enum ledger_outcome outcome;
        unsigned limit;          /* LEDGER_RATE: the one that says no for longest */
        uint64_t retry_after_ms; /* 0: never by itself */
};

/* What was reserved; zero: nothing. */
struct ledger_ticket {
        uint32_t agent; /* + 1 */
        uint32_t period;
        uint64_t tokens, cost;
};

/* Would this be admitted? Changes nothing. */
void ledger_probe(struct ledger *l, const struct ledger_ask *ask, struct ledger_answer *answer);
/* The same, and admits: the reservation is counted and on its way to the disk. -1: it could not be written, and nothing was counted. */
_must_check_ int ledger_take(struct ledger *l, const struct ledger_ask *ask, struct ledger_answer *answer, struct ledger_ticket *ticket,
                             struct err **err);
/*
 * Corrects a reservation by what the call used; the ticket becomes zero. A call that never went out is settled with 0, 0: it stays counted
 * as a call. -1: not written; memory has it, and a restart would count what was reserved.
 */
_must_check_ int ledger_settle(struct ledger *l, struct ledger_ticket *ticket, uint64_t tokens, uint64_t cost, struct err **err);

/*
 * Has the journal brought to the disk, when anything was written since. Once a second, from a timer. Does not wait for the disk: -1 is said
 * of what the call before began, which is begun again then.
 */
_must_check_ int ledger_sync(struct ledger *l, struct err **err);

struct ledger_usage {
        uint64_t calls, tokens, cost; /* in the running period */
        uint64_t in_window[LEDGER_MAX_LIMITS];
};
void ledger_usage(struct ledger *l, size_t agent, uint64_t now_ms, struct ledger_usage *usage);
/* By how much the clock is behind what the ledger has seen, in ms: above a few seconds, somebody set it back, and windows stand still. */
uint64_t ledger_clock_behind(const struct ledger *l, uint64_t now_ms);
