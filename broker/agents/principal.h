/*
 * Who an agent's request is from: the agent's name, and the run that its token names. Counted: exchanges, calls and sessions hold it.
 * Used inside broker/agents; the gateway sees it as an opaque name.
 */
#pragma once

#include <time.h>

#include "common/mem.h"

struct principal {
        unsigned refs;
        char *agent, *run;
        char *scope; /* "agent/run": what was loaded by a client without a session belongs to it */
        time_t issued_at, expires_at;
};

/* agent and run are copied. */
struct principal *principal_new(const char *agent, const char *run, time_t issued_at, time_t expires_at);
struct principal *principal_ref(struct principal *p);
void principal_unref(struct principal *p); /* NULL is fine */
