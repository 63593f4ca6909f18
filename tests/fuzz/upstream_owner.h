/*
 * The owner of a session whose server is fuzzed: asks for four things when it is ready, cancels some of them, answers what it is asked.
 * Every call ends once, with an answer or with a reason. Used by the fuzz targets of upstreams.
 */
#pragma once

#include "broker/gateway/upstream.h"

#define OWNER_LIMITS                                                                                                                       \
        {                                                                                                                                  \
                .max_message = 65536, .max_queued = 65536, .max_calls = 8, .max_noise = 20, .handshake_ms = 60000, .probe_ms = 60000       \
        }

static void owner_call_note(struct upstream_call *call, const struct mcp_message *m, _unused_ void *user)
{
        if (m->n % 3 == 0)
                upstream_call_cancel(call, "fuzzed");
}

static void owner_done(_unused_ struct upstream_call *call, const struct mcp_message *answer, const struct err *why, _unused_ void *user)
{
        if ((answer == NULL) == (why == NULL))
                abort();
}

static void owner_ready(struct upstream *u, _unused_ void *user)
{
        static const char params[] = "{\"name\":\"t\",\"_meta\":{\"progressToken\":\"x\"}}";
        static const enum mcp_method methods[] = {MCP_M_TOOLS_CALL, MCP_M_TOOLS_LIST, MCP_M_LISTEN, MCP_M_LISTEN};
        struct upstream_request q = {.params = mcp_slice_of(params),
                                     .name = {params + 8, 3},
                                     .progress_token = {strstr(params, "\"x\""), 3},
                                     .notification = owner_call_note,
                                     .done = owner_done};

        for (size_t i = 0; i < ELEMENTSOF(methods); i++) {
                q.method = methods[i];
                (void)upstream_request(u, &q);
        }
}

/* user: a bool. */
static void owner_ended(_unused_ struct upstream *u, _unused_ const struct err *why, void *user)
{
        *(bool *)user = true;
}

static void owner_notification(_unused_ struct upstream *u, _unused_ const struct mcp_message *m, _unused_ void *user)
{
}

static void owner_asked(struct upstream *u, _unused_ struct upstream_call *call, const struct mcp_message *m, _unused_ void *user)
{
        upstream_answer(u, m->id, mcp_slice_of("{}"), (struct mcp_slice){0});
}

static const struct upstream_events owner_events = {owner_ready, owner_ended, owner_notification, owner_asked, NULL};
