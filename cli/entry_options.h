/*
 * A registry entry from options of the command line (propose --image REF --egress …, propose --url URL). Pure; what it builds is judged by
 * registry_entry_parse().
 */
#pragma once

#include "cli/cli.h"

struct entry_options {
        const char *image, *url, *address, *description, *transport, *port, *path, *user, *runtime, *lifecycle, *idle_timeout, *memory,
                *cpus, *pids, *tmpfs;
        const char *smoke_tool;
        char **args, **entrypoint, **env, **secrets, **egress, **tls_pins; /* owned lists */
};
/* "[tcp|udp] HOST|CIDR|ADDRESS:PORT[,PORT…]" -> {"host"|"cidr", "protocol", "ports"}; owned. */
_must_check_ int entry_egress_parse(const char *text, json_object **ret, struct err **err);
_must_check_ int entry_options_build(const struct entry_options *o, json_object **ret, struct err **err);
void entry_options_deinit(struct entry_options *o);
