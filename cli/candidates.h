/*
 * What may become servers: found in a gateway's list, in an editor's file, in the registry. Text and nothing else: nothing here runs, pulls
 * or connects, and what comes of it is at most a proposal. Pure functions of values. Used by `bulkhead discover`.
 */
#pragma once

#include "common/registry/registry.h"

#define CANDIDATES_MAX 256U

struct candidate {
        char *name;
        enum discovery source;
        json_object *entry; /* that could be proposed; NULL = none can be made of it */
        char *place;        /* its URL, image or program, as found */
        char *why;          /* it cannot be proposed: why, and what to do. Foreign text in it is escaped. NULL = it can */
        bool declared;      /* it stands in the registry */
};

struct candidates {
        struct candidate *items; /* in the order in which they were found */
        size_t n;
};
void candidates_deinit(struct candidates *c);
#define _cleanup_candidates_ _cleanup_(candidates_deinit)

/* A ToolHive gateway itself, under the name "toolhive". A URL whose path is / is that of its list alone, and no server. */
void candidates_add_gateway(struct candidates *c, const char *url);
/* ToolHive's GET /api/v1beta/workloads: {"workloads": [{"name", "url", "status", "proxy_mode"}]}. What does not run is left out. */
_must_check_ int candidates_add_workloads(struct candidates *c, json_object *answer, struct err **err);
/* Cursor's mcp.json: {"mcpServers": {"name": {"url"} or {"command", "args"}}}. */
_must_check_ int candidates_add_editor(struct candidates *c, json_object *file, struct err **err);
void candidates_add_registry(struct candidates *c, const struct registry *registry);
/*
 * Says of each why it cannot be proposed: an entry that this host does not take, a name that the registry has, or that a source before it
 * gave. registry may be NULL.
 */
void candidates_judge(struct candidates *c, const struct registry *registry, const struct conf *conf);
