/*
 * Text of the policy: the chain BULKHEAD-FORWARD for `iptables-restore --noflush`, which marks what the set bulkhead-allow holds, and the
 * set's entries for `ipset restore`; and the reading of what iptables-save prints. Pure; used only inside controller/egress.
 */
#pragma once

#include "controller/egress/rules.h"

#define POLICY_CHAIN "BULKHEAD-FORWARD"

/* What of the policy stands in the filter table. */
struct policy_state {
        bool has_user;     /* Docker's DOCKER-USER exists … */
        bool user_reached; /* … and FORWARD jumps to it */
        bool chain_right;  /* our chain, rule for rule */
        bool jump_user;    /* DOCKER-USER jumps to ours before it returns */
        bool jump_forward; /* FORWARD jumps to ours */
};

void policy_state_parse(struct policy_state *ret, const char *save, uint32_t mark);
/* Is every packet between a server and the rest led through our chain? */
bool policy_state_right(const struct policy_state *s);
/* One COMMIT that makes it so. */
void policy_text_load(struct buf *b, uint32_t mark, const struct policy_state *now);

/* Does the text of iptables-save hold any rule, or a policy other than ACCEPT? To recognise a mix of iptables-legacy and iptables-nft. */
bool policy_text_has_rules(const char *save);

/* Lines for `ipset restore -exist`; create: the set itself, too. */
void policy_text_set(struct buf *b, const struct rules_delta *delta, bool create);
