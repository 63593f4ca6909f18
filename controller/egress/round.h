/*
 * One round of bringing the kernel to the wishes: its plan (round.c) and the steps it runs (step.c). Used only by these two.
 */
#pragma once

#include "common/spawn.h"
#include "controller/egress/conntrack.h"
#include "controller/egress/egress_private.h"
#include "controller/egress/set_dump.h"

#define MAX_TURNS 4

/*
 * A round brings the kernel to the wishes. It runs its steps one after the other, each a program or a netlink exchange; after the last,
 * judge() compares and plans further steps, until what was read back is what was wished for.
 */
enum step {
        STEP_BACKEND,       /* which iptables is this? */
        STEP_OTHER_BACKEND, /* and is the other one in use, too? */
        STEP_REFERENCE,     /* how does this nft print our rules? */
        STEP_READ_REFERENCE,
        STEP_DROP_REFERENCE,
        STEP_WRITE_GUARD,  /* the whole table */
        STEP_CHANGE_GUARD, /* elements only */
        STEP_WRITE_SET,
        STEP_WRITE_POLICY,
        STEP_CONNTRACK,
        STEP_READ_GUARD,
        STEP_READ_SET,
        STEP_READ_POLICY,
        STEP_TEST, /* single elements and entries, and the number of entries */
};

struct round {
        struct egress *e;
        struct request *requests;
        size_t n_requests;
        uint64_t generation;
        enum step steps[16];
        size_t n_steps, at;
        unsigned turns; /* in which something was written */
        bool look;      /* guard and policy are read, too */
        bool full;      /* the last reading covered everything */
        bool read;      /* something was read back since the last write */

        struct rules target;
        struct rules before; /* what we left behind, while all is read again */
        bool has_before;
        bool unseen;              /* the guard was loaded before anything was read */
        struct rules_delta delta; /* of the turn */
        bool guard_exists, guard_right, set_exists, set_right;
        bool set_strange; /* it holds entries that are not ours: it is emptied first */
        struct err *set_err;
        struct buf foreign;

        struct spawn *spawn;
        struct conntrack_job *conntrack;
        struct set_dump *set_dump;
        struct err *err;
};

/* Ends the step that runs and begins the next; after the last one the round is judged. */
void round_next(struct round *r);
void round_plan(struct round *r, enum step step);
/* Adds to the sentence that tells what a foreign hand did. */
void round_tell(struct round *r, const char *what);
/* Answers the requests and frees the round. err is taken, NULL = in force. */
void round_finish(struct round *r, struct err *err);
/* err is taken. The round may live on. */
void round_step_failed(struct round *r, enum step step, struct err *err);

/* step.c: starts a step; round_next() or round_step_failed() is called when it is done, perhaps before this returns. */
void step_run(struct round *r, enum step step);
