/*
 * Denials that come again and again, so that an agent in a loop does not push what others did out of the decision log: the first of its
 * kind is a line at once, those after it are counted, and the count is a line at the end of each period. Of many kinds at once, those
 * beyond a bound are counted together. No clock, no file: the door calls, and writes. Used by the door.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define DENIALS_KINDS     16U    /* of one agent that are told apart */
#define DENIALS_PERIOD_MS 60000U /* from one line of counts to the next */

struct denials;
struct denials *denials_new(void);
struct denials *denials_free(struct denials *d);
/*
 * One more denial. kind: the members of the line that tell it from others; together: what stays of them when it is one of too many.
 * true: it was counted and is in no line yet. false: write it. number: of the call.
 */
bool denials_again(struct denials *d, const char *agent, const char *run, const char *kind, const char *together, uint64_t number,
                   uint64_t now_ms);
/* Is anything counted that was not written? */
bool denials_pending(const struct denials *d);

struct denials_count {
        const char *agent, *run, *kind;
        uint64_t number, times, since_ms; /* the last call; how many came since then */
};
/*
 * The end of a period: write() for every count; one that cannot be written (-1) is kept for the next time, and nothing of it is lost. Kinds
 * that did not come in this period are forgotten: the next one is a first one.
 */
void denials_flush(struct denials *d, int (*write)(const struct denials_count *c, void *user), void *user);
