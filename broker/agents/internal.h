/*
 * What the files of broker/agents share: one door, through which agents come.
 *
 *   door ─┬─ fronts (one for each address), gate (who it is)
 *         ├─ decider and ledger (what it may), decision log
 *         ├─ catalogue (what there is), shown (what was loaded by whom)
 *         └─ plain requests (/v1) under way
 */
#pragma once

#include <systemd/sd-event.h>

#include "broker/agents/catalogue.h"
#include "broker/agents/decision_log.h"
#include "broker/agents/denials.h"
#include "broker/agents/door.h"
#include "broker/agents/gate.h"
#include "broker/agents/pending.h"
#include "broker/gateway/gateway.h"
#include "broker/gateway/list.h"
#include "common/metrics.h"
#include "common/text.h"

struct shown;

#define STALE_META "io.bulkhead/stale" /* in a tool's _meta: true */

struct door_counts {
        uint64_t outcomes[POLICY_OUTCOMES], failed, tokens;
        struct histogram decisions, calls;
};

struct door {
        const struct conf *conf;
        sd_event *loop;
        struct gateway *gateway;
        struct gateway_guard guard;
        struct gate *gate;
        struct catalogue *catalogue;
        struct ledger *ledger;
        struct decider *decider;
        struct decision_log *log;
        struct denials *denials;
        uint64_t denials_ms; /* when their counts were written last, CLOCK_MONOTONIC */
        struct pending *pending;
        char *policy_trouble; /* why the file that is there now is not the policy in force */
        bool policy_was_read;
        void (*troubles_changed)(char *const *troubles, void *user);
        void *troubles_user;
        struct shown *shown;
        struct front_authenticator authenticator;
        struct front **fronts;
        size_t n_fronts;
        struct list plain; /* requests to /v1 under way */
        sd_event_source *sync;
        sd_event_source *later;      /* lines of the log wait for it; enabled while some do */
        time_t at;                   /* a second, and */
        char at_text[TEXT_TIME_MAX]; /* how the log writes it */
        sd_event_source *watches[2];
        size_t n_watches;
        uint64_t calls;              /* numbers of log lines */
        bool reloaded;               /* just now: agents that the policy names no longer lose their streams, too */
        bool agents_bad, policy_bad; /* the file cannot be read: what it said before is in force */
        struct door_counts counts;
};

/* -- choose.c: the gateway's guard ------------------------------------------------------------------------------------------------ */
void guard_init(struct door *d);
/* Of an agent whose token still counts; NULL: none. Until the policy is read again. */
const struct policy_agent *agent_rights(const struct door *d, const struct principal *who);
/* What an agent may see of a tool. */
enum policy_access tool_access(const struct policy_agent *a, const struct tool *t);
/* By any of its names, if this agent may see it. */
const struct tool *tool_seen(const struct door *d, const struct principal *who, const char *name);

/* The counts of denials that came again go into the log. */
void door_log_denials(struct door *d);
/* Since the epoch, in ms; never before what the gate has seen. */
uint64_t door_now_ms(const struct door *d);

/* -- metrics.c ------------------------------------------------------------------------------------------------------------------- */
void count_decision(struct door *d, const struct policy_decision *decision, uint64_t took_us);
void count_end(struct door *d, uint64_t took_us, uint64_t tokens, bool failed);

/* -- tools.c: the four tools ------------------------------------------------------------------------------------------------------- */
bool harness_is(const char *name);
/* Appends their elements of tools/list. */
void harness_list(struct buf *out);
/* Each appends a JSON object. arguments: checked JSON. -1: *why (owned) is a sentence for the caller. */
int harness_search(struct door *d, struct principal *who, struct mcp_slice arguments, struct buf *out, char **why);
/* 1: there is no such tool; *why says so. */
int harness_describe(struct door *d, struct principal *who, struct mcp_slice arguments, struct buf *out, char **why);
int harness_load(struct door *d, struct principal *who, const char *scope, struct mcp_slice arguments, struct buf *out, bool *changed,
                 char **why);
/* {"content": [text], "structuredContent": object}; the latter only where the tool promises no other form of it. */
void tool_result(struct buf *out, struct mcp_slice object, bool structured, bool is_error);

/* -- shown.c: what was loaded, by session or run ------------------------------------------------------------------------------------- */
struct shown *shown_new(void);
struct shown *shown_free(struct shown *s);
/* full: "server:tool". true: it was not there. */
bool shown_add(struct shown *s, const char *scope, const char *full);
/* NULL-terminated, sorted; NULL: nothing. Borrowed until shown_add(). */
char *const *shown_get(struct shown *s, const char *scope);

/* -- plain.c: /v1 ------------------------------------------------------------------------------------------------------------------ */
struct plain;
/* Takes x when its path begins with /v1/. */
bool plain_exchange(struct door *d, struct exchange *x);
/* The guard's decision about a call of plain's. text: a JSON object for the caller, when it is not allowed. */
void plain_decided(struct plain *p, const struct policy_decision *decision, struct mcp_slice text);
/* All that is under way is answered: we go away. */
void plain_stop(struct door *d);
