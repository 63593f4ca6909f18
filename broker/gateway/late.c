/*
 * Lists of servers that are slow. A merged list does not wait for them for long; what comes after it is kept, clients are told that the
 * list is another one now, and who asks then gets what was kept if the server is slow again. So nothing of a server is left out for good.
 */
#include "broker/gateway/internal.h"
#include "common/log.h"

#define MAX_LATE (1U << 20) /* bytes of one list */

struct late {
        struct buf array; /* JSON, as the server wrote it */
        char *next;       /* its cursor, a JSON string; NULL = that is all */
};

static size_t index_of(enum mcp_method list)
{
        static const enum mcp_method lists[N_LATE] = {MCP_M_TOOLS_LIST, MCP_M_PROMPTS_LIST, MCP_M_RESOURCES_LIST,
                                                      MCP_M_RESOURCES_TEMPLATES_LIST};
        size_t i = 0;

        while (lists[i] != list)
                i++;
        return i;
}

static struct late **place(struct server *s, enum mcp_method list)
{
        return &s->late[index_of(list)];
}

static void late_free(struct late **l)
{
        if (!*l)
                return;
        buf_deinit(&(*l)->array);
        free((*l)->next);
        free(*l);
        *l = NULL;
}

void late_forget(struct server *s)
{
        for (size_t i = 0; i < N_LATE; i++)
                late_free(&s->late[i]);
}

static bool is_clients(const struct call *sub)
{
        const struct leg *l = sub->leg;

        return l && (l->owner || (l->of_instance && !l->of_instance->own));
}

/* A list that is one client's own is no other's business. */
static bool is_shared(const struct call *sub)
{
        return sub->leg && !is_clients(sub) && !mcp_has(sub->m.cursor);
}

/* true: it is another list than the one before. Cursors are another one every time, perhaps. */
static bool keep(struct late **l, struct mcp_slice array, struct mcp_slice next)
{
        if (*l && mcp_same(slice_of_buf(&(*l)->array), array) && !(*l)->next == !mcp_is_string(next))
                return false;
        late_free(l);
        if (array.n > MAX_LATE || !mcp_is_array(array))
                return true;
        *l = NEW(struct late);
        mcp_add_slice(&(*l)->array, array);
        (*l)->next = mcp_is_string(next) ? mem_strndup(next.at, next.n) : NULL;
        return true;
}

void late_refresh(struct call *sub, const struct mcp_message *answer)
{
        struct late **l = place(sub->server, sub->method);

        if (*l && is_shared(sub))
                (void)keep(l, mcp_object_get(answer->result, list_member(sub->method)), answer->next_cursor);
}

static void on_late(struct call *sub, const struct mcp_message *answer, _unused_ const struct err *why)
{
        struct server *s = sub->server;
        enum mcp_method list = sub->method;
        bool fresh = false;

        if (answer && answer->kind == MCP_RESULT)
                fresh = !is_shared(sub) || keep(place(s, list), mcp_object_get(answer->result, list_member(list)), answer->next_cursor);
        call_free(sub);
        if (fresh)
                changes_list(s, list);
}

bool late_pending(const struct server *s, enum mcp_method list)
{
        return s->awaited & 1U << index_of(list);
}

void late_await(struct call *sub)
{
        log_debug("a list without one server, which is slow", "server", sub->server->entry.name);
        /* One of them is enough: all that list it wait for the same. */
        if (late_pending(sub->server, sub->method) || (sub->leg && sub->leg->of_instance && is_clients(sub))) {
                call_free(sub);
                return;
        }
        sub->late = true;
        sub->server->awaited |= 1U << index_of(sub->method);
        sub->finish = on_late;
        sub->user = NULL;
}

void late_over(const struct call *sub)
{
        sub->server->awaited &= ~(1U << index_of(sub->method));
}

struct mcp_slice late_list(struct server *s, enum mcp_method list, const char **next)
{
        const struct late *l = *place(s, list);

        *next = l ? l->next : NULL;
        if (l)
                return slice_of_buf(&l->array);
        return list == MCP_M_TOOLS_LIST ? tools_text(s) : (struct mcp_slice){0};
}
