/*
 * One server's actions, one after the other; several servers at once, bounded by conf->max_starts. Every failure ends the sequence: the
 * next pass looks at what is really there before anything is tried again.
 */
#include "controller/controller.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/log.h"
#include "common/manifest.h"

/* Until SIGKILL: a server whose session is lost has nothing left to finish. */
#define STOP_S 1U

static void step(struct key *key);

/* -- slots ---------------------------------------------------------------------------------------------------------------- */

static void release_slot(struct key *key)
{
        struct controller *c = key->c;

        key->waits_for_slot = false;
        if (!key->holds_slot)
                return;
        key->holds_slot = false;
        c->slots_used--;
        /* One that is woken may find that it is no longer wanted and not take the slot: then it is the next one's turn. */
        for (size_t i = 0; i < c->n_keys && c->slots_used < c->conf->max_starts; i++) {
                if (c->keys[i]->waits_for_slot) {
                        c->keys[i]->waits_for_slot = false;
                        step(c->keys[i]);
                }
        }
}

static bool take_slot(struct key *key)
{
        struct controller *c = key->c;

        if (key->holds_slot)
                return true;
        if (c->slots_used >= c->conf->max_starts) {
                key->waits_for_slot = true;
                return false;
        }
        c->slots_used++;
        key->holds_slot = true;
        return true;
}

/* -- the end of a sequence ------------------------------------------------------------------------------------------------ */

static void finish(struct key *key, const struct err *err)
{
        struct controller *c = key->c;
        const struct action *a = key->next < key->plan->n_actions ? &key->plan->actions[key->next] : NULL;

        key->busy = false;
        key->desired = desired_unref(key->desired);
        if (err) {
                const char *what = a ? action_name(a->kind) : "-", *object = a && a->object ? a->object : key->name;
                mem_replace(&key->error, mem_printf("%s %s: %s", what, object, err_msg(err)));
                key_backoff(key);
                key->failed_removal = a && a->kind == ACTION_REMOVE;
                key->image_ok = false; /* it may be that very image that is gone: look again before the next attempt */
                char wait[24];
                snprintf(wait, sizeof(wait), "%" PRIu64, key->retry_at_ms - controller_now_ms());
                log_warning("an action failed and will be tried again", "server", key->name, "action", what, "object", object, "reason",
                            err_msg(err), "retry_in_ms", wait);
        } else {
                key->smoke_failed = false;
                mem_replace(&key->error, NULL);
        }
        release_slot(key);
        pass_request(c, 0, false);
}

static void action_done(struct key *key, const struct err *err)
{
        if (err) {
                finish(key, err);
                return;
        }
        key->next++;
        step(key);
}

static void fail(struct key *key, enum err_code code, const char *message)
{
        _cleanup_err_ struct err *err = NULL;

        err_set(&err, code, "%s", message);
        finish(key, err);
}

/* For calls whose answer says nothing but done or failed. */
static void on_done(_unused_ int status, _unused_ json_object *body, struct err *err, void *user)
{
        struct key *key = user;

        if (!err)
                log_info("done", "action", action_name(key->plan->actions[key->next].kind), "object", key->plan->actions[key->next].object,
                         "server", key->name, "because", key->plan->actions[key->next].reason ? key->plan->actions[key->next].reason : "-");
        action_done(key, err);
}

static const struct desired_server *wanted(const struct key *key)
{
        return desired_find(key->desired, key->name);
}

static struct spec *build_spec(struct key *key, struct err **err)
{
        const struct desired_server *s = wanted(key);
        struct spec *spec = NULL;

        if (spec_build(&spec, s->entry, s->record->image, err) < 0)
                return NULL;
        if (!str_eq(spec->hash, s->names.spec_hash)) {
                err_set(err, ERR_INTERNAL, "the spec changed while it was applied");
                return spec_free(spec);
        }
        return spec;
}

/* Texts of addresses live in `texts` as long as the host is used. */
struct host_texts {
        char gateway[ADDRESS_MAX], address[ADDRESS_MAX];
};

static struct spec_host host_of(const struct key *key, struct host_texts *texts)
{
        const struct desired_server *s = wanted(key);

        address_of_gateway(texts->gateway, key->subnet);
        address_of_container(texts->address, key->subnet);
        return (struct spec_host){
                .network = s->names.network,
                .address = texts->address,
                .dns = texts->gateway,
                .owner = key->c->conf->audience,
                .approval = s->record->id,
                .scope = INSTANCE_SCOPE,
                .role = ROLE_SERVER,
                .server = s->server,
                .instance = desired_instance(s),
        };
}

/* -- the actions ---------------------------------------------------------------------------------------------------------- */

static void on_egress(struct err *err, void *user)
{
        action_done(user, err);
}

static void do_egress(struct key *key, _unused_ const struct action *a)
{
        const struct desired_server *s = wanted(key);
        struct egress_instance instance = {
                .server = (char *)s->server,
                .rules = s->entry->egress,
                .n_rules = s->entry->n_egress,
                .http_port = s->entry->transport == TRANSPORT_STDIO ? 0 : s->entry->port,
        };

        if (s->entry->source == SOURCE_URL) {
                instance.external = true;
                instance.http_port = s->entry->port;
                snprintf(instance.bridge, sizeof(instance.bridge), "%s", s->names.bridge);
                snprintf(instance.address, sizeof(instance.address), "%s", s->entry->address);
                egress_set(key->c->egress, &instance, on_egress, key);
                return;
        }
        if (!key->subnet[0]) {
                fail(key, ERR_INTERNAL, "no address is assigned yet");
                return;
        }
        snprintf(instance.bridge, sizeof(instance.bridge), "%s", s->names.bridge);
        address_of_container(instance.address, key->subnet);
        egress_set(key->c->egress, &instance, on_egress, key);
}

static void do_egress_remove(struct key *key, const struct action *a)
{
        egress_remove(key->c->egress, a->id, on_egress, key);
}

/* Is what the Engine has the image that was signed for? */
static int judge_image(struct key *key, json_object *inspect, struct err **err)
{
        const struct desired_server *s = wanted(key);
        _cleanup_(image_facts_freep) struct image_facts *facts = NULL;

        mem_replace(&key->image_refused, NULL);
        key->image_ok = false;
        mem_replace(&key->image_of, mem_strdup(s->record->id));
        if (image_facts_from_inspect(&facts, inspect, s->entry->image, err) < 0 || image_facts_compare(s->record->image, facts, err) < 0) {
                mem_replace(
                        &key->image_refused,
                        mem_printf("the image is not the one that was approved: %s; approve what is there, or put the approved image back",
                                   err ? err_msg(*err) : ""));
                return -1;
        }
        key->image_ok = true;
        images_add(key->c->images, TAKE_PTR(facts));
        return 0;
}

static void on_image(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct key *key = user;
        _cleanup_err_ struct err *problem = NULL;

        if (err)
                action_done(key, err);
        else if (judge_image(key, body, &problem) < 0)
                finish(key, problem);
        else
                action_done(key, NULL);
}

static void on_image_inspect(int status, json_object *body, struct err *err, void *user)
{
        struct key *key = user;
        const struct desired_server *s = wanted(key);

        if (!err || err_code(err) != ERR_NOT_FOUND) {
                on_image(status, body, err, user);
                return;
        }
        _cleanup_free_ char *reference = image_reference(s->entry);
        log_info("pulling", "server", key->name, "image", reference);
        engine_image_pull(key->c->engine, NULL, reference, s->record->image->platform, key->c->conf->max_image_bytes, PULL_MS, NULL,
                          on_image, key);
}

static void do_image(struct key *key, _unused_ const struct action *a)
{
        _cleanup_free_ char *reference = image_reference(wanted(key)->entry);

        engine_image_inspect(key->c->engine, reference, on_image_inspect, key);
}

static int judge_smoke(struct key *key, const struct smoke_result *result, const struct spec *spec, struct err **err)
{
        const struct desired_server *s = wanted(key);

        key->asked_ms = 0;
        if (!result->passed) {
                /* An external one may just be away for a while: nothing of it was found to be wrong. */
                key->smoke_failed = s->entry->source != SOURCE_URL;
                return err_set(err, ERR_DENIED, "smoke test failed: %s", result->why ? result->why : "no reason given");
        }
        if (!str_eq(spec->hash, s->names.spec_hash))
                return err_set(err, ERR_DENIED, "spec-mismatch: the smoke test ran another container than the one approved");
        /* Foreign text that is opaque to us, until it is what a human signed for. */
        char **pins = NULL;
        if (str_eq(result->manifest_sha256, s->record->manifest_sha256) &&
            manifest_pins(&pins, result->manifest, result->manifest_len, err) < 0)
                return -1;
        if (smoked_remember(key->c->smoked, key->c->conf, spec->hash, result->manifest_sha256, pins, err) < 0)
                return -1;
        key->asked_ms = controller_now_ms();
        return 0;
}

static void on_smoke(struct smoke_result *result, _unused_ const struct image_facts *facts, const struct spec *spec, struct err *err,
                     void *user)
{
        struct key *key = user;
        const struct desired_server *s = wanted(key);
        _cleanup_err_ struct err *problem = NULL;
        _cleanup_(smoke_result_freep) struct smoke_result *owned = result;

        if (err) {
                key->asked_ms = 0;
                finish(key, err);
                return;
        }
        mem_replace(&key->tested_for, mem_strdup(s->record->id));
        if (judge_smoke(key, owned, spec, &problem) < 0) {
                finish(key, problem);
        } else if (s->record->manifest_sha256 && !str_eq(owned->manifest_sha256, s->record->manifest_sha256)) {
                log_error("quarantined: what the server offers is not what was approved", "server", key->name, "approved",
                          s->record->manifest_sha256, "offered", owned->manifest_sha256);
                finish(key, NULL); /* the next pass finds the manifest and says so */
        } else {
                log_info("smoke test passed", "server", key->name, "protocol", owned->protocol ? owned->protocol : "-");
                action_done(key, NULL);
        }
}

static void do_smoke(struct key *key, _unused_ const struct action *a)
{
        _cleanup_err_ struct err *err = NULL;

        const struct desired_server *s = wanted(key);
        const struct smoking_request request = {.entry = s->entry, .approved = s->record->image, .done = on_smoke, .user = key};

        if (smoking_start(key->c, &request, &err) < 0)
                finish(key, err);
}

static void do_network(struct key *key, _unused_ const struct action *a)
{
        const struct desired_server *s = wanted(key);
        struct spec_network network = {
                .name = s->names.network,
                .bridge = s->names.bridge,
                .subnet = key->subnet,
                .internal = s->entry->n_egress == 0,
                .owner = key->c->conf->audience,
                .server = s->server,
                .spec = s->names.spec_hash,
                .role = ROLE_SERVER,
                .instance = desired_instance(s),
        };
        char gateway[ADDRESS_MAX];

        address_of_gateway(gateway, key->subnet);
        network.gateway = gateway;
        _cleanup_json_ json_object *body = spec_network_body(&network);
        engine_network_create(key->c->engine, body, on_done, key);
}

static int judge_container(struct key *key, json_object *inspect, struct err **err)
{
        _cleanup_(spec_freep) struct spec *spec = build_spec(key, err);
        struct host_texts texts;
        struct spec_host host = host_of(key, &texts);

        if (!spec)
                return -1;
        host.approval = NULL; /* a renewed approval of the same spec is no reason to start anew */
        host.image = images_find(key->c->images, json_str(inspect, "Image"));
        observer_describe_engine(key->c->observer, &host);
        _cleanup_strv_ char **drift = spec_drift(spec, &host, inspect);
        if (!drift)
                return 0;
        _cleanup_free_ char *list = strv_join(drift, "; ");
        return err_set(err, ERR_DENIED, "the container is not the one approved and is not started: %s", list);
}

static void on_verify(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct key *key = user;
        _cleanup_err_ struct err *problem = NULL;

        if (err)
                finish(key, err);
        else if (judge_container(key, body, &problem) < 0) {
                observer_forget(key->c->observer, NULL);
                finish(key, problem);
        } else
                on_done(0, NULL, NULL, key);
}

static void do_verify(struct key *key, const struct action *a)
{
        engine_container_inspect(key->c->engine, a->id, on_verify, key);
}

static void on_create(_unused_ int status, json_object *body, struct err *err, void *user)
{
        struct key *key = user;
        const char *id = json_str(body, "Id");

        if (err) {
                finish(key, err);
                return;
        }
        if (!id || !str_is_hex(id, 64)) {
                fail(key, ERR_INVALID, "the Engine's answer to the create carries no container id");
                return;
        }
        /* The start that follows must hit this very container, whatever its name means by then. */
        for (size_t i = key->next + 1; i < key->plan->n_actions; i++)
                if (key->plan->actions[i].kind == ACTION_START)
                        mem_replace(&key->plan->actions[i].id, mem_strdup(id));
        engine_container_inspect(key->c->engine, id, on_verify, key);
}

static void do_create(struct key *key, _unused_ const struct action *a)
{
        const struct desired_server *s = wanted(key);
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(spec_freep) struct spec *spec = build_spec(key, &err);
        struct host_texts texts;

        if (!spec) {
                finish(key, err);
                return;
        }
        struct spec_host host = host_of(key, &texts);
        _cleanup_json_ json_object *body = spec_create_body(spec, &host);
        engine_container_create(key->c->engine, s->names.container, s->record->image->platform, body, on_create, key);
}

static void do_stop(struct key *key, const struct action *a)
{
        key->exit_counted = true; /* it is we who end it */
        session_end(&key->session);
        engine_container_stop(key->c->engine, a->id, STOP_S, on_done, key);
}

static void on_start(int status, json_object *body, struct err *err, void *user)
{
        struct key *key = user;

        if (!err) {
                key->exit_counted = false;
                key->up_since_ms = controller_now_ms();
                broker_hand_over(key);
        } else {
                session_close(&key->session);
        }
        on_done(status, body, err, user);
}

static void start(struct key *key)
{
        engine_container_start(key->c->engine, key->plan->actions[key->next].id, on_start, key);
}

/* A server that does not run yet has said nothing. What came all the same would be lost with the head that was read for us. */
static void on_attached(int fd, _unused_ const void *early, size_t n_early, struct err *err, void *user)
{
        struct key *key = user;

        if (err) {
                finish(key, err);
                return;
        }
        if (n_early > 0) {
                close(fd);
                fail(key, ERR_INVALID, "the Engine sent something in the name of a server that was not started yet");
                return;
        }
        key->session.fd = fd;
        start(key);
}

/* A stdio server's session begins with its process: whoever is to speak with it is attached before. */
static void do_start(struct key *key, const struct action *a)
{
        const struct desired_server *s = wanted(key);

        session_close(&key->session);
        if (!a->id)
                fail(key, ERR_INTERNAL, "nothing to start");
        else if (!egress_in_force(key->c->egress, s->names.bridge))
                fail(key, ERR_DENIED, "its firewall rules are not in force: not started");
        else if (s->entry->transport == TRANSPORT_STDIO && broker_linked(key->c->broker))
                engine_container_attach(key->c->engine, NULL, a->id, on_attached, key);
        else
                start(key);
}

static void do_remove(struct key *key, const struct action *a)
{
        engine_container_remove(key->c->engine, a->id, on_done, key);
}

static void do_network_remove(struct key *key, const struct action *a)
{
        engine_network_remove(key->c->engine, a->id, on_done, key);
}

/* -- the sequence --------------------------------------------------------------------------------------------------------- */

/* What the newest judgement must still say of the spec that was planned. */
enum need {
        NEED_NOTHING,
        NEED_STAY, /* it is kept where it runs */
        NEED_RUN,  /* leads to a start */
};

/*
 * Slots are for what keeps the Engine busy. Not for pulls, which wait for a registry: a slow one must not hold up other servers. Not for
 * removals: a revocation waits for nobody.
 */
static const struct {
        void (*run)(struct key *key, const struct action *a);
        bool takes_slot;
        enum need need;
} table[] = {
        [ACTION_EGRESS] = {do_egress, false, NEED_STAY},
        [ACTION_IMAGE] = {do_image, false, NEED_RUN},
        [ACTION_SMOKE] = {do_smoke, true, NEED_RUN},
        [ACTION_NETWORK] = {do_network, true, NEED_RUN},
        [ACTION_CREATE] = {do_create, true, NEED_RUN},
        [ACTION_VERIFY] = {do_verify, true, NEED_RUN},
        [ACTION_STOP] = {do_stop, true, NEED_RUN},
        [ACTION_START] = {do_start, true, NEED_RUN},
        [ACTION_REMOVE] = {do_remove, false, NEED_NOTHING},
        [ACTION_NETWORK_REMOVE] = {do_network_remove, true, NEED_NOTHING},
        [ACTION_EGRESS_REMOVE] = {do_egress_remove, false, NEED_NOTHING},
};

/* A plan is as old as its pass: an approval may have ended since, or another one, with another manifest, stand for the same spec. */
static bool still_wanted(const struct key *key, enum need need)
{
        const struct desired_server *planned = wanted(key), *now = desired_find(key->c->desired, key->name);

        if (need == NEED_NOTHING)
                return true;
        /* Its session ended before it began. */
        if (need == NEED_RUN && planned && planned->place && !(key->demand.called && broker_linked(key->c->broker)))
                return false;
        return planned && now && (need == NEED_RUN ? now->may_run : now->may_stay) &&
               str_eq(planned->names.spec_hash, now->names.spec_hash) && str_eq(planned->record->id, now->record->id);
}

static void step(struct key *key)
{
        if (key->next >= key->plan->n_actions) {
                finish(key, NULL);
                return;
        }
        const struct action *a = &key->plan->actions[key->next];
        if (!still_wanted(key, table[a->kind].need)) {
                log_info("left off: no longer approved as planned", "server", key->name, "action", action_name(a->kind));
                finish(key, NULL);
                return;
        }
        if (table[a->kind].takes_slot && !take_slot(key))
                return;
        key->c->mutations++;
        table[a->kind].run(key, a);
}

void apply_begin(struct key *key)
{
        key->busy = true;
        key->next = 0;
        key->desired = desired_ref(key->c->desired);
        step(key);
}
