/*
 * Who wants an on-demand server to run: the broker asked for it and has not taken that back. Kept in memory only: what runs when the
 * controller starts is taken for wanted until its idle time without a broker is over. Used by the controller only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/link/channel.h"
#include "controller/desired.h"
#include "controller/observe.h"

struct controller;
struct key;

/* So many starts of one server at once, then one every refill_ms: of a server, and of all instances for sessions that it has. */
struct bucket_rate {
        unsigned burst, refill_ms;
};
extern const struct bucket_rate demand_starts, demand_instance_starts;

struct bucket {
        unsigned used;  /* tokens; 0 = it is full */
        uint64_t at_ms; /* when the last one came back */
};
/* Takes a token; false = there is none. Pure. now_ms: CLOCK_MONOTONIC. */
bool bucket_take(struct bucket *b, const struct bucket_rate *rate, uint64_t now_ms);

struct demand {
        bool called;
        unsigned serial;   /* of a place that is called: the broker's number for it */
        bool known;        /* what ran of it at the controller's start was looked at */
        uint64_t asked_ms; /* when somebody stood behind it last, CLOCK_MONOTONIC */
        struct bucket starts;
};

/* What runs, or is to run, and how much may. */
struct admission {
        unsigned instances, max_instances; /* of on-demand servers */
        uint64_t memory, max_memory;       /* bytes: the limits of all servers */
};
/* May one more with that memory limit run? NULL = yes, else a sentence (owned). Pure. */
char *admission_refuses(const struct admission *a, uint64_t memory);
struct admission demand_admission(struct controller *c);

/* The broker calls a server. 0 = it is wanted from now on; -1 = why not. */
_must_check_ int demand_call(struct key *key, const struct desired_server *s, struct err **err);
/*
 * The broker wants an instance more of a server that has one for every session, and will call it by that number; lists: the one that no
 * session has. -1 = why not; else *ret is the place that it gets.
 */
_must_check_ int demand_call_instance(struct key **ret, struct key *server, const struct desired_server *s, unsigned serial, bool lists,
                                      struct err **err);
/* The place that the broker calls by that number; NULL = none. */
struct key *demand_find(struct controller *c, const struct desired_server *s, unsigned serial);
/* Is there a place for one more session? */
bool demand_has_place(struct controller *c, const struct desired_server *s);
/* For a place its session is over, too. */
void demand_end(struct key *key, const char *reason);
/* Before a pass plans: ends what nobody stands behind any more, and asks for a pass when the next one is due. */
void demand_review(struct controller *c, const struct observed *observed);
