/*
 * Smoke tests as the controller makes them: image, facts, spec, an address, rules, then common/smoke.
 */
#include "controller/controller.h"

#include <stdio.h>

#include "common/log.h"

struct smoking {
        struct controller *c;
        const struct registry_entry *entry;
        struct image_facts *facts;
        struct spec *spec;
        char subnet[SUBNET_MAX];
        char bridge[16];
        char *reference;
        struct smoke *smoke;
        bool rules_set;
        struct smoke_result *result;
        struct err *err;
        smoking_done_fn done;
        void *user;
};


char *image_reference(const struct registry_entry *entry)
{
        const char *at = strchr(entry->image, '@');
        const char *slash = strrchr(entry->image, '/');
        const char *colon = at ? memrchr(slash ? slash : entry->image, ':', (size_t)(at - (slash ? slash : entry->image))) : NULL;

        return mem_printf("%.*s%s", (int)((colon ? colon : at ? at : entry->image + strlen(entry->image)) - entry->image), entry->image, at ? at : "");
}

const char *smoking_bridge(const struct smoking *s)
{
        return s->bridge;
}

const char *smoking_subnet(const struct smoking *s)
{
        return s->subnet;
}

const char *smoking_spec(const struct smoking *s)
{
        return s->spec ? s->spec->hash : "";
}

static void smoking_free(struct smoking *s)
{
        struct controller *c = s->c;

        for (size_t i = 0; i < c->n_smokes; i++) {
                if (c->smokes[i] == s) {
                        c->smokes[i] = c->smokes[--c->n_smokes];
                        break;
                }
        }
        image_facts_free(s->facts);
        spec_free(s->spec);
        free(s->reference);
        smoke_result_free(s->result);
        err_free(s->err);
        free(s);
}

static void report(struct smoking *s)
{
        smoking_done_fn done = s->done;
        struct smoke_result *result = TAKE_PTR(s->result);

        done(result, s->facts, s->spec, s->err, s->user);
        smoking_free(s);
}

static void on_rules_gone(_unused_ struct err *err, void *user)
{
        report(user);
}

static void finish(struct smoking *s)
{
        if (s->rules_set) {
                s->rules_set = false;
                egress_remove(s->c->egress, s->bridge, on_rules_gone, s);
        } else {
                report(s);
        }
}

static void fail(struct smoking *s, const struct err *err)
{
        s->err = err_dup(err);
        finish(s);
}

static void on_smoke(struct smoke_result *result, struct err *err, void *user)
{
        struct smoking *s = user;

        s->smoke = NULL;
        s->result = result;
        if (err)
                s->err = err_dup(err);
        finish(s);
}

static void on_rules(struct err *err, void *user)
{
        struct smoking *s = user;

        /* The test may have run out of time while it waited. */
        if (s->smoke)
                smoke_continue(s->smoke, err);
}

static void before_start(struct smoke *smoke, const char *bridge, const char *address, void *user)
{
        struct smoking *s = user;
        struct egress_instance instance = {.server = (char *)s->entry->name, .smoke = true, .http_port = s->entry->port};

        s->smoke = smoke;
        snprintf(s->bridge, sizeof(s->bridge), "%s", bridge);
        snprintf(instance.bridge, sizeof(instance.bridge), "%s", bridge);
        snprintf(instance.address, sizeof(instance.address), "%s", address);
        s->rules_set = true;
        egress_set(s->c->egress, &instance, on_rules, s);
}

static int begin(struct smoking *s, json_object *inspect, struct err **err)
{
        struct controller *c = s->c;

        if (image_facts_from_inspect(&s->facts, inspect, s->entry->image, err) < 0 || spec_build(&s->spec, s->entry, s->facts, err) < 0)
                return -1;
        if (address_pool_take(c->pool, s->subnet, err) < 0)
                return -1;
        struct smoke_request request = {.entry = s->entry, .image = s->facts, .spec = s->spec, .subnet = s->subnet, .owner = c->conf->audience};
        return smoke_start(&s->smoke, c->loop, c->engine, c->conf, &request, before_start, on_smoke, s, err);
}

static void on_image(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct smoking *s = user;
        _cleanup_err_ struct err *problem = NULL;

        if (err)
                fail(s, err);
        else if (begin(s, body, &problem) < 0)
                fail(s, problem);
}

static void on_image_inspect(int status, json_object *body, struct err *err, void *user)
{
        struct smoking *s = user;

        if (!err || err_code(err) != ERR_NOT_FOUND) {
                on_image(status, body, err, user);
                return;
        }
        log_info("pulling", "image", s->reference);
        engine_image_pull(s->c->engine, NULL, s->reference, NULL, s->c->conf->max_image_bytes, 600000, NULL, on_image, s);
}

int smoking_start(struct smoking **ret, struct controller *c, const struct registry_entry *entry, smoking_done_fn done, void *user, struct err **err)
{
        if (!c->egress_ok)
                return err_set(err, ERR_UNAVAILABLE, "the firewall rules are not in force, so nothing is started: %s", c->egress_error ? c->egress_error : "still loading");
        if (!c->observed_once)
                return err_set(err, ERR_UNAVAILABLE, "the Engine was not read yet, so no free address is known%s%s", c->engine_error ? ": " : "", c->engine_error ? c->engine_error : "");
        struct smoking *s = NEW(struct smoking);
        *s = (struct smoking){.c = c, .entry = entry, .done = done, .user = user, .reference = image_reference(entry)};
        c->smokes = mem_realloc(c->smokes, c->n_smokes + 1, sizeof(*c->smokes));
        c->smokes[c->n_smokes++] = s;
        engine_image_inspect(c->engine, s->reference, on_image_inspect, s);
        if (ret)
                *ret = s;
        return 0;
}
