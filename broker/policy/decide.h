/*
 * The one decision: may this agent do this now, with these arguments? Every door (MCP, HTTP, CLI) asks here and nowhere else. No sockets,
 * no sessions: values in, a decision out; its only effect is what it counts. One thread. Used by the broker.
 *
 *   does-not-exist, then rate_limited and budget_exhausted, then bad_arguments, then approval_required, then allow
 *
 * is the order: who may not know of a tool learns nothing else, and what is refused anyway costs no check of arguments. Only what is
 * allowed is counted. Whatever cannot be decided (unknown agent or tool, a schema that is not understood, counters that cannot be written)
 * is denied. "Denied" and "does not exist" are one outcome, found by the same work.
 */
#pragma once

#include "broker/policy/ledger.h"
#include "common/mcp/message.h"
#include "common/policy/policy.h"

/* A tool of an approved manifest, with its schema understood once. Immutable; owned by whoever keeps the catalogue. */
struct policy_tool;
/*
 * schema is the text of inputSchema (n bytes, from the server). One that is not understood makes a tool that nobody can call; why stands in
 * policy_tool_fault(). manifest_sha256: of the manifest that was approved, for approvals of single calls and for the log.
 */
struct policy_tool *policy_tool_new(const char *server, const char *name, enum action_class action, const char *schema, size_t n,
                                    const char *manifest_sha256);
struct policy_tool *policy_tool_free(struct policy_tool *t);
DEFINE_FREEP(struct policy_tool *, policy_tool_free)
/* NULL: its schema is understood. Borrowed. */
const char *policy_tool_fault(const struct policy_tool *t);
const char *policy_tool_manifest(const struct policy_tool *t);

struct policy_request {
        const char *agent; /* from the verified token; NULL: nobody, for whom nothing exists */
        enum policy_kind kind;
        const char *server, *name;      /* as asked for: plain text */
        const struct policy_tool *tool; /* of the catalogue; NULL: it has none of that name. For other kinds than tools: unused. */
        bool exists;                    /* for other kinds: the catalogue has it */
        struct mcp_slice arguments;     /* checked JSON, an object (params.arguments of a scanned message); absent: {} */
        bool approved;   /* a human approved this call: agent, tool, manifest and arguments. Use it up when this is allowed. */
        uint64_t now_ms; /* since the epoch */
};

enum policy_outcome {
        POLICY_ALLOWED,
        POLICY_DOES_NOT_EXIST,
        POLICY_APPROVAL_REQUIRED,
        POLICY_RATE_LIMITED,
        POLICY_BUDGET_EXHAUSTED,
        POLICY_BAD_ARGUMENTS,
        POLICY_FAILED, /* our own fault: refuse, and log `why` */
};
#define POLICY_OUTCOMES 7
/* "allow", "does-not-exist", … for logs. Static. */
const char *policy_outcome_name(enum policy_outcome outcome);

struct policy_decision {
        enum policy_outcome outcome;
        const char *rule;            /* what decided; borrowed from the policy, which the decider holds until decider_swap() */
        uint64_t retry_after_ms;     /* rate_limited, budget_exhausted; 0: not by itself */
        char where[192];             /* bad_arguments: RFC 6901 pointer into the arguments, may be "" (the whole) */
        char why[256];               /* for the agent: names no value of another agent and no rule's text. UTF-8, may hold foreign text. */
        struct ledger_ticket ticket; /* allow: to be settled, whatever becomes of the call */
        uint64_t price_per_1000_tokens; /* for settling, in millionths of a dollar */
        uint64_t price_per_call;
};

struct decider;

/* A reference to policy is taken; ledger is borrowed and outlives the decider. Declares the policy's agents to the ledger. */
_must_check_ int decider_new(struct decider **ret, struct policy *policy, struct ledger *ledger, struct err **err);
struct decider *decider_free(struct decider *d);
DEFINE_FREEP(struct decider *, decider_free)
/* From now on by another policy. -1: the old one stays in force. Tickets of calls under way stay good. */
_must_check_ int decider_swap(struct decider *d, struct policy *policy, struct err **err);
const struct policy *decider_policy(const struct decider *d);

void decide(struct decider *d, const struct policy_request *request, struct policy_decision *decision);
/*
 * After the call: tokens as the server reported them, or estimated by policy_estimate_tokens(). The decision's ticket is used up. -1: see
 * ledger_settle().
 */
_must_check_ int decider_settle(struct decider *d, struct policy_decision *decision, uint64_t tokens, struct err **err);
#define DECIDER_SHARES 3
struct decider_use {
        size_t agents;                /* that the policy names */
        size_t above[DECIDER_SHARES]; /* of them, those that have used at least half, four fifths, all of one of their budgets */
        uint64_t calls, tokens, cost; /* of all of them, each in its running period; cost in millionths of a dollar */
};
void decider_use(const struct decider *d, uint64_t now_ms, struct decider_use *ret);
/* Four bytes of JSON are taken for one token. */
static inline uint64_t policy_estimate_tokens(size_t arguments_bytes, size_t result_bytes)
{
        return ((uint64_t)arguments_bytes + result_bytes + 3) / 4;
}
