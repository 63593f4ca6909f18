/*
 * Smoke tests as the controller makes them: image, facts, spec, an address, rules, then common/smoke.
 */
#include "controller/controller.h"

#include <stdio.h>

#include "common/log.h"

#define WAIT_MS      10000U
#define WAIT_STEP_US 20000U

struct smoking {
        struct controller *c;
        struct smoking_request request;
        struct image_facts *facts;
        struct spec *spec;
        char subnet[SUBNET_MAX];
        char bridge[16];
        char *reference;
        struct smoke *smoke;
        bool rules_set;
        sd_event_source *wait;
        uint64_t wait_until_ms;
        struct smoke_result *result;
        struct err *err;
};

char *image_reference(const struct registry_entry *entry)
{
        const char *at = strchr(entry->image, '@');
        const char *slash = strrchr(entry->image, '/');
        const char *colon = at ? memrchr(slash ? slash : entry->image, ':', (size_t)(at - (slash ? slash : entry->image))) : NULL;

        return mem_printf("%.*s%s",
                          (int)((colon ? colon
                                 : at  ? at
                                       : entry->image + strlen(entry->image)) -
                                entry->image),
                          entry->image, at ? at : "");
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
        sd_event_source_disable_unref(s->wait);
        image_facts_free(s->facts);
        spec_free(s->spec);
        free(s->reference);
        smoke_result_free(s->result);
        err_free(s->err);
        free(s);
}

static void report(struct smoking *s)
{
        struct smoking_request request = s->request;
        struct smoke_result *result = TAKE_PTR(s->result);

        request.done(result, s->facts, s->spec, s->err, request.user);
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
        struct egress_instance instance = {.server = (char *)s->request.entry->name, .smoke = true, .http_port = s->request.entry->port};

        s->smoke = smoke;
        snprintf(s->bridge, sizeof(s->bridge), "%s", bridge);
        snprintf(instance.bridge, sizeof(instance.bridge), "%s", bridge);
        snprintf(instance.address, sizeof(instance.address), "%s", address);
        s->rules_set = true;
        egress_set(s->c->egress, &instance, on_rules, s);
}

/* Two tests of one container would have the same names, and the second would take the first one's for remains. */
static int check_alone(const struct smoking *s, struct err **err)
{
        const struct controller *c = s->c;

        for (size_t i = 0; i < c->n_smokes; i++)
                if (c->smokes[i] != s && c->smokes[i]->spec && str_eq(c->smokes[i]->spec->hash, s->spec->hash))
                        return err_set(err, ERR_CONFLICT, "a smoke test of this very container of %s is under way: try again after it",
                                       s->request.entry->name);
        return 0;
}

static int begin(struct smoking *s, json_object *inspect, struct err **err)
{
        struct controller *c = s->c;

        const struct registry_entry *entry = s->request.entry;
        const struct image_facts *approved = s->request.approved;

        if (image_facts_from_inspect(&s->facts, inspect, entry->image, err) < 0)
                return -1;
        if (approved && image_facts_compare(approved, s->facts, err) < 0)
                return -1;
        /* The record may know a digest of the platform's manifest that this Engine does not tell; the spec is the record's. */
        if (approved && !s->facts->platform_digest)
                s->facts->platform_digest = mem_strdup(approved->platform_digest);
        if (spec_build(&s->spec, entry, approved ? approved : s->facts, err) < 0)
                return -1;
        if (check_alone(s, err) < 0 || address_pool_take(c->pool, s->subnet, err) < 0)
                return -1;
        struct smoke_request request = {
                .entry = entry, .image = s->facts, .spec = s->spec, .subnet = s->subnet, .owner = c->conf->audience};
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

/* The Engine's client gives progress and end the same user. */
static void on_progress(uint64_t current, uint64_t total, const char *status, void *user)
{
        struct smoking *s = user;

        if (s->request.progress)
                s->request.progress(current, total, status, s->request.user);
}

static void on_image_inspect(int status, json_object *body, struct err *err, void *user)
{
        struct smoking *s = user;

        if (!err || err_code(err) != ERR_NOT_FOUND) {
                on_image(status, body, err, user);
                return;
        }
        log_info("pulling", "image", s->reference);
        const char *platform = s->request.approved ? s->request.approved->platform : NULL;
        engine_image_pull(s->c->engine, NULL, s->reference, platform, s->c->conf->max_image_bytes, PULL_MS, on_progress, on_image, s);
}

static void look_at_image(struct smoking *s)
{
        engine_image_inspect(s->c->engine, s->reference, on_image_inspect, s);
}

/* It runs elsewhere: no image, no network, no rules. */
static void begin_external(struct smoking *s)
{
        struct controller *c = s->c;
        const struct registry_entry *entry = s->request.entry;
        _cleanup_err_ struct err *err = NULL;

        if (spec_build(&s->spec, entry, NULL, &err) < 0 || check_alone(s, &err) < 0) {
                fail(s, err);
                return;
        }
        struct smoke_request request = {.entry = entry, .spec = s->spec, .owner = c->conf->audience};
        if (smoke_start(&s->smoke, c->loop, c->engine, c->conf, &request, NULL, on_smoke, s, &err) < 0)
                fail(s, err);
}

/* Nothing starts before the rules are in force and the addresses in use are known. Right after start-up that takes a moment. */
static int on_wait(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct smoking *s = user;
        struct controller *c = s->c;
        _cleanup_err_ struct err *err = NULL;

        if (s->request.entry->source == SOURCE_URL) {
                s->wait = sd_event_source_disable_unref(s->wait);
                begin_external(s);
                return 0;
        }
        if (c->egress_ok && c->observed_once) {
                s->wait = sd_event_source_disable_unref(s->wait);
                look_at_image(s);
                return 0;
        }
        if (controller_now_ms() < s->wait_until_ms) {
                sd_event_source_set_time_relative(s->wait, WAIT_STEP_US);
                return sd_event_source_set_enabled(s->wait, SD_EVENT_ONESHOT);
        }
        if (!c->egress_ok)
                err_set(&err, ERR_UNAVAILABLE, "the firewall rules are not in force, so nothing is started: %s",
                        c->egress_error ? c->egress_error : "still loading");
        else
                err_set(&err, ERR_UNAVAILABLE, "the Engine was not read yet, so no free address is known: %s",
                        c->engine_error ? c->engine_error : "it does not answer");
        fail(s, err);
        return 0;
}

int smoking_start(struct controller *c, const struct smoking_request *request, struct err **err)
{
        struct smoking *s = NEW(struct smoking);

        *s = (struct smoking){.c = c, .request = *request, .reference = request->entry->image ? image_reference(request->entry) : NULL};
        s->wait_until_ms = controller_now_ms() + WAIT_MS;
        int r = sd_event_add_time_relative(c->loop, &s->wait, CLOCK_MONOTONIC, 0, 1000, on_wait, s);
        c->smokes = mem_realloc(c->smokes, c->n_smokes + 1, sizeof(*c->smokes));
        c->smokes[c->n_smokes++] = s;
        if (r < 0) {
                smoking_free(s);
                return err_sys(err, r, "cannot set a timer");
        }
        return 0;
}
