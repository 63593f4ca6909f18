/*
 * What the broker is told of a server: a pure function of what is desired, planned and going on. Used by the controller's side of the link.
 */
#pragma once

#include "common/link/channel.h"
#include "controller/plan.h"

struct catalogue_facts {
        const struct plan_server *plan; /* of the last pass; NULL = not looked at yet */
        enum server_state state;        /* the plan's, corrected by what is going on and by what failed */
        const char *why;
        uint64_t retry_in_ms; /* SERVER_WAITING: when it is tried again */
        bool called;          /* on-demand servers: somebody wants it */
        const char *session;  /* stdio: instance of the session that the broker has with the running container; NULL = none */
        char **pins;          /* of the approved manifest; NULL = not known (yet) */
        bool may_start;       /* nothing of the host's stands in the way of a start */
};

/* For people who call a server, why it is not there: safe on a terminal, of bounded length, never empty. In place of what text has. */
void catalogue_why(struct buf *text, const char *why);
/*
 * false: it may not be called, or not be known (the broker forgets it). Texts are borrowed from s and f, and from `text` for one that had
 * to be made, which the caller owns.
 */
bool catalogue_entry(struct channel_entry *ret, struct buf *text, const struct desired_server *s, const struct catalogue_facts *f);
