#include "common/mcp/revision.h"

#define DATE_SIZE 10U
static const char revisions[][DATE_SIZE + 1] = {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"};
_Static_assert(ELEMENTSOF(revisions) == MCP_N_REVISIONS, "one name each");

const char *mcp_revision_name(enum mcp_revision r)
{
        return revisions[r];
}

int mcp_revision_find(struct mcp_slice s)
{
        for (size_t i = 0; s.n == DATE_SIZE && i < ELEMENTSOF(revisions); i++)
                if (memcmp(s.at, revisions[i], DATE_SIZE) == 0)
                        return (int)i;
        return -1;
}

enum { LEGACY = 1, MODERN = 2, CACHEABLE = 4, MAY_ASK = 8 };

static const struct {
        const char *name;
        unsigned flags;
        const char *name_key;
} methods[] = {
        [MCP_M_UNKNOWN] = {"", 0, NULL},
        [MCP_M_INITIALIZE] = {"initialize", LEGACY, NULL},
        [MCP_M_PING] = {"ping", LEGACY, NULL},
        [MCP_M_DISCOVER] = {"server/discover", MODERN | CACHEABLE, NULL},
        [MCP_M_LISTEN] = {"subscriptions/listen", MODERN, NULL},
        [MCP_M_TOOLS_LIST] = {"tools/list", LEGACY | MODERN | CACHEABLE, NULL},
        [MCP_M_TOOLS_CALL] = {"tools/call", LEGACY | MODERN | MAY_ASK, "name"},
        [MCP_M_PROMPTS_LIST] = {"prompts/list", LEGACY | MODERN | CACHEABLE, NULL},
        [MCP_M_PROMPTS_GET] = {"prompts/get", LEGACY | MODERN | MAY_ASK, "name"},
        [MCP_M_RESOURCES_LIST] = {"resources/list", LEGACY | MODERN | CACHEABLE, NULL},
        [MCP_M_RESOURCES_TEMPLATES_LIST] = {"resources/templates/list", LEGACY | MODERN | CACHEABLE, NULL},
        [MCP_M_RESOURCES_READ] = {"resources/read", LEGACY | MODERN | CACHEABLE | MAY_ASK, "uri"},
        [MCP_M_RESOURCES_SUBSCRIBE] = {"resources/subscribe", LEGACY, NULL},
        [MCP_M_RESOURCES_UNSUBSCRIBE] = {"resources/unsubscribe", LEGACY, NULL},
        [MCP_M_COMPLETE] = {"completion/complete", LEGACY | MODERN, NULL},
        [MCP_M_SET_LEVEL] = {"logging/setLevel", LEGACY, NULL},
};
_Static_assert(ELEMENTSOF(methods) == MCP_N_METHODS, "one line each");

enum mcp_method mcp_method_find(struct mcp_slice method)
{
        for (size_t i = 1; i < ELEMENTSOF(methods); i++)
                if (mcp_is(method, methods[i].name))
                        return (enum mcp_method)i;
        return MCP_M_UNKNOWN;
}

const char *mcp_method_name(enum mcp_method m)
{
        return methods[m].name;
}

bool mcp_method_in_era(enum mcp_method m, enum mcp_era era)
{
        return methods[m].flags & (era == MCP_ERA_LEGACY ? LEGACY : era == MCP_ERA_MODERN ? MODERN : 0U);
}

bool mcp_method_is_cacheable(enum mcp_method m)
{
        return methods[m].flags & CACHEABLE;
}

bool mcp_method_may_ask(enum mcp_method m)
{
        return methods[m].flags & MAY_ASK;
}

const char *mcp_method_name_key(enum mcp_method m)
{
        return methods[m].name_key;
}
