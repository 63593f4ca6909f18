/*
 * Addresses of instances: one /29 each, from our own pool, clear of every network the Engine or the host already has.
 * Pure, but for address_pool_add_routes(). Used by the controller, which keeps no table of leases (the Engine's networks are the leases),
 * and by bulkhead compose.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define SUBNET_MAX  20 /* "255.255.255.255/29" */
#define ADDRESS_MAX 16 /* "255.255.255.255" */

struct address_pool;

/* cidr: "10.213.0.0/16"; a prefix of 8 to 26 bits. */
_must_check_ int address_pool_new(struct address_pool **ret, const char *cidr, struct err **err);
struct address_pool *address_pool_free(struct address_pool *p);
DEFINE_FREEP(struct address_pool *, address_pool_free)

/* Forgets what was marked used. */
void address_pool_reset(struct address_pool *p);
/* Marks "10.213.0.8/29", or a larger or smaller network that overlaps the pool, as used. Text that is no IPv4 network is ignored. */
void address_pool_use(struct address_pool *p, const char *cidr);
/* Marks what the host routes elsewhere (file: /proc/net/route), bridges of ours left out. */
_must_check_ int address_pool_add_routes(struct address_pool *p, const char *file, struct err **err);
/* Takes a free /29 and marks it used. */
_must_check_ int address_pool_take(struct address_pool *p, char out[SUBNET_MAX], struct err **err);
/* Does a network text lie inside the pool and have 29 bits? */
bool address_pool_owns(const struct address_pool *p, const char *cidr);

/* "10.213.0.8/29" -> "10.213.0.9" (ours) and "10.213.0.10" (the container's). */
void address_of_gateway(char out[ADDRESS_MAX], const char *subnet);
void address_of_container(char out[ADDRESS_MAX], const char *subnet);
