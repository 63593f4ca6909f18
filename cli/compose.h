/*
 * A Compose file that says what the controller would run: for review, and for hosts without one. From the same create bodies
 * (common/spec); a field of theirs that this does not know is an error, so that nothing is lost in silence. Used by compose.
 */
#pragma once

#include "common/spec/spec.h"

struct compose_host {
        const char *seccomp;  /* path of the profile, as the file is to name it */
        const char *subnet;   /* "10.213.0.0/29" */
        const char *gateway;  /* in it, and its resolver */
        const char *address;  /* the container's */
        const char *owner;    /* for the network's body; not in the result */
        bool open;            /* as the controller has it: a server with an allow-list has a way out, which the kernel's rules then limit */
        char *const *secrets; /* names of variables that are taken from the environment of whoever runs the file; may be NULL */
};

/* Adds services.NAME and networks.NAME to file. -1: the spec has something that Compose cannot say. */
_must_check_ int compose_add(json_object *file, const char *name, const struct spec *spec, const struct registry_entry *entry,
                             const struct compose_host *host, struct err **err);
