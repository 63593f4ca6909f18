/*
 * What servers offered when they were last asked: one file, so that after a restart the tools of a server that sleeps or is away can be
 * found all the same. It only remembers: each entry counts for the one approved manifest that it was kept under, and whoever takes
 * something out of it compares that with what was approved, as if the server had just said it. Written by the broker alone.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/mcp/message.h"

#define TOOL_CACHE_MAX (8U << 20) /* bytes of the file: what would make it larger is not kept */

struct tool_cache;

/* Never fails: what cannot be read is an empty cache, and a warning. path is copied; its directory must exist. */
struct tool_cache *tool_cache_new(sd_event *loop, const char *path);
/* Writes what was not written yet. */
struct tool_cache *tool_cache_free(struct tool_cache *c);
DEFINE_FREEP(struct tool_cache *, tool_cache_free)

/* What the file says, in place of what is known; on an error nothing is. tool_cache_new() does this. */
_must_check_ int tool_cache_parse(struct tool_cache *c, const char *text, size_t n, struct err **err);

/* tools: a checked JSON array, as the server listed it. Takes the place of what was known of the server. Written soon. */
void tool_cache_put(struct tool_cache *c, const char *server, const char *manifest, struct mcp_slice tools);
/* The array, absent when none is known for this manifest. Lives until the next call that changes the cache. */
struct mcp_slice tool_cache_get(const struct tool_cache *c, const char *server, const char *manifest);
void tool_cache_drop(struct tool_cache *c, const char *server);
