/* Ends beside a server's sequence of actions: what may not run any more does not wait for its turn. */
#include "controller/controller.h"

#include "common/log.h"

static void on_stopped(_unused_ int status, _unused_ json_object *body, struct err *err, void *user)
{
        struct key *key = user;

        if (err)
                log_warning("what may not run any more could not be ended, and will be tried again", "server", key->name, "reason",
                            err_msg(err));
        mem_replace(&key->stopping, NULL);
        pass_request(key->c, 0, false);
}

void end_unapproved(struct key *key, const struct observed *observed)
{
        struct controller *c = key->c;

        for (size_t i = 0; i < observed->n_containers && !key->stopping; i++) {
                const struct observed_container *o = &observed->containers[i];
                if (!o->ours || !str_eq(o->server, key->name) || !str_eq(o->role, ROLE_SERVER) || !str_eq(o->state, "running") ||
                    desired_allows(c->desired, key->name, o->spec, inputs_now(c)))
                        continue;
                log_info("ended while its server is being worked on", "server", key->name, "container", o->name);
                key->stopping = mem_strdup(o->id);
                c->mutations++;
                engine_container_remove(c->engine, o->id, on_stopped, key);
        }
}

static void on_ended(_unused_ int status, _unused_ json_object *body, struct err *err, void *user)
{
        if (err)
                log_warning("what no approval covers could not be ended, and will be tried again", "reason", err_msg(err));
        else
                pass_request(user, 0, false);
}

void end_uncovered(struct controller *c, const struct observed *observed)
{
        const struct desired known = {.view = c->view};

        for (size_t i = 0; c->view && i < observed->n_containers; i++) {
                const struct observed_container *o = &observed->containers[i];
                if (!o->ours || !o->server || !str_eq(o->role, ROLE_SERVER) || !str_eq(o->state, "running") ||
                    desired_covers(&known, o->server, o->spec, inputs_now(c)))
                        continue;
                log_info("ended: no approval covers it", "server", o->server, "container", o->name);
                c->mutations++;
                engine_container_remove(c->engine, o->id, on_ended, c);
        }
}
