#include "broker/agents/principal.h"

struct principal *principal_new(const char *agent, const char *run, time_t issued_at, time_t expires_at)
{
        struct principal *p = NEW(struct principal);

        *p = (struct principal){.refs = 1,
                                .agent = mem_strdup(agent),
                                .run = mem_strdup(run),
                                .scope = mem_printf("%s/%s", agent, run),
                                .issued_at = issued_at,
                                .expires_at = expires_at};
        return p;
}

struct principal *principal_ref(struct principal *p)
{
        p->refs++;
        return p;
}

void principal_unref(struct principal *p)
{
        if (!p || --p->refs)
                return;
        free(p->agent);
        free(p->run);
        free(p->scope);
        free(p);
}
