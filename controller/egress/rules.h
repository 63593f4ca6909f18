/*
 * What is to be, or is, in the kernel, as plain values: elements of the guard's sets and entries of the policy's set, sorted, so that wish
 * and read-back can be compared and subtracted. Used only inside controller/egress; pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"
#include "controller/egress/egress.h"

#define GUARD_TABLE    "bulkhead"
#define POLICY_SET     "bulkhead-allow"
#define POLICY_SET_MAX 1048576

/* Addresses and networks are in host byte order. */
struct entry {
        uint32_t address; /* the server */
        uint32_t net;
        uint16_t port;
        uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
        uint8_t prefix;   /* 1..32: ipset has no /0 */
};

enum guard_set { SET_PAIRS, SET_DENIED, SET_HTTP, SET_OWN, SET_EXTERNAL, GUARD_SETS };
extern const char *const guard_set_names[GUARD_SETS];

struct element {
        char bridge[16]; /* empty in SET_EXTERNAL */
        uint32_t address;
        uint16_t port; /* SET_HTTP, SET_OWN, SET_EXTERNAL */
        uint8_t set;
        char server[41]; /* comment of SET_PAIRS, for people; in SET_EXTERNAL the name in place of a bridge. Never compared */
};

struct rules {
        struct element *elements;
        size_t n_elements, cap_elements;
        struct entry *entries;
        size_t n_entries, cap_entries;
};

/* Is a port part of the set's elements? */
bool guard_set_has_port(enum guard_set set);
void rules_add_element(struct rules *r, const struct element *element);
void rules_add_entry(struct rules *r, struct entry entry);
/* Sorts and removes doubles; everything below expects that. */
void rules_sort(struct rules *r);
void rules_deinit(struct rules *r);
#define _cleanup_rules_ _cleanup_(rules_deinit)

/* What must be added to, and removed from, `from` to get `to`. */
struct rules_delta {
        struct rules add, remove;
};
void rules_diff(struct rules_delta *ret, const struct rules *from, const struct rules *to);
bool rules_delta_empty(const struct rules_delta *d);
void rules_delta_deinit(struct rules_delta *d);
#define _cleanup_delta_ _cleanup_(rules_delta_deinit)

int entry_cmp(const void *a, const void *b);
int element_cmp(const void *a, const void *b);
bool rules_has_entry(const struct rules *r, const struct entry *entry);
/* Is the address the address of an assigned pair? */
bool rules_has_address(const struct rules *r, uint32_t address);

/*
 * Adds the entries a rule stands for: one per port, protocol and half of a /0. A rule for a name or for IPv6 adds nothing
 * (nothing is allowed by it) and returns 1: there is no resolver to fill it.
 */
_must_check_ int rules_add_rule(struct rules *r, uint32_t address, const struct egress_rule *rule, struct err **err);
/* "192.0.2.0/24"; the plain address is a /32. Bits behind the prefix are refused. */
_must_check_ int cidr_parse(uint32_t *ret_net, unsigned *ret_prefix, const char *s, struct err **err);
/* bh + 8 lower-case hex digits. */
bool bridge_name_valid(const char *name);
bool address_parse(uint32_t *ret, const char *s);
const char *address_format(char out[16], uint32_t address);
