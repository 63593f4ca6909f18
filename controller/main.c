/*
 * bulkhead-controller: keeps the machine equal to what is declared and approved. See controller.h for the parts.
 */
#include "controller/controller.h"

#include <errno.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/daemon.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "config.h"
#include "controller/privileges.h"

static const char usage[] = "usage: bulkhead-controller [--config FILE] [--debug]\n"
                            "       bulkhead-controller [--config FILE] --init-state   create the empty state of a new host, once\n"
                            "       bulkhead-controller [--config FILE] --print-guard  print the fail-closed rules for nft -f\n"
                            "       bulkhead-controller [--config FILE] --load-guard   load them, as the boot unit does\n";

/* -- modes that do not run the loop --------------------------------------------------------------------------------------- */

static int uid_of(uid_t *ret, const char *name)
{
        const struct passwd *user = getpwnam(name);

        if (!user)
                return -1;
        *ret = user->pw_uid;
        return 0;
}

static int guard_text(char **ret, const struct conf *conf, struct err **err)
{
        uid_t controller = 0, broker = 0;

        if (uid_of(&controller, conf->service_user) < 0)
                return err_set(err, ERR_NOT_FOUND,
                               "the service user \"%s\" does not exist: create it (deploy/sysusers.d), or name another in %s",
                               conf->service_user, conf->path);
        bool have_broker = uid_of(&broker, conf->broker_user) == 0;
        *ret = egress_guard_text(conf, controller, broker, have_broker);
        return 0;
}

static int print_guard(const struct conf *conf, bool load, struct err **err)
{
        static const char *const argv[] = {"/usr/sbin/nft", "-f", "-", NULL};
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};
        _cleanup_free_ char *text = NULL;

        if (guard_text(&text, conf, err) < 0)
                return -1;
        if (!load)
                return fputs(text, stdout) < 0 ? err_sys(err, errno, "cannot write") : 0;
        struct spawn_options o = {.argv = argv, .input = text, .input_len = strlen(text)};
        if (spawn_run(&result, &o, err) < 0)
                return -1;
        return spawn_result_check(&result, "loading the guard with nft", err);
}

/* The state belongs to the service user, whoever makes it. */
static int init_state(const struct conf *conf, struct err **err)
{
        const struct passwd *user = getpwnam(conf->service_user);
        _cleanup_free_ char *file = mem_printf("%s/forge.json", conf->state_dir);

        if (!user)
                return err_set(err, ERR_NOT_FOUND,
                               "the service user \"%s\" does not exist: create it (deploy/sysusers.d), or name another in %s",
                               conf->service_user, conf->path);
        int r = state_init(conf, err);
        if (r < 0)
                return -1;
        /* The directory is the service user's: what it put there in the file's place, say a link, is not followed by root. */
        if (geteuid() == 0 && (lchown(conf->state_dir, user->pw_uid, user->pw_gid) < 0 || lchown(file, user->pw_uid, user->pw_gid) < 0))
                return err_sys(err, errno, "cannot hand %s to %s", conf->state_dir, conf->service_user);
        printf(r ? "%s is there already: nothing changed\n" : "created %s\n", file);
        return 0;
}

/* -- running -------------------------------------------------------------------------------------------------------------- */

static void on_egress_event(const char *what, bool repaired, void *user)
{
        struct controller *c = user;
        char now[TEXT_TIME_MAX];

        log_warning("the firewall rules were changed by a foreign hand", "what", what, "repaired", repaired ? "yes" : "no");
        mem_replace(&c->egress_last_change, mem_printf("%s %s%s", text_format_time(now, time(NULL)), what, repaired ? " (repaired)" : ""));
        c->egress_ok = repaired;
        mem_replace(&c->egress_error, repaired ? NULL : mem_strdup(what));
        pass_request(c, 0, false);
}

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, _unused_ void *user)
{
        log_info("stopping: servers go on running", "signal", si->ssi_signo == SIGTERM ? "TERM" : "INT");
        sd_event_exit(sd_event_source_get_event(s), 0);
        return 0;
}

static int on_hangup(_unused_ sd_event_source *s, _unused_ const struct signalfd_siginfo *si, void *user)
{
        inputs_reload(user);
        return 0;
}

static int assemble(struct controller *c, struct err **err)
{
        c->inotify = -1;
        c->nothing.refs = 1;
        if (daemon_loop(&c->loop, on_signal, on_hangup, c, err) < 0 || address_pool_new(&c->pool, c->conf->pool, err) < 0)
                return -1;
        if (engine_new(&c->engine, c->loop, c->conf->engine_socket, err) < 0 ||
            egress_new(&c->egress, c->loop, c->conf, on_egress_event, c, err) < 0)
                return -1;
        c->images = images_new();
        c->observer = observer_new(c->engine, c->conf, c->images);
        c->smoked = smoked_load(c->conf);
        if (control_start(c, err) < 0)
                return err_wrap(err, "control socket %s", c->conf->control_socket);
        c->broker = broker_new(c);
        return pass_start(c, err) < 0 || inputs_start(c, err) < 0 ? -1 : 0;
}

static void dismantle(struct controller *c)
{
        inputs_stop(c);
        c->control = link_server_free(c->control);
        c->broker = broker_free(c->broker);
        pass_stop(c);
        c->observer = observer_free(c->observer);
        c->images = images_free(c->images);
        c->engine = engine_free(c->engine);
        c->egress = egress_free(c->egress);
        c->pool = address_pool_free(c->pool);
        c->smoked = smoked_free(c->smoked);
        sd_event_unref(c->loop);
}

static int run(const struct conf *conf, struct err **err)
{
        struct controller c = {.conf = conf};

        if (privileges_drop(conf, err) < 0)
                return -1;
        umask(0027);
        /* Small and many allocations come and go with every pass: give freed pages back early. */
        mallopt(M_TRIM_THRESHOLD, 256 * 1024);
        mallopt(M_MMAP_THRESHOLD, 256 * 1024);
        int r = assemble(&c, err);
        if (r == 0) {
                log_info("started", "version", PACKAGE_VERSION, "audience", conf->audience, "config", conf->path);
                r = daemon_run(c.loop, NULL, err);
        }
        dismantle(&c);
        return r < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
        _cleanup_(conf_freep) struct conf *conf = NULL;
        _cleanup_err_ struct err *err = NULL;
        bool init = false, print = false, load = false;
        const struct daemon_flag flags[] = {{"init-state", &init}, {"print-guard", &print}, {"load-guard", &load}};
        struct daemon_options o = {.usage = usage, .flags = flags, .n_flags = ELEMENTSOF(flags)};
        int r = daemon_parse(&o, argc, argv);

        if (r > 0)
                return r - 1;
        if (sodium_init() < 0)
                abort();
        r = conf_load(&conf, o.config, &err);
        if (r == 0 && init)
                r = init_state(conf, &err);
        else if (r == 0 && (print || load))
                r = print_guard(conf, load, &err);
        else if (r == 0)
                r = run(conf, &err);
        if (r < 0)
                log_error("cannot go on", "reason", err_msg(err));
        return r < 0 ? 1 : 0;
}
