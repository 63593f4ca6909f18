/*
 * Asks the kernel about single entries of the policy's set, and for their number, over netlink: the set of 1,000 servers is not dumped to
 * look at one of them, and no process is started to look every half second. Used only inside controller/egress.
 */
#pragma once

#include "controller/egress/rules.h"

struct set_link;
_must_check_ int set_link_new(struct set_link **ret, struct err **err);
struct set_link *set_link_free(struct set_link *l);
DEFINE_FREEP(struct set_link *, set_link_free)

/* Number of entries. -1 with ERR_NOT_FOUND when the set does not exist. Does not block beyond a second; the kernel answers at once. */
_must_check_ int set_link_count(struct set_link *l, size_t *ret, struct err **err);
/* 1: it is in the set (for a /32: it, or a network that holds it), 0: it is not. */
_must_check_ int set_link_test(struct set_link *l, const struct entry *entry, struct err **err);
/* 1: the element is in its set of the guard, 0: it is not, or there is no such set. */
_must_check_ int set_link_test_element(struct set_link *l, const struct element *element, struct err **err);
