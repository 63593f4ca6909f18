/*
 * The kernel's rules: the fail-closed guard (nftables table `inet bulkhead`) and the policy (iptables chains BULKHEAD-…, ipset sets) that
 * marks what is allowed. Owned by the controller; nft, ipset, iptables-restore and conntrack run without a shell. Text generation is pure
 * (guard_text.c, policy_text.c) and tested as such; applying is asynchronous and batched: one transaction at a time, what is asked
 * meanwhile goes together into the next.
 *
 * Source of the rules: docs/egress in the manual.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/conf.h"
#include "common/registry/registry.h"

/* One instance's wishes: which bridge, which address, what it may reach. */
struct egress_instance {
        char bridge[16];
        char address[16]; /* dotted IPv4 of the container */
        char *server;
        const struct egress_rule *rules; /* borrowed until egress_set() returns (copied) */
        size_t n_rules;
        bool smoke;         /* a smoke test: nothing goes out; our own uid may speak to it */
        uint16_t http_port; /* broker uid (and, for smoke, ours) may connect to this port; 0 = none */
        /*
         * Not an instance of ours but an external server: all of it is that the broker's uid may connect to address and http_port, which it
         * may nowhere else. bridge is a name of the form of one, and only says whose permission this is.
         */
        bool external;
};

struct egress;
/* changed: called when what is in force changed by a foreign hand and was (or could not be) repaired; what: one sentence. */
typedef void (*egress_event_fn)(const char *what, bool repaired, void *user);
_must_check_ int egress_new(struct egress **ret, sd_event *loop, const struct conf *conf, egress_event_fn changed, void *user,
                            struct err **err);
struct egress *egress_free(struct egress *e); /* leaves the kernel's rules as they are: deny stays */
DEFINE_FREEP(struct egress *, egress_free)

typedef void (*egress_done_fn)(struct err *err /* borrowed, NULL = in force and read back */, void *user);
/* Loads guard and empty policy when they are absent or differ, adopting what a former process left. */
void egress_load(struct egress *e, egress_done_fn done, void *user);
/* The instance may be set before its network exists. done after it was read back from the kernel. Leftover conntrack entries of the address
 * are dropped. */
void egress_set(struct egress *e, const struct egress_instance *instance, egress_done_fn done, void *user);
/* Takes an instance's permissions away (pair last), and its conntrack entries. */
void egress_remove(struct egress *e, const char *bridge, egress_done_fn done, void *user);
/* Removes every instance not in the list (called once after start-up and at resync). */
void egress_keep_only(struct egress *e, char *const *bridges, egress_done_fn done, void *user);
/* Full read-back and compare; repairs. Called at resync, also by the netlink listener. *err says what could not be repaired. */
void egress_verify(struct egress *e, egress_done_fn done, void *user);
/* Is this instance in force as of the last read-back? Cheap, from memory. */
bool egress_in_force(const struct egress *e, const char *bridge);
/* Is there anything of this instance, be it only what a former process left? Cheap, from memory. */
bool egress_has(const struct egress *e, const char *bridge);
/* For `egress show`: counters and rules as JSON, read from the kernel. Calls back with an owned object. */
typedef void (*egress_show_fn)(json_object *show, struct err *err, void *user);
void egress_show(struct egress *e, const char *server, egress_show_fn done, void *user);

/* Pure: text of the guard for `nft -f`, also written by `bulkhead-controller --print-guard` for the boot unit. Owned. */
char *egress_guard_text(const struct conf *conf, uid_t controller_uid, uid_t broker_uid, bool have_broker);
