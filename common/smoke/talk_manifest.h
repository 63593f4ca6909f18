/*
 * What a server offers, collected page by page from its list answers, and the canonical manifest of it: what an approval hashes.
 * Pure functions of values. Used by the helper bulkhead-smoke-talk.
 */
#pragma once

#include "common/json.h"

#define TALK_MAX_PAGES 100U
#define TALK_MAX_ITEMS 10000U
#define TALK_MAX_NAME  128U /* of a tool: MCP specification, server/tools, "Tool Names" */

enum talk_list { TALK_TOOLS, TALK_PROMPTS, TALK_RESOURCES, TALK_TEMPLATES, TALK_N_LISTS };

struct talk_listing {
        const char *method;     /* "tools/list" */
        const char *member;     /* of the answer and of the manifest: "tools" */
        const char *key;        /* what items are told apart and sorted by: "name" */
        const char *capability; /* asked only when the server says it has this */
        const char *changed;    /* the notification that says the list is a new one */
};
const struct talk_listing *talk_listing(enum talk_list list);

struct talk_manifest {
        json_object *items[TALK_N_LISTS]; /* arrays */
        char **cursors;                   /* of the list being read: one that comes again is a loop */
        unsigned pages;                   /* of the list being read */
        char *instructions;
};
void talk_manifest_deinit(struct talk_manifest *m);
/* Forgets what was collected for one list, to read it anew. */
void talk_manifest_begin(struct talk_manifest *m, enum talk_list list);
/* Takes one page. *cursor: borrowed from m, the next page's cursor; NULL = that was the last. Fails beyond a bound, on a loop, on an item
 * without its key. */
_must_check_ int talk_manifest_page(struct talk_manifest *m, enum talk_list list, json_object *result, const char **cursor,
                                    struct err **err);
/*
 * RFC 8785 text (owned) of {"instructions", "prompts", "resources", "resourceTemplates", "tools"}: complete definitions as the server sent
 * them, lists sorted by key. serverInfo, cursors, cache hints and the _meta of the answers are not part of it. Fails when a key occurs
 * twice in one list.
 */
_must_check_ int talk_manifest_text(struct talk_manifest *m, char **ret, struct err **err);
/* The definition of one tool, borrowed; NULL = the server has none of this name. */
json_object *talk_manifest_tool(const struct talk_manifest *m, const char *name);
/* Names of the tools, sorted; owned. After talk_manifest_text(). */
char **talk_manifest_tools(const struct talk_manifest *m);
