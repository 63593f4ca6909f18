/*
 * The tools that there are, as agents get to know them: each with its schema understood, its element of tools/list, and its words for
 * the search. Told by the gateway, server by server, with what was approved only. Knows nothing of agents. Used by the door.
 */
#pragma once

#include "broker/agents/words.h"
#include "broker/policy/decide.h"
#include "common/link/channel.h"

struct catalogue;

struct tool {
        const char *server; /* borrowed */
        char *name;         /* the server's */
        char *full;         /* with the server's prefix: what lists say */
        char *description;  /* NULL: none */
        char *listed;       /* its element of tools/list, JSON */
        struct policy_tool *policy;
        enum action_class action; /* as approved */
        struct words words;
        bool stale; /* as the server listed it once; it cannot be asked now, or was not yet */
};

struct catalogue *catalogue_new(void);
struct catalogue *catalogue_free(struct catalogue *c);
DEFINE_FREEP(struct catalogue *, catalogue_free)

/* Replaces the server's tools; array: elements of tools/list, checked JSON, their names behind the prefix; absent: it has none. */
void catalogue_set(struct catalogue *c, const struct channel_entry *server, const char *prefix, struct mcp_slice array);

/* Marks the server's tools, also those that are set later. */
void catalogue_mark(struct catalogue *c, const char *server, bool stale);

/* By the server's name and its own name of the tool. NULL: there is none. Borrowed until the next catalogue_set(). */
const struct tool *catalogue_find(const struct catalogue *c, const char *server, const char *name);
/* By "server:tool", or the name that lists have. */
const struct tool *catalogue_named(const struct catalogue *c, const char *text);

/* All, by server and name: *pos is the caller's cursor, begin with zero. NULL: the end. */
struct catalogue_cursor {
        size_t server, tool;
};
const struct tool *catalogue_next(const struct catalogue *c, struct catalogue_cursor *pos);
size_t catalogue_n_tools(const struct catalogue *c);
