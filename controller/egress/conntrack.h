/*
 * Deletes connection-tracking entries: of addresses that come or go, and of permissions taken away. One dump of the table serves a whole
 * batch (the conntrack program would walk it once per address), read in pieces so that the loop is not held up. Used only inside
 * controller/egress.
 */
#pragma once

#include <systemd/sd-event.h>

#include "controller/egress/rules.h"

struct conntrack_job;
/* err is borrowed, NULL = done. Called once from the loop; the job is freed after it returns. */
typedef void (*conntrack_done_fn)(struct err *err, void *user);

/*
 * Deletes every flow from or to one of `addresses`, and every flow that one of `entries` allowed. Both are copied and must be sorted.
 */
_must_check_ int conntrack_start(struct conntrack_job **ret, sd_event *loop, const uint32_t *addresses, size_t n_addresses,
                                 const struct entry *entries, size_t n_entries, conntrack_done_fn done, void *user, struct err **err);
/* done is not called. NULL is fine. */
struct conntrack_job *conntrack_cancel(struct conntrack_job *j);
