/*
 * The revisions of MCP and what differs between them. Pure tables. Used by the broker.
 * Source: the specification's "Versioning" page and each revision's changelog.
 */
#pragma once

#include <stdbool.h>

#include "common/mcp/message.h"

/* Legacy: a session that begins with initialize. Modern: every request says for itself who asks, in _meta. */
enum mcp_era { MCP_ERA_UNKNOWN, MCP_ERA_LEGACY, MCP_ERA_MODERN };

enum mcp_revision { MCP_2024_11_05, MCP_2025_03_26, MCP_2025_06_18, MCP_2025_11_25, MCP_2026_07_28, MCP_N_REVISIONS };
#define MCP_NEWEST_LEGACY MCP_2025_11_25
#define MCP_NEWEST        MCP_2026_07_28

const char *mcp_revision_name(enum mcp_revision r); /* "2025-11-25" */
/* -1 when it is none that we speak. s without quotes. */
int mcp_revision_find(struct mcp_slice s);
static inline enum mcp_era mcp_revision_era(enum mcp_revision r)
{
        return r >= MCP_2026_07_28 ? MCP_ERA_MODERN : MCP_ERA_LEGACY;
}
static inline bool mcp_revision_has_batches(enum mcp_revision r)
{
        return r == MCP_2025_03_26;
}

/* Error codes. */
#define MCP_PARSE_ERROR         (-32700)
#define MCP_INVALID_REQUEST     (-32600)
#define MCP_METHOD_NOT_FOUND    (-32601)
#define MCP_INVALID_PARAMS      (-32602)
#define MCP_INTERNAL_ERROR      (-32603)
#define MCP_RESOURCE_NOT_FOUND  (-32002) /* legacy only */
#define MCP_HEADER_MISMATCH     (-32020)
#define MCP_MISSING_CAPABILITY  (-32021)
#define MCP_UNSUPPORTED_VERSION (-32022)

#define MCP_META_VERSION      "io.modelcontextprotocol/protocolVersion"
#define MCP_META_CLIENT       "io.modelcontextprotocol/clientInfo"
#define MCP_META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"
#define MCP_META_SERVER       "io.modelcontextprotocol/serverInfo"
#define MCP_META_LOG_LEVEL    "io.modelcontextprotocol/logLevel"
#define MCP_META_SUBSCRIPTION "io.modelcontextprotocol/subscriptionId"

/* What a client may ask of a server. */
enum mcp_method {
        MCP_M_UNKNOWN,
        MCP_M_INITIALIZE,
        MCP_M_PING,
        MCP_M_DISCOVER,
        MCP_M_LISTEN,
        MCP_M_TOOLS_LIST,
        MCP_M_TOOLS_CALL,
        MCP_M_PROMPTS_LIST,
        MCP_M_PROMPTS_GET,
        MCP_M_RESOURCES_LIST,
        MCP_M_RESOURCES_TEMPLATES_LIST,
        MCP_M_RESOURCES_READ,
        MCP_M_RESOURCES_SUBSCRIBE,
        MCP_M_RESOURCES_UNSUBSCRIBE,
        MCP_M_COMPLETE,
        MCP_M_SET_LEVEL,
        MCP_N_METHODS
};
enum mcp_method mcp_method_find(struct mcp_slice method);
const char *mcp_method_name(enum mcp_method m); /* "tools/call" */
/* Is it a request of that era? */
bool mcp_method_in_era(enum mcp_method m, enum mcp_era era);
/* Result carries ttlMs and cacheScope in the modern era (server/utilities/caching). */
bool mcp_method_is_cacheable(enum mcp_method m);
/* May be answered with resultType input_required (basic/patterns/mrtr). */
bool mcp_method_may_ask(enum mcp_method m);
/* The member of params that Mcp-Name mirrors ("name", "uri"), or NULL (basic/transports/streamable-http). */
const char *mcp_method_name_key(enum mcp_method m);
