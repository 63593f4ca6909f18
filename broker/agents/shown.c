/*
 * Tools that were loaded into somebody's tools/list. Bounded: of many that load, the one that was quiet for longest starts anew.
 */
#include "broker/agents/internal.h"

#define MAX_SCOPES 1024U
#define MAX_TOOLS  128U /* of one */

struct scope {
        char *name;
        char **tools;
        uint64_t used;
};

struct shown {
        struct scope scopes[MAX_SCOPES];
        size_t n;
        uint64_t clock;
};

struct shown *shown_new(void)
{
        return NEW(struct shown);
}

static void scope_deinit(struct scope *s)
{
        free(s->name);
        strv_free(s->tools);
        *s = (struct scope){0};
}

struct shown *shown_free(struct shown *s)
{
        for (size_t i = 0; s && i < s->n; i++)
                scope_deinit(&s->scopes[i]);
        free(s);
        return NULL;
}

static struct scope *find(struct shown *s, const char *name)
{
        for (size_t i = 0; i < s->n; i++)
                if (str_eq(s->scopes[i].name, name)) {
                        s->scopes[i].used = ++s->clock;
                        return &s->scopes[i];
                }
        return NULL;
}

static struct scope *make(struct shown *s, const char *name)
{
        struct scope *scope = &s->scopes[s->n];

        if (s->n < MAX_SCOPES) {
                s->n++;
        } else {
                scope = &s->scopes[0];
                for (size_t i = 1; i < s->n; i++)
                        if (s->scopes[i].used < scope->used)
                                scope = &s->scopes[i];
                scope_deinit(scope);
        }
        *scope = (struct scope){.name = mem_strdup(name), .used = ++s->clock};
        return scope;
}

bool shown_add(struct shown *s, const char *name, const char *full)
{
        struct scope *scope = find(s, name);

        if (!scope)
                scope = make(s, name);
        if (strv_contains(scope->tools, full) || strv_len(scope->tools) >= MAX_TOOLS)
                return false;
        scope->tools = strv_append(scope->tools, full);
        strv_sort(scope->tools);
        return true;
}

char *const *shown_get(struct shown *s, const char *name)
{
        const struct scope *scope = find(s, name);

        return scope ? scope->tools : NULL;
}
