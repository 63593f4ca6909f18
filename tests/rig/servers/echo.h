/*
 * The rig's honest MCP server: small, static, for `FROM scratch` images. Tells tests from inside what its container looks like and what it
 * can reach. Private to mcp_echo; test code, never installed.
 */
#pragma once

#include "common/json.h"

struct echo_options {
        const char *era;     /* "both", "legacy", "modern" */
        const char *variant; /* goes into a description: another manifest from the same image */
        const char *rug_env; /* when this environment variable has another value than the smoke test's placeholder: one more tool */
        long rug_at;         /* from this time (seconds since the epoch) on: one more tool; 0 = never */
};

/* One tool: gets its arguments, returns text (owned); *failed makes the result isError. */
struct echo_tool {
        const char *name, *description;
        const char *schema; /* "properties" of its inputSchema */
        char *(*run)(json_object *arguments, bool *failed);
};
extern const struct echo_tool echo_tools[];
extern const size_t echo_n_tools;

/* The answer to one message (owned), NULL when there is none to give. *status: for HTTP. */
char *echo_answer(const struct echo_options *o, const char *text, size_t n, int *status);
int echo_serve_http(const struct echo_options *o, unsigned port);
/* TCP, UDP and ICMP to host:port again and again for `ms`, as soon as the process lives. In a child of its own. */
void echo_probe_start(const char *host, unsigned port, unsigned ms);
