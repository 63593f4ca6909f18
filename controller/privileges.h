/*
 * From root to the service user, keeping the three capabilities of R1.3 and making them ambient, so that iptables, nft and ipset have them
 * and nothing else does. Under systemd or another manager that did this already, it only checks. Used by the controller's main.
 */
#pragma once

#include "common/conf.h"
#include "common/err.h"

/*
 * Started as uid 0: takes conf->service_user's uid and gid, the group of the Engine's socket and the operators' group; CAP_NET_ADMIN,
 * CAP_NET_RAW and CAP_NET_BIND_SERVICE stay, ambient too. Started as another uid: raises them to ambient. no_new_privs in both cases.
 * Refuses to go on as root.
 */
_must_check_ int privileges_drop(const struct conf *conf, struct err **err);
