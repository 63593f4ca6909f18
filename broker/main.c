/*
 * bulkhead-broker: the process that faces agents. HTTP in front (http/), MCP in the middle (gateway/), the link to the controller behind
 * (link.c). It has no capability, no Docker socket and, once it runs, next to no system calls (confine.c).
 */
#include <errno.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "broker/agents/door.h"
#include "broker/confine.h"
#include "broker/health.h"
#include "common/conf.h"
#include "common/daemon.h"
#include "common/log.h"
#include "config.h"

/* Of the descriptors this process may have, so many are for servers, the link and the loop. */
#define OWN_DESCRIPTORS 256U
#define SESSION_IDLE_MS 3600000U
#define TRIM_MS         10000U
#define TRIM_ABOVE      (1U << 20) /* bytes that are free, and not given back */

struct broker {
        const struct conf *conf;
        sd_event *loop;
        struct front *front;
        struct door *door;        /* NULL: there is no state directory, and so no door for agents */
        struct tool_cache *cache; /* NULL: neither, so nothing is remembered */
        struct gateway *gateway;
        struct uplink *uplink;
        struct health health;
        sd_event_source *trim;
        struct busy_poll poll;
        bool unconfined;
};

static const char usage[] = "usage: bulkhead-broker [--config FILE] [--debug] [--unconfined]\n";

/* -- the loop ---------------------------------------------------------------------------------------------------------------- */

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, _unused_ void *user)
{
        log_info("stopping: callers are told to try again", "signal", si->ssi_signo == SIGTERM ? "TERM" : "INT");
        sd_event_exit(sd_event_source_get_event(s), 0);
        return 0;
}

static int on_hangup(_unused_ sd_event_source *s, _unused_ const struct signalfd_siginfo *si, void *user)
{
        struct broker *b = user;
        _cleanup_err_ struct err *err = NULL;
        char token[CONF_TOKEN_HEX];

        if (b->door)
                door_reload(b->door);
        if (!b->conf->gateway_auth)
                log_info("nothing to read again: gateway.auth is none");
        else if (conf_gateway_token(token, b->conf, &err) < 0 || front_set_token(b->front, token, &err) < 0)
                log_error("the token could not be read again: the old one goes on", "reason", err_msg(err));
        else
                log_info("the token was read again", "file", b->conf->gateway_token);
        return 0;
}

/* libc keeps what large messages needed; for a while that saves work. */
static int on_trim(sd_event_source *s, _unused_ uint64_t at, _unused_ void *user)
{
        if (mallinfo2().fordblks > TRIM_ABOVE)
                malloc_trim(TRIM_ABOVE / 4);
        int r = sd_event_source_set_time_relative(s, TRIM_MS * UINT64_C(1000));
        return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int prepare_loop(struct broker *b, struct err **err)
{
        if (daemon_loop(&b->loop, on_signal, on_hangup, b, err) < 0)
                return -1;
        /* Here, since who is confined cannot ask how many processors there are. */
        b->poll = busy_poll_new(b->conf->gateway_busy_poll_us);
        int r = sd_event_add_time_relative(b->loop, &b->trim, CLOCK_MONOTONIC, TRIM_MS * UINT64_C(1000), UINT64_C(1000000), on_trim, b);
        return r < 0 ? err_sys(err, r, "setting up a timer") : 0;
}

/* -- putting it together ----------------------------------------------------------------------------------------------------- */

static void on_request(struct exchange *x, void *user)
{
        struct broker *b = user;

        if (!health_exchange(&b->health, x))
                gateway_exchange(x, b->gateway);
}

static int make_gateway(struct broker *b, struct err **err)
{
        const struct conf *c = b->conf;
        _cleanup_free_ char *cache = mem_printf("%s/tools.json", c->broker_state);

        if (access(c->broker_state, W_OK) == 0)
                b->cache = tool_cache_new(b->loop, cache);
        const struct gateway_config config = {
                .upstream = {.max_message = c->gateway_max_message,
                             .max_queued = 2 * c->gateway_max_message,
                             .max_calls = 1024,
                             .max_noise = 1000,
                             .handshake_ms = c->gateway_start_timeout_ms,
                             .probe_ms = 2000},
                .call_timeout_ms = c->gateway_call_timeout_ms,
                .call_cap_ms = c->gateway_call_cap_ms,
                .start_ms = c->gateway_start_timeout_ms,
                .max_sessions = c->gateway_max_sessions,
                .session_idle_ms = SESSION_IDLE_MS,
                .max_waiting = 256,
                .max_agent_instances = (c->gateway_max_server_instances + 1) / 2,
                .ca_file = c->ca_file,
                .cache = b->cache,
        };
        const struct passwd *controller = getpwnam(c->service_user);

        if (!controller)
                return err_set(err, ERR_NOT_FOUND, "the controller's user \"%s\" does not exist: create it, or name another in %s",
                               c->service_user, c->path);
        b->uplink = uplink_new(b->loop, c->link_socket, controller->pw_uid, c->gateway_grace_ms);
        const struct gateway_controller asks = uplink_controller(b->uplink);
        return gateway_new(&b->gateway, b->loop, &config, &asks, err);
}

/* As many descriptors as we may have; how many are left for callers. */
static unsigned raise_descriptors(void)
{
        struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
        return limit.rlim_cur > 2U * OWN_DESCRIPTORS ? (unsigned)MIN(limit.rlim_cur, 1000000U) - OWN_DESCRIPTORS : OWN_DESCRIPTORS;
}

/* A listening socket that systemd made (optional), or -1. */
static int activated_socket(int *ret, struct err **err)
{
        int n = sd_listen_fds(true);

        if (n < 0)
                return err_sys(err, n, "looking for sockets of systemd's");
        if (n > 1)
                return err_set(err, ERR_INVALID, "systemd handed %d sockets over: one is enough", n);
        *ret = n == 1 ? SD_LISTEN_FDS_START : -1;
        return 0;
}

static int make_front(struct broker *b, unsigned callers, struct err **err)
{
        const struct conf *c = b->conf;
        char token[CONF_TOKEN_HEX];
        struct front_config config = {
                .name = "gateway",
                .address = c->gateway_listen.address,
                .port = c->gateway_listen.port,
                .allowed_hosts = c->gateway_hosts,
                .token_sha256 = c->gateway_auth ? token : NULL,
                .open_path = c->gateway_metrics_auth ? NULL : "/metrics",
                .limits = {.max_body = c->gateway_max_message,
                           .max_header = 8192,
                           .max_connections = callers,
                           /* On loopback all callers have one address. */
                           .max_per_address = str_has_prefix(c->gateway_listen.address, "127.") ? callers : callers / 8 + 1,
                           .header_timeout_ms = 10000,
                           .idle_timeout_ms = 75000,
                           .heartbeat_ms = 15000,
                           .max_queued = MAX(4U << 20, c->gateway_max_message)},
        };

        if (c->gateway_auth && conf_gateway_token(token, c, err) < 0)
                return -1;
        if (activated_socket(&config.listen_fd, err) < 0)
                return -1;
        if (!c->gateway_auth)
                log_warning("gateway.auth is none: every program on this host may call every server", "listen", c->gateway_listen.address);
        return front_new(&b->front, b->loop, &config, on_request, b, err);
}

static void on_troubles(char *const *troubles, void *user)
{
        uplink_set_troubles(user, troubles);
}

/* Calls that cannot be counted are refused; but who calls servers as the operator has no use for counters. */
static int make_door(struct broker *b, unsigned callers, struct err **err)
{
        const struct conf *c = b->conf;

        if (access(c->broker_state, X_OK) < 0 && errno == ENOENT) {
                log_warning("agents are not served: broker.state is missing; make it, for the broker's user alone, and restart",
                            "directory", c->broker_state);
                return 0;
        }
        if (door_new(&b->door, b->loop, c, b->gateway, callers, err) < 0)
                return -1;
        door_on_troubles(b->door, on_troubles, b->uplink);
        uplink_serve_calls(b->uplink, &(struct uplink_calls){.list = door_list_calls, .decide = door_decide_call, .user = b->door});
        return 0;
}

/* The directory of a file that is read again, if it is there. */
static char **add_directory(char **list, const char *path)
{
        _cleanup_free_ char *directory = mem_strndup(path, (size_t)(strrchr(path, '/') - path) + 1);

        return access(directory, F_OK) == 0 && !strv_contains(list, directory) ? strv_append(list, directory) : list;
}

static int confine(const struct broker *b, struct err **err)
{
        const struct conf *c = b->conf;
        _cleanup_strv_ char **directories = NULL;
        int r;

        directories = add_directory(directories, c->ca_file);
        if (c->gateway_auth)
                directories = add_directory(directories, c->gateway_token);
        if (b->door)
                directories = add_directory(add_directory(directories, c->agents_file), c->policy_path);
        r = b->unconfined ? 1 : broker_confine((const char *const *)directories, b->door ? c->broker_state : NULL, err);

        if (r > 0)
                log_warning("not confined: whoever takes the broker over can do what its user can", "because",
                            b->unconfined ? "--unconfined" : "it was built with a sanitizer");
        return r < 0 ? -1 : 0;
}

static int assemble(struct broker *b, struct err **err)
{
        unsigned callers = MIN(raise_descriptors(), 4 * b->conf->gateway_max_sessions + 2000) / 2; /* of each: operators, agents */

        if (prepare_loop(b, err) < 0 || make_gateway(b, err) < 0 || make_front(b, callers, err) < 0 || make_door(b, callers, err) < 0)
                return -1;
        b->health = (struct health){.front = b->front, .gateway = b->gateway, .uplink = b->uplink, .door = b->door};
        if (uplink_start(b->uplink, b->gateway, err) < 0)
                return -1;
        /* Dates of answers: libc looks for the zone's file even for UTC, once. */
        tzset();
        return confine(b, err);
}

/* The gateway first: its last answers still go out. */
static void dismantle(struct broker *b)
{
        if (b->door)
                door_stop(b->door);
        b->gateway = gateway_free(b->gateway);
        b->cache = tool_cache_free(b->cache);
        b->front = front_free(b->front);
        b->door = door_free(b->door);
        b->uplink = uplink_free(b->uplink);
        sd_event_source_disable_unref(b->trim);
        sd_event_unref(b->loop);
}

static int run(const struct conf *conf, bool unconfined, struct err **err)
{
        struct broker b = {.conf = conf, .unconfined = unconfined};
        char port[8], poll[16];
        int r = assemble(&b, err);

        if (r == 0) {
                snprintf(port, sizeof(port), "%u", (unsigned)front_port(b.front));
                snprintf(poll, sizeof(poll), "%u", (unsigned)b.poll.max_us);
                log_info("started", "version", PACKAGE_VERSION, "config", conf->path, "address", conf->gateway_listen.address, "port", port,
                         "busy_poll_us", poll);
                r = daemon_run(b.loop, &b.poll, err);
        }
        dismantle(&b);
        return r < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
        _cleanup_(conf_freep) struct conf *conf = NULL;
        _cleanup_err_ struct err *err = NULL;
        bool unconfined = false; /* for valgrind and debuggers, which do what the broker must not */
        const struct daemon_flag flags[] = {{"unconfined", &unconfined}};
        struct daemon_options o = {.usage = usage, .flags = flags, .n_flags = ELEMENTSOF(flags)};
        int r = daemon_parse(&o, argc, argv);

        if (r > 0)
                return r - 1;
        if (getuid() == 0 || geteuid() == 0) {
                log_error("the broker does not run as root: start it as its own user (bulkhead-broker.service does)");
                return 1;
        }
        if (sodium_init() < 0)
                abort();
        r = conf_load(&conf, o.config, &err);
        if (r == 0)
                r = run(conf, unconfined, &err);
        if (r < 0)
                log_error("cannot go on", "reason", err_msg(err));
        return r < 0 ? 1 : 0;
}
