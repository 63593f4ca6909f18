/*
 * The HTTP headers that mirror a modern message's body: encoding, decoding, and x-mcp-header annotations. Pure. Used by the broker.
 * Source: MCP 2026-07-28, basic/transports/streamable-http, "Standard Headers", "Custom Headers from Tool Parameters", "Value Encoding".
 */
#pragma once

#include "common/mcp/message.h"

/*
 * Decodes "=?base64?…?=", or takes the value as it is. Owned; NULL when it cannot be decoded (base64 that is not canonical, no UTF-8, NUL)
 * or has characters that no header may have. White space around it is no part of it.
 */
char *mcp_header_decode(const char *value);
/* The other way round. Owned. value: n bytes of UTF-8. Empty values are encoded as well, for some senders drop empty headers. */
char *mcp_header_encode(const char *value, size_t n);

/* One annotated parameter of a tool: where it is and what its header is called. */
struct mcp_param {
        char *header; /* "Mcp-Param-Region" */
        char **path;  /* chain of property names, decoded */
};
struct mcp_params {
        struct mcp_param *items;
        size_t n;
};
#define MCP_MAX_PARAMS     64U   /* of one tool */
#define MCP_MAX_PARAM_NAME 128U  /* bytes of an annotation's value */
#define MCP_MAX_PARAM_PATH 4096U /* bytes of the property names on the way to it */
/*
 * From a tool's inputSchema (checked JSON). 0: *ret is filled, maybe empty. -1: an annotation breaks the rules, so the tool is not to be
 * offered over HTTP; *err says which. What a schema holds as data (default, const, enum, examples) is not looked into.
 */
_must_check_ int mcp_params_from_schema(struct mcp_params *ret, struct mcp_slice input_schema, struct err **err);
void mcp_params_deinit(struct mcp_params *p);
/* The value at p's path in arguments as header text, encoded (owned), or NULL when there is none (absent, null or no primitive). */
char *mcp_param_value(const struct mcp_param *p, struct mcp_slice arguments);
/*
 * Does the header (as received, encoded; NULL = absent) say what the body says? Integers are compared as numbers. A header without a value
 * in the body does not: who reads headers only would be deceived.
 */
bool mcp_param_matches(const struct mcp_param *p, struct mcp_slice arguments, const char *header);
