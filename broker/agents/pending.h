/*
 * Calls that wait for a human, and what was decided about them. A decision is good for one agent, one tool of one manifest and the same
 * arguments, once or for a stated time; a question that nobody answers is over after an hour. Kept in the broker's state directory, so that
 * a restart forgets nothing. Used by the door.
 */
#pragma once

#include "common/err.h"
#include "common/json.h"

#define PENDING_ID_MAX    24U
#define PENDING_ASK_MS    UINT64_C(3600000)   /* how long a question waits */
#define PENDING_VALID_MS  UINT64_C(600000)    /* how long an approval waits to be used, unless it says otherwise */
#define PENDING_MAX_MS    UINT64_C(604800000) /* the longest time an approval may be good for */
#define PENDING_MAX       256U
#define PENDING_MAX_AGENT 32U
#define PENDING_SHOWN     8192U /* bytes of arguments that a human sees; a call with more can not be approved */

struct pending;

/* -1: what was kept cannot be read: nobody knows what was decided. */
_must_check_ int pending_open(struct pending **ret, const char *dir, struct err **err);
struct pending *pending_free(struct pending *p);
DEFINE_FREEP(struct pending *, pending_free)

struct pending_call {
        const char *agent, *run, *server, *tool, *manifest;
        const char *arguments; /* JSON text */
        const char *hash;      /* of its canonical form, hex */
};

enum pending_state { PENDING_WAITS, PENDING_APPROVED, PENDING_REJECTED };
struct pending_view {
        char id[PENDING_ID_MAX];
        enum pending_state state;
        uint64_t expires_ms; /* since the epoch */
};
/* What is known about this very call. false: nothing. */
bool pending_find(struct pending *p, const struct pending_call *call, uint64_t now_ms, struct pending_view *view);
/* Asks. -1: too many wait, or it could not be written. */
_must_check_ int pending_ask(struct pending *p, const struct pending_call *call, uint64_t now_ms, struct pending_view *view,
                             struct err **err);
/* An approval is used: one that was for once is gone. -1: not written, and then it must not be used. */
_must_check_ int pending_use(struct pending *p, const char *id, struct err **err);
/* valid_ms: the approval is good for so long and as often as is liked; 0: once. by: who says so. */
_must_check_ int pending_decide(struct pending *p, const char *id, bool approve, uint64_t valid_ms, const char *by, uint64_t now_ms,
                                struct err **err);
/* How many wait. */
size_t pending_waiting(struct pending *p, uint64_t now_ms);
/* An array of objects; of one agent, or of all (NULL). Owned. */
json_object *pending_list(struct pending *p, const char *agent, uint64_t now_ms);
