/*
 * State of the ledger, and its two files. Only for ledger*.c.
 */
#pragma once

#include <sys/types.h>

#include "broker/policy/ledger.h"
#include "broker/policy/window.h"
#include "common/mem.h"

#define LEDGER_MAX_NAME    64U
#define LEDGER_MAX_WINDOWS (2 * LEDGER_MAX_LIMITS) /* with those whose limit is no longer declared and that still hold calls */

/* Of one agent. What is declared comes first among the windows: window i is that of limit i. */
struct ledger_state {
        char name[LEDGER_MAX_NAME + 1];
        bool declared;
        enum ledger_period period;
        uint32_t period_number; /* which hour, day, month */
        uint64_t calls, tokens, cost;
        uint64_t max_calls, max_tokens, max_cost;
        uint32_t n_limits, n_windows;
        uint32_t max_in_window[LEDGER_MAX_LIMITS];
        struct window windows[];
};

struct ledger {
        char *dir; /* NULL: memory only */
        int lock;  /* the directory, locked: two processes would count past each other */
        uint64_t generation, now_ms;
        int journal;   /* -1: none yet */
        char *records; /* its bytes, in memory that is the file's: a system call for each would cost more than all else here */
        size_t journal_size, journal_room; /* bytes that hold records; that have a place on the disk */
        bool unsynced, syncing;            /* not on the disk yet; on its way there */
        uint64_t aio;                      /* context of the kernel's asynchronous I/O; 0: none */
        struct ledger_state **states;      /* a place is kept as long as the process lives: tickets name it */
        size_t n_states;
        uint32_t *declared; /* places of the declared agents */
        size_t n_declared;
};

enum record_type { RECORD_TAKE = 1, RECORD_SETTLE = 2 };
struct record {
        uint32_t check; /* over the rest and the generation */
        uint16_t type, limits;
        uint32_t agent; /* place among the states */
        uint32_t period;
        uint64_t now_ms;
        uint64_t tokens, cost; /* RECORD_SETTLE: what is to be added, modulo 2^64 */
};

/* Applies a record, whether new or read again. The place must be valid. */
void ledger_apply(struct ledger *l, const struct record *r);
/* Number of the period that a time is in. */
uint32_t ledger_period_number(enum ledger_period period, uint64_t now_ms);

/* -- ledger_sync.c ------------------------------------------------------------------------------------------------------------ */
void ledger_sync_init(struct ledger *l);
void ledger_sync_deinit(struct ledger *l);

/* -- ledger_file.c ------------------------------------------------------------------------------------------------------------ */
/* Snapshot of these states as the next generation, with an empty journal. On success l has the new generation and journal. */
_must_check_ int ledger_write_snapshot(struct ledger *l, struct ledger_state *const *states, size_t n, struct err **err);
void ledger_close_journal(struct ledger *l);
/* Reads both files into a new ledger. Nothing there is a new beginning. */
_must_check_ int ledger_read(struct ledger *l, struct err **err);
/* Appends a record; fills in its check. */
_must_check_ int ledger_append(struct ledger *l, struct record *r, struct err **err);
