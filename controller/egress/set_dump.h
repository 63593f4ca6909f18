/*
 * Reads the policy's set back over netlink: ipset looks the name of every entry's protocol up in /etc/protocols, which takes a second for
 * 100,000. Used only inside controller/egress.
 */
#pragma once

#include <linux/netlink.h>
#include <systemd/sd-event.h>

#include "controller/egress/rules.h"

struct set_state {
        bool exists;
        bool form_right; /* type, family, size and extensions are as we create it */
        bool strange;    /* it holds an entry that we could not have written (left out of rules) */
        struct rules rules;
};
void set_state_deinit(struct set_state *s);
#define _cleanup_set_state_ _cleanup_(set_state_deinit)

struct set_dump;
/* Called once from the loop; state and err are borrowed (rules may be taken). That the set does not exist is no error. The dump is freed
 * after it returns. */
typedef void (*set_dump_done_fn)(struct set_state *state, struct err *err, void *user);
_must_check_ int set_dump_start(struct set_dump **ret, sd_event *loop, set_dump_done_fn done, void *user, struct err **err);
/* done is not called. NULL is fine. */
struct set_dump *set_dump_cancel(struct set_dump *d);
DEFINE_FREEP(struct set_dump *, set_dump_cancel)

/* Pure: takes one message of the dump in. */
void set_state_read(struct set_state *s, const struct nlmsghdr *h);
