/*
 * The control socket's verbs. What each may do is decided by the peer's credentials: root and the service user always, the operators' group
 * for verbs that change something, the readers' group for the rest. Nobody else learns anything.
 */
#include "controller/controller.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#include "common/link/facts.h"
#include "common/log.h"

enum right { RIGHT_READ, RIGHT_OPERATE };

struct verb {
        const char *name;
        enum right right;
        void (*run)(struct controller *c, struct link_conn *conn, json_object *request);
};

static void verb_status(struct controller *c, struct link_conn *conn, json_object *request)
{
        const char *server = json_str(request, "server");

        if (server && !(c->registry && registry_find(c->registry->value, server))) {
                _cleanup_free_ char *message = mem_printf("no server is called \"%.40s\" in %s", server, c->conf->registry_path);
                link_fail(conn, 1, message);
                return;
        }
        link_answer(conn, status_json(c, server));
}

static void verb_plan(struct controller *c, struct link_conn *conn, _unused_ json_object *request)
{
        pass_wait(c, conn, false);
}

static void verb_apply(struct controller *c, struct link_conn *conn, _unused_ json_object *request)
{
        inputs_reload(c);
        pass_wait(c, conn, true);
}

static void verb_reload(struct controller *c, struct link_conn *conn, _unused_ json_object *request)
{
        inputs_reload(c);
        link_answer(conn, json_object_new_object());
}

/* -- smoke ---------------------------------------------------------------------------------------------------------------- */

struct asked_smoke {
        struct link_conn *conn;
        struct registry_entry *entry;
        uint64_t told_ms; /* last progress */
};

/* A few lines a second are enough for a terminal. */
#define PROGRESS_MS 200U

static void on_pull_progress(uint64_t current, uint64_t total, const char *status, void *user)
{
        struct asked_smoke *asked = user;
        uint64_t now = controller_now_ms();

        if (now - asked->told_ms < PROGRESS_MS)
                return;
        asked->told_ms = now;
        json_object *o = json_object_new_object();
        json_add_str(o, "server", asked->entry->name);
        json_add_str(o, "text", status);
        json_add_int(o, "current", (int64_t)current);
        json_add_int(o, "total", (int64_t)total);
        link_progress(asked->conn, o);
}

static void on_smoke(struct smoke_result *result, const struct image_facts *facts, const struct spec *spec, struct err *err, void *user)
{
        struct asked_smoke *asked = user;
        _cleanup_(smoke_result_freep) struct smoke_result *owned = result;

        if (err || !owned || !spec) {
                link_fail(asked->conn, 1, err ? err_msg(err) : "the smoke test could not be made");
        } else {
                json_object *o = json_object_new_object();
                if (facts)
                        json_add(o, "image", link_facts_to_json(facts));
                json_add_str(o, "spec_sha256", spec->hex);
                json_add_str(o, "entry_sha256", asked->entry->entry_sha256);
                json_add(o, "smoke", smoke_result_to_json(owned));
                link_answer(asked->conn, o);
        }
        registry_entry_free(asked->entry);
        free(asked);
}

static void verb_smoke(struct controller *c, struct link_conn *conn, json_object *request)
{
        const char *server = json_str(request, "server");
        _cleanup_(registry_entry_freep) struct registry_entry *entry = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (!server || registry_entry_parse(&entry, server, json_get(request, "entry"), "the proposal", c->conf, &err) < 0) {
                link_fail(conn, 1, err ? err_msg(err) : "a smoke test wants a server's name and its entry");
                return;
        }
        struct asked_smoke *asked = NEW(struct asked_smoke);
        asked->conn = conn;
        asked->entry = TAKE_PTR(entry);
        const struct smoking_request wish = {.entry = asked->entry, .progress = on_pull_progress, .done = on_smoke, .user = asked};
        if (smoking_start(c, &wish, &err) < 0) {
                link_fail(conn, 1, err_msg(err));
                registry_entry_free(asked->entry);
                free(asked);
        }
}

/* -- egress --------------------------------------------------------------------------------------------------------------- */

struct asked_egress {
        struct controller *c;
        struct link_conn *conn;
        char *server;
};

static void on_show(json_object *show, struct err *err, void *user)
{
        struct asked_egress *asked = user;

        if (err) {
                link_fail(asked->conn, 1, err_msg(err));
                json_object_put(show);
        } else {
                link_answer(asked->conn, show);
        }
        free(asked->server);
        free(asked);
}

static void on_verified(struct err *err, void *user)
{
        struct asked_egress *asked = user;

        if (err) {
                link_fail(asked->conn, 1, err_msg(err));
                free(asked->server);
                free(asked);
                return;
        }
        egress_show(asked->c->egress, asked->server, on_show, asked);
}

static void verb_egress(struct controller *c, struct link_conn *conn, json_object *request)
{
        struct asked_egress *asked = NEW(struct asked_egress);

        *asked = (struct asked_egress){.c = c, .conn = conn, .server = mem_strdup(json_str(request, "server"))};
        if (json_flag(request, "verify", false))
                egress_verify(c->egress, on_verified, asked);
        else
                egress_show(c->egress, asked->server, on_show, asked);
}

static void verb_doctor(struct controller *c, struct link_conn *conn, _unused_ json_object *request)
{
        link_answer(conn, doctor_json(c));
}

static void verb_calls(struct controller *c, struct link_conn *conn, _unused_ json_object *request)
{
        broker_ask_calls(c->broker, conn);
}

static void verb_decide(struct controller *c, struct link_conn *conn, json_object *request)
{
        broker_decide_call(c->broker, conn, request);
}

static const struct verb verbs[] = {
        {"status", RIGHT_READ, verb_status},  {"plan", RIGHT_READ, verb_plan},      {"doctor", RIGHT_READ, verb_doctor},
        {"egress", RIGHT_READ, verb_egress},  {"apply", RIGHT_OPERATE, verb_apply}, {"reload", RIGHT_OPERATE, verb_reload},
        {"smoke", RIGHT_OPERATE, verb_smoke}, {"calls", RIGHT_READ, verb_calls},    {"decide", RIGHT_OPERATE, verb_decide},
};

static bool in_named_group(const struct link_peer *peer, const char *name)
{
        const struct group *g = getgrnam(name);

        return g && link_peer_in_group(peer, g->gr_gid);
}

static bool may(const struct controller *c, const struct link_peer *peer, enum right right)
{
        if (peer->uid == 0 || peer->uid == geteuid())
                return true;
        if (in_named_group(peer, c->conf->operator_group))
                return true;
        return right == RIGHT_READ && in_named_group(peer, c->conf->reader_group);
}

static void on_request(struct link_conn *conn, const struct link_peer *peer, json_object *request, void *user)
{
        struct controller *c = user;
        const char *name = json_str(request, "verb");

        for (size_t i = 0; name && i < ELEMENTSOF(verbs); i++) {
                if (!str_eq(verbs[i].name, name))
                        continue;
                if (may(c, peer, verbs[i].right)) {
                        /* Who it is, the kernel says. */
                        const struct passwd *pw = getpwuid(peer->uid);
                        _cleanup_free_ char *by = pw ? mem_strdup(pw->pw_name) : mem_printf("uid-%u", (unsigned)peer->uid);
                        json_add_str(request, "by", by);
                        verbs[i].run(c, conn, request);
                        return;
                }
                char uid[16];
                snprintf(uid, sizeof(uid), "%u", (unsigned)peer->uid);
                log_warning("refused at the control socket", "verb", name, "uid", uid);
                _cleanup_free_ char *message =
                        mem_printf("not permitted: \"%s\" is for root and the group %s", name,
                                   verbs[i].right == RIGHT_OPERATE ? c->conf->operator_group : c->conf->reader_group);
                link_fail(conn, 77, message);
                return;
        }
        link_fail(conn, 64, "unknown verb");
}

int control_start(struct controller *c, struct err **err)
{
        return link_server_new(&c->control, c->loop, c->conf->control_socket, -1, on_request, c, err);
}
