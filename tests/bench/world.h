/*
 * A world of N servers that all run as they were approved: entries, image facts, specs, places on the host. Pure functions of a number and
 * the configuration, so that the maker of records and the scripted Engine agree without telling each other anything. Used by the
 * measurements at scale only.
 */
#pragma once

#include "common/address.h"
#include "common/conf.h"
#include "common/spec/spec.h"

#define WORLD_MAX      1000U
#define WORLD_MANIFEST "3333333333333333333333333333333333333333333333333333333333333333"

struct world_server {
        char name[8]; /* "s0042" */
        struct registry_entry *entry;
        struct image_facts *facts;
        struct spec *spec;
        char subnet[SUBNET_MAX];
        char gateway[ADDRESS_MAX], address[ADDRESS_MAX];
        char bridge[16];
        char *network, *container;
        char network_id[SHA256_HEX], container_id[SHA256_HEX], image_id[SHA256_HEX];
};

/* One real image for all servers, instead of an invented one each. */
struct world_image {
        const char *reference; /* "127.0.0.1:5000/mcp/echo:1@sha256:…" */
        const char *id;        /* the Engine's, "sha256:…" */
};

/* The i-th server as this host would have made it. image may be NULL. */
_must_check_ int world_server_init(struct world_server *s, const struct conf *conf, unsigned i, const struct world_image *image,
                                   struct err **err);
void world_server_deinit(struct world_server *s);
#define _cleanup_world_server_ _cleanup_(world_server_deinit)
