/*
 * Text of the guard for `nft -f`: the table `inet bulkhead` that denies whatever the policy did not mark. Pure; used only inside
 * controller/egress. The rules and their reasons are in docs/egress.md.
 */
#pragma once

#include "controller/egress/rules.h"

struct guard_params {
        uint32_t mark; /* one bit */
        uid_t own;     /* the controller: may speak to smoke tests */
        uid_t broker;
        bool have_broker;
};

/* The chains that the kernel calls. Priorities are relative to filter, which is 0; the policy of all is accept: they speak of bh* only. */
struct guard_hook {
        const char *chain, *hook;
        int priority;
};
#define GUARD_HOOKS 4
extern const struct guard_hook guard_hooks[GUARD_HOOKS];

/* Sets that exist keep their elements, all rules are replaced, in one transaction. Fails as a whole when a set has another form. */
void guard_text_load(struct buf *b, const struct guard_params *p);
/* The table is destroyed and made again with these elements, in one transaction: whatever a foreign hand put there is gone. */
void guard_text_replace(struct buf *b, const struct guard_params *p, const struct rules *rules);
/*
 * The same rules in a table of another name whose chains hook nothing: read back, it tells how this nft prints what we wrote. (Not a
 * dormant table: nft 1.0.6 prints a table's flags as random bytes in JSON.)
 */
void guard_text_reference(struct buf *b, const struct guard_params *p, const char *table);
/* add element / delete element lines. */
void guard_text_change(struct buf *b, const struct rules_delta *delta);
