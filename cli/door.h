/*
 * What agents' verbs ask of the broker: one POST to /v1, with the agent's token. Neither configuration nor root is needed, and the token
 * is never an argument: arguments can be read by every user of the host. Used by call and tools.
 */
#pragma once

#include "cli/cli.h"

struct door_options {
        const char *url;        /* --url, else http://127.0.0.1:8000. Not from the environment: who limits an agent to certain command lines
                                   also decides whom it can reach */
        const char *token_file; /* --token-file, $BULKHEAD_TOKEN_FILE; without: the token itself from $BULKHEAD_TOKEN */
};
#define DOOR_OPTS(o)                                                                                                                       \
        {"url", OPT_STRING, &(o)->url, "URL", "the broker (default http://127.0.0.1:8000)"},                                               \
        {                                                                                                                                  \
                "token-file", OPT_STRING, &(o)->token_file, "FILE",                                                                        \
                        "the agent's token (default $BULKHEAD_TOKEN_FILE, else $BULKHEAD_TOKEN)"                                           \
        }

/*
 * POST /v1/VERB; body is handed over. 0: *answer (owned) is the broker's object, *status that of HTTP. -1: it cannot be reached (exit 69),
 * or does not take the token (exit 77).
 */
_must_check_ int door_ask(struct cli *c, const struct door_options *o, const char *verb, json_object *body, json_object **answer,
                          long *status, struct err **err);
/* An answer that says why not, as an error with its exit code; -1. 2 when a human has to approve it. */
int door_refused(struct cli *c, json_object *answer, struct err **err);
