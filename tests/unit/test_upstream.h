/*
 * What the tests of upstream sessions share: an owner that writes down what it is told, and the loop. Servers are scripted by the tests,
 * in this process and on the same loop.
 */
#pragma once

#include <systemd/sd-event.h>

#include "broker/gateway/upstream.h"
#include "tests/unit/test.h"

/* Results of initialize and of server/discover. */
#define INIT(version)                                                                                                                      \
        "{\"protocolVersion\":\"" version "\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"},"          \
        "\"instructions\":\"be kind\"}"
#define MODERN                                                                                                                             \
        "{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},\"ttlMs\":0,"                 \
        "\"cacheScope\":\"public\"}"

/* What became of one call. Cancelled when it goes out of scope before its end. */
struct asked {
        struct rig *rig;
        struct upstream_call *call;
        bool over;
        unsigned n_done;
        char *result; /* as written */
        int64_t error_code;
        struct err *why;
        unsigned n_notes;
        char *note; /* the last one's text */
        bool cancel_in_note, free_in_note, free_in_done;
};
void asked_deinit(struct asked *a);
#define _cleanup_asked_ _cleanup_(asked_deinit)

struct rig {
        sd_event *loop;
        struct upstream *u;
        struct upstream_pool *pool; /* NULL = none is shared */
        struct upstream_config config;
        bool ready, ended;
        struct err *why;
        unsigned n_notes, n_requests, n_withdrawn;
        char *note, *request, *request_id, *withdrawn;
        struct upstream_call *request_on;
        /* Which callback is to free the session. */
        bool free_in_ready, free_in_ended, free_in_note, free_in_request, free_in_withdrawn;
        bool answer; /* requests, with {"a":1} */
};
extern const struct upstream_events rig_events;
struct rig *rig_new(void);
struct rig *rig_free(struct rig *r);
DEFINE_FREEP(struct rig *, rig_free)
#define _cleanup_rig_ _cleanup_(rig_freep)

/* Runs the loop until *flag, at most 60 s. */
void rig_wait(struct rig *r, const bool *flag);
/* Runs it for that long. */
void rig_run(struct rig *r, uint64_t ms);
/* tools/call with these params; timeouts 60 s. */
void rig_ask(struct rig *r, struct asked *a, const char *params);
void rig_ask_more(struct rig *r, struct asked *a, const struct upstream_request *request);
void rig_cancel(struct asked *a, const char *reason);
/* Until *count is at least that. */
void rig_wait_count(struct rig *r, const unsigned *count, unsigned at_least);
uint64_t now_us(void);

/* part stands in err's message. */
void assert_says(const struct err *err, const char *part);
/* The session is over, or will be, and this is why. */
void assert_ends(struct rig *r, const char *part);
