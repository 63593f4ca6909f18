/*
 * Notices foreign hands: listens to the kernel's nftables notifications (iptables-nft's included), and looks now and then at what gives
 * none (the policy's set; legacy iptables). It only says "look again". Used only inside controller/egress.
 */
#pragma once

#include "common/err.h"
#include "common/mem.h"

struct egress;
struct watch;
/* Needs CAP_NET_ADMIN. e is borrowed and must outlive it. */
_must_check_ int watch_new(struct watch **ret, struct egress *e, struct err **err);
struct watch *watch_free(struct watch *w);
DEFINE_FREEP(struct watch *, watch_free)

/* Brackets a program of ours that changes nftables rules: its commits are not foreign. */
void watch_own_begin(struct watch *w);
void watch_own_end(struct watch *w);
