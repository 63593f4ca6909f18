/*
 * What only the daemon can check: its Engine, its rules, its inputs. The CLI's doctor adds what it sees from outside.
 */
#include "controller/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/statvfs.h>
#include <unistd.h>

static void check(json_object *list, const char *name, bool ok, const char *level, const char *detail, const char *remedy)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "name", name);
        json_add_bool(o, "ok", ok);
        json_add_str(o, "level", ok ? "ok" : level);
        json_add_str(o, "detail", detail);
        if (!ok)
                json_add_str(o, "remedy", remedy);
        json_object_array_add(list, o);
}

/* What is not wrong, but not all there either. */
static void warn(json_object *list, const char *name, const char *detail, const char *remedy)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "name", name);
        json_add_bool(o, "ok", true);
        json_add_str(o, "level", "warning");
        json_add_str(o, "detail", detail);
        json_add_str(o, "remedy", remedy);
        json_object_array_add(list, o);
}

static void check_engine(const struct controller *c, json_object *list)
{
        _cleanup_free_ char *detail = c->engine_error
                                              ? mem_strdup(c->engine_error)
                                              : mem_printf("%s %s, API 1.%u", engine_is_podman(c->engine) ? "Podman" : "Docker Engine",
                                                           engine_version(c->engine), engine_api_minor(c->engine));

        check(list, "engine", c->observed_once && !c->engine_error, "error", detail,
              "start the Engine, and let the service user's group open its socket (engine.socket in bulkhead.conf)");
}

static void check_egress(const struct controller *c, json_object *list)
{
        check(list, "egress", c->egress_ok, "error",
              c->egress_ok      ? "guard and policy are in force, read back from the kernel"
              : c->egress_error ? c->egress_error
                                : "still loading",
              "see `bulkhead egress show` and the manual's page on egress");
}

static void check_inputs(const struct controller *c, json_object *list)
{
        const struct forge_view *view = c->view ? c->view->value : NULL;

        check(list, "registry", !c->registry_error && c->registry, "error", c->registry_error ? c->registry_error : c->conf->registry_path,
              "mend the file; until then the last good one stays in force");
        check(list, "approvals", view && !c->view_error && !view->refused, "error",
              c->view_error           ? c->view_error
              : view && view->refused ? view->refused
                                      : c->conf->approvals_repository,
              "put the repository's history back to where it was, or restore the state from a backup");
        check(list, "signatures", c->conf->signatures_required, "warning",
              c->conf->signatures_required ? "required"
                                           : "approvals.signatures is \"none\": anybody who can write the repository can approve",
              "set approvals.signatures to required");
}

static void check_state_dir(const struct controller *c, json_object *list)
{
        struct statvfs fs;
        bool writable = access(c->conf->state_dir, W_OK) == 0;
        bool room = statvfs(c->conf->state_dir, &fs) == 0 && fs.f_bavail * fs.f_frsize >= (64U << 20);
        _cleanup_free_ char *detail = mem_printf("%s%s", c->conf->state_dir,
                                                 !writable ? " cannot be written"
                                                 : !room   ? " has less than 64 MiB free"
                                                           : "");

        check(list, "state", writable && room, "error", detail, "make it the service user's (mode 0750) and keep room on its disk");
}

/* Without a broker servers run all the same; only nobody can call them. */
static void check_broker(const struct controller *c, json_object *list)
{
        _cleanup_json_ json_object *broker = broker_json(c);
        const char *error = json_str(broker, "error");

        if (error)
                warn(list, "broker", error,
                     "make the broker's user (systemd-sysusers) and the socket's directory (systemd-tmpfiles), which must be the service "
                     "user's");
        else if (!json_flag(broker, "linked", false))
                warn(list, "broker", "no broker is linked: nobody can call the servers",
                     "systemctl start bulkhead-broker, and see its journal");
        else
                check(list, "broker", true, "ok", "linked", NULL);
}

/* Who calls a server that sleeps, or wants an instance of its own, is refused when there is no room: somebody should know before. */
static void check_room(struct controller *c, json_object *list)
{
        const struct admission a = demand_admission(c);
        _cleanup_free_ char *detail = mem_printf(
                "%u of %u on-demand servers and instances for sessions run; limits of all servers: %" PRIu64 " of %" PRIu64 " MiB",
                a.instances, a.max_instances, a.memory >> 20, a.max_memory >> 20);

        if (a.instances >= a.max_instances || a.memory >= a.max_memory)
                warn(list, "room", detail, "raise gateway.max_instances or gateway.max_memory, or lower the servers' memory limits");
        else
                check(list, "room", true, "ok", detail, NULL);
        for (size_t i = 0; c->desired && i < c->desired->n; i++) {
                const struct desired_server *s = &c->desired->servers[i];

                if (s->place || !registry_entry_has_instances(s->entry) || demand_has_place(c, s))
                        continue;
                _cleanup_free_ char *full = mem_printf("server %s: every place for a session is taken", s->name);
                warn(list, "sessions", full, "raise gateway.max_server_instances, or lower its idle_timeout");
        }
}

/* External servers by https are asked by our helper and called by the broker, and both look there whom to trust. */
static void check_authorities(const struct controller *c, json_object *list)
{
        size_t n = 0;

        for (size_t i = 0; c->desired && i < c->desired->n; i++)
                n += c->desired->servers[i].entry->tls_host && !c->desired->servers[i].entry->tls_pins;
        if (n == 0)
                return;
        bool there = access(c->conf->ca_file, R_OK) == 0;
        _cleanup_free_ char *detail = mem_printf("%s%s (gateway.ca_file, for %zu external server%s)", c->conf->ca_file,
                                                 there ? "" : " cannot be read", n, n > 1 ? "s" : "");
        check(list, "authorities", there, "error", detail, "install ca-certificates, or name another file");
}

static void check_identity(json_object *list)
{
        check(list, "service-user", geteuid() != 0, "error",
              geteuid() ? "the controller does not run as root" : "the controller runs as root",
              "start it through its unit or with --user");
}

json_object *doctor_json(struct controller *c)
{
        json_object *o = json_object_new_object(), *list = json_object_new_array();

        check_engine(c, list);
        check_egress(c, list);
        check_inputs(c, list);
        check_broker(c, list);
        check_room(c, list);
        check_state_dir(c, list);
        check_authorities(c, list);
        check_identity(list);
        json_add(o, "checks", list);
        return o;
}
