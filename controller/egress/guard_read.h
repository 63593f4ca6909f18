/*
 * What `nft -j list table inet bulkhead` says, as values: the elements of the sets, the counters, and a hash over everything else, which is
 * compared with the hash of the same rules in the reference table. Pure; used only inside controller/egress.
 */
#pragma once

#include "common/json.h"
#include "controller/egress/rules.h"

struct guard_counter {
        char bridge[16];
        uint64_t sent_packets, sent_bytes;
        uint64_t denied_packets, denied_bytes;
};

struct guard_state {
        char form[SHA256_HEX];          /* of chains, sets and rules, without hooks, handles, elements and counts */
        unsigned hooks;                 /* chains hooked as guard_hooks says */
        struct rules rules;             /* elements only */
        struct guard_counter *counters; /* one per bridge, sorted by it */
        size_t n_counters;
        json_object *totals; /* named counters: {"spoofed": {"packets": …, "bytes": …}, …} */
};

/* strange: set when something was found that we could not have written: an element (it is left out of rules), a hook, a flag of the table.
 */
_must_check_ int guard_state_parse(struct guard_state *ret, const char *text, size_t n, bool *strange, struct err **err);
const struct guard_counter *guard_state_counter(const struct guard_state *s, const char *bridge);
void guard_state_deinit(struct guard_state *s);
#define _cleanup_guard_state_ _cleanup_(guard_state_deinit)
