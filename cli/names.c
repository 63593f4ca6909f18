#include "cli/names.h"

#include "common/text.h"

struct search {
        const char *path;
        const struct registry *registry;
        const struct forge_view *view;
        json_object *found; /* texts */
};

static void report(struct search *s, unsigned line, unsigned column, const char *server, const char *name, const char *what)
{
        _cleanup_free_ char *glob = mem_printf("%s:%s", server, name), *shown = text_escape(glob);
        _cleanup_free_ char *text = mem_printf("%s:%u:%u: \"%s\" %s", s->path, line, column, shown, what);

        json_object_array_add(s->found, json_object_new_string(text));
}

/* Has the server an approval of which no tool is meant? */
static bool names_no_tool_of(const struct search *s, const char *server, const char *tool)
{
        const struct record *approval = s->view ? records_last_approval(s->view, server) : NULL;

        if (!approval || records_is_revoked(s->view, approval))
                return false;
        for (size_t i = 0; approval->tools && approval->tools[i]; i++)
                if (glob_match(tool, approval->tools[i]))
                        return false;
        return true;
}

static void look_up(const char *server, const char *name, unsigned kind, unsigned line, unsigned column, void *user)
{
        bool any = false, fits = false;
        struct search *s = user;

        if (str_eq(server, "*"))
                return; /* meant for servers that are to come as well */
        for (size_t i = 0; i < s->registry->n_entries; i++) {
                const char *candidate = s->registry->entries[i]->name;

                if (!glob_match(server, candidate))
                        continue;
                any = true;
                fits |= kind != POLICY_TOOL || str_eq(name, "*") || !names_no_tool_of(s, candidate, name);
        }
        if (!any)
                report(s, line, column, server, name, "is for no server of the registry: correct the name, or take it out");
        else if (!fits)
                report(s, line, column, server, name, "is for no tool that was approved: correct the name, or take it out");
}

json_object *names_unknown(const struct policy *p, const char *path, const struct registry *registry, const struct forge_view *view)
{
        struct search s = {path, registry, view, json_object_new_array()};

        policy_names(p, look_up, &s);
        return s.found;
}

void names_without_token(json_object *texts, const struct policy *p, const char *path, const struct identities *ids)
{
        for (size_t i = 0; i < policy_n_agents(p); i++) {
                const char *name = policy_agent_name(policy_agent_at(p, i));

                if (identities_find(ids, name))
                        continue;
                _cleanup_free_ char *text =
                        mem_printf("%s: agents.%s: nobody can have a token of this agent: bulkhead agent add, or take it out", path, name);
                json_object_array_add(texts, json_object_new_string(text));
        }
}
