/*
 * Reads a netlink dump in pieces from the loop, so that a big table does not hold it up. Used only inside controller/egress.
 */
#pragma once

#include <linux/netlink.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/mem.h"

struct nl_dump;
/* One message of the dump. -1 ends it with *err. */
typedef int (*nl_dump_message_fn)(const struct nlmsghdr *h, void *user, struct err **err);
/* Called once; err is borrowed, NULL = the dump is complete. error: the kernel's error number when it refused, else 0. The dump is freed
 * after it returns. */
typedef void (*nl_dump_done_fn)(int error, struct err *err, void *user);

/* Sends request (built with nl_begin(), NLM_F_DUMP among its flags) on a socket of its own. */
_must_check_ int nl_dump_start(struct nl_dump **ret, sd_event *loop, struct buf *request, nl_dump_message_fn message, nl_dump_done_fn done,
                               void *user, struct err **err);
/* done is not called. NULL is fine. */
struct nl_dump *nl_dump_cancel(struct nl_dump *d);
DEFINE_FREEP(struct nl_dump *, nl_dump_cancel)
