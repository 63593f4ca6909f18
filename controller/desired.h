/*
 * What should be: the registry file and the forge's view at one commit, judged together. A value, shared by reference count between the
 * passes and actions that still work from it. Pure, given its inputs.
 */
#pragma once

#include "common/forge/forge.h"
#include "common/registry/registry.h"
#include "controller/shared.h"

/* Names of one instance, so that nobody has to build a spec to compare them. */
struct instance_names {
        char *container, *network;
        char bridge[16];
        char spec_hash[3 + SHA256_HEX];
};

/*
 * A server, or one place for an instance of a server that has one for every session: that is planned, applied and judged like an on-demand
 * server of its own, "NAME.1" and so on, which is no name that a registry could have. The server itself never runs then.
 */
struct desired_server {
        const char *name;
        const char *server; /* whose entry and approval it is: its own name, or that without the place */
        unsigned place;     /* from 1; 0 = no place */
        const struct registry_entry *entry;
        enum forge_verdict verdict;
        char *why;                   /* a sentence, when not approved */
        const struct record *record; /* NULL when none */
        bool may_run;                /* approved and enabled: start it, keep it; an on-demand one when somebody calls it */
        bool may_stay;               /* what runs of this very spec is not stopped, though nothing new starts */
        struct instance_names names; /* set when may_run or may_stay */
};

struct desired {
        unsigned refs;
        struct shared *registry;        /* struct registry */
        struct shared *view;            /* struct forge_view */
        struct desired_server *servers; /* sorted by name */
        size_t n;
        time_t next_expiry; /* when to judge again; 0 = never */
};

/* References both. now: the later of the clock and the persisted floor. */
struct desired *desired_new(const struct conf *conf, struct shared *registry, struct shared *view, time_t now);
struct desired *desired_ref(struct desired *d);
struct desired *desired_unref(struct desired *d);
DEFINE_FREEP(struct desired *, desired_unref)
const struct desired_server *desired_find(const struct desired *d, const char *name);
/* Is there an external server that may run or stay? d may be NULL. */
bool desired_has_external(const struct desired *d);
/* It runs only while it is called. */
bool desired_on_demand(const struct desired_server *s);
/* How many a server has that has an instance for every session: the last one is nobody's, for looks at what there is. */
unsigned desired_places(const struct conf *conf);
/* The label of a place: its number; NULL = it is none. Borrowed. */
const char *desired_instance(const struct desired_server *s);
/* "NAME.2" of a place, as in the label; the name of the server where label is NULL. Owned. */
char *desired_place_name(const char *server, const char *place);
/* Does an approval that still stands cover this spec (a container's label) of a server or place? Then an older instance may stay while its
 * replacement is not up. */
bool desired_covers(const struct desired *d, const char *server, const char *spec_hash, time_t now);
/* May a container with this spec label run now, be it the wanted one or the one before? */
bool desired_allows(const struct desired *d, const char *server, const char *spec_hash, time_t now);
