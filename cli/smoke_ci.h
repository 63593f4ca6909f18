/*
 * A smoke test without the daemon: opens the Engine's socket itself. For CI, and for the first server of a host whose controller does not
 * run yet. The quarantine is an internal network of its own; the host's rules, which only the controller may load, are not needed for it.
 */
#pragma once

#include "cli/cli.h"
#include "common/registry/registry.h"
#include "common/smoke/smoke.h"

/*
 * Pulls, unless the digest is there already (registry_entry_parse() let allowed registries through only), and tests one entry; blocks.
 * *image and *smoke are owned. -1: the test could not be made; the server's failure is a result. What it made on the Engine is gone
 * afterwards, also after SIGINT or SIGTERM.
 */
_must_check_ int smoke_ci_run(struct cli *c, const char *engine_socket, const struct registry_entry *entry, struct image_facts **image,
                              struct smoke_result **smoke, struct err **err);
