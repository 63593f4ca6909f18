#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/http/internal.h"
#include "common/file.h"

#define POOL_EXTRA                                                                                                                         \
        4096U           /* of a connection's memory, beside the request's headers: libmicrohttpd's records of them, the answer's headers   \
                         */
#define FLUSH_BELOW  8U /* exchanges in flight */
#define FLUSH_ROUNDS 3U
#define MAX_ROUNDS   64U /* of libmicrohttpd in a row, before others have their turn */

/* -- the loop ---------------------------------------------------------------------------------------------------------------- */

void front_rerun(struct front *f)
{
        (void)sd_event_source_set_enabled(f->rerun, SD_EVENT_ONESHOT);
}

static bool has_more(struct front *f)
{
        MHD_UNSIGNED_LONG_LONG ms;

        return MHD_get_timeout(f->daemon, &ms) == MHD_YES && ms == 0;
}

static void run_once(struct front *f)
{
        f->running = true;
        (void)MHD_run(f->daemon);
        f->running = false;
}

static void run_daemon(struct front *f)
{
        for (unsigned i = 0; i < MAX_ROUNDS; i++) {
                run_once(f);
                if (!has_more(f))
                        return;
        }
        front_rerun(f);
}

void front_flush(struct front *f)
{
        /* With many in flight, answers come together, and are sent together. */
        if (f->running || f->closing || f->counts.open_exchanges >= FLUSH_BELOW) {
                front_rerun(f);
                return;
        }
        f->flushing = true;
        run_once(f);
        /* What it does behind the last answer, and what its epoll tells of that, costs less here than in turns of the loop. */
        for (unsigned i = 0; i < FLUSH_ROUNDS && f->counts.open_exchanges == 0; i++)
                run_once(f);
        f->flushing = false;
        if (has_more(f))
                front_rerun(f);
}

static int on_io(_unused_ sd_event_source *s, _unused_ int fd, _unused_ uint32_t revents, void *user)
{
        run_daemon(user);
        return 0;
}

static int on_rerun(_unused_ sd_event_source *s, void *user)
{
        struct front *f = user;

        streams_flush(f);
        run_daemon(f);
        return 0;
}

/* -- what libmicrohttpd calls ------------------------------------------------------------------------------------------------ */

static enum MHD_Result on_accept(void *user, const struct sockaddr *address, _unused_ socklen_t n)
{
        struct front *f = user;

        f->counts.connections++;
        if (!f->closing && f->open < f->limits.max_connections && peers_count(&f->peers, address) < f->limits.max_per_address)
                return MHD_YES;
        f->counts.refused++;
        return MHD_NO;
}

static void on_connection(void *user, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
        if (code == MHD_CONNECTION_NOTIFY_STARTED)
                *context = conn_opened(user, mhd);
        else if (*context)
                conn_closed(*context);
}

/* Escapes in paths are refused, not decoded: so nothing is ever read in two ways. */
static size_t keep_escapes(_unused_ void *user, _unused_ struct MHD_Connection *mhd, char *s)
{
        return strlen(s);
}

/* -- setting up -------------------------------------------------------------------------------------------------------------- */

static int make_listener(int *ret, const struct front_config *config, struct err **err)
{
        struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(config->port)};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(config->port)};
        bool six = inet_pton(AF_INET6, config->address, &in6.sin6_addr) == 1;
        const int on = 1;

        if (!six && inet_pton(AF_INET, config->address, &in4.sin_addr) != 1)
                return err_set(err, ERR_INVALID, "\"%s\" is no IP address", config->address);
        _cleanup_fd_ int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return err_sys(err, errno, "making a socket");
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
                return err_sys(err, errno, "SO_REUSEADDR");
        if (bind(fd, six ? (struct sockaddr *)&in6 : (struct sockaddr *)&in4, six ? sizeof(in6) : sizeof(in4)) < 0)
                return err_sys(err, errno, "cannot listen on %s port %u", config->address, (unsigned)config->port);
        if (listen(fd, SOMAXCONN) < 0)
                return err_sys(err, errno, "listening on %s port %u", config->address, (unsigned)config->port);
        *ret = TAKE_FD(fd);
        return 0;
}

static int port_of(uint16_t *ret, int fd, struct err **err)
{
        union {
                struct sockaddr any;
                struct sockaddr_in in4;
                struct sockaddr_in6 in6;
        } a = {0};
        socklen_t n = sizeof(a);

        if (getsockname(fd, &a.any, &n) < 0)
                return err_sys(err, errno, "asking the listener for its address");
        if (a.any.sa_family != AF_INET && a.any.sa_family != AF_INET6)
                return err_set(err, ERR_INVALID, "the listening descriptor is no TCP socket");
        *ret = ntohs(a.any.sa_family == AF_INET ? a.in4.sin_port : a.in6.sin6_port);
        return 0;
}

/* Takes listen_fd when it succeeds. */
static int start_daemon(struct front *f, int listen_fd, struct err **err)
{
        const unsigned flags = MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME;
        size_t memory = (f->limits.max_header + POOL_EXTRA + 15U) & ~(size_t)15U;

        /* Limits are ours (on_accept); libmicrohttpd's own would leave callers hanging in the backlog. */
        f->daemon =
                MHD_start_daemon(flags, 0, on_accept, f, request_handler, f, MHD_OPTION_LISTEN_SOCKET, listen_fd,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory, MHD_OPTION_CONNECTION_LIMIT, f->limits.max_connections + 64U,
                                 MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_NOTIFY_CONNECTION, on_connection, f,
                                 MHD_OPTION_NOTIFY_COMPLETED, request_completed, f, MHD_OPTION_URI_LOG_CALLBACK, request_line, f,
                                 MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, f, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
        if (!f->daemon)
                return err_sys(err, errno, "starting libmicrohttpd");
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(f->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        int r = info ? sd_event_add_io(f->loop, &f->io, info->epoll_fd, EPOLLIN, on_io, f) : -ENOTSUP;
        if (r >= 0)
                r = sd_event_add_defer(f->loop, &f->rerun, on_rerun, f);
        return r < 0 ? err_sys(err, r, "watching the listener") : 0;
}

int front_new(struct front **ret, sd_event *loop, const struct front_config *config, front_request_fn request, void *user, struct err **err)
{
        _cleanup_(front_freep) struct front *f = NEW(struct front);
        _cleanup_fd_ int fd = -1;

        *f = (struct front){.loop = sd_event_ref(loop),
                            .name = mem_strdup(config->name),
                            .limits = config->limits,
                            .authenticator = config->authenticator,
                            .request = request,
                            .user = user};
        if (config->listen_fd >= 0)
                fd = config->listen_fd;
        else if (make_listener(&fd, config, err) < 0)
                return err_wrap(err, "%s", f->name);
        if (port_of(&f->port, fd, err) < 0 || guard_new(&f->guard, f->port, config->allowed_hosts, config->token_sha256, err) < 0 ||
            deadlines_start(f, err) < 0 || start_daemon(f, fd, err) < 0)
                return err_wrap(err, "%s", f->name);
        (void)TAKE_FD(fd); /* libmicrohttpd's now */
        *ret = TAKE_PTR(f);
        return 0;
}

/* -- coming to an end -------------------------------------------------------------------------------------------------------- */

static bool is_answering(const struct front *f)
{
        for (const struct conn *c = f->conns; c; c = c->next)
                if (c->state == CONN_ANSWERING)
                        return true;
        return false;
}

static void cut_off(struct front *f)
{
        streams_flush(f);
        while (f->streams)
                exchange_lost(f->streams);
        for (struct conn *c = f->conns; c; c = c->next)
                if (c->state == CONN_WAITING) {
                        struct exchange *x = TAKE_PTR(c->x);

                        conn_end(c);
                        exchange_lost(x);
                }
        /* What was answered goes out, as far as sockets take it at once. */
        for (unsigned i = 0; i < MAX_ROUNDS && is_answering(f); i++)
                (void)MHD_run(f->daemon);
}

struct front *front_free(struct front *f)
{
        if (!f)
                return NULL;
        f->closing = true;
        f->io = sd_event_source_disable_unref(f->io);
        if (f->daemon) {
                cut_off(f);
                MHD_stop_daemon(f->daemon);
        }
        drains_free(f);
        sd_event_source_disable_unref(f->rerun);
        deadlines_stop(f);
        guard_free(f->guard);
        sd_event_unref(f->loop);
        free(f->name);
        free(f);
        return NULL;
}

uint16_t front_port(const struct front *f)
{
        return f->port;
}

int front_set_token(struct front *f, const char *token_sha256, struct err **err)
{
        return guard_set_token(f->guard, token_sha256, err);
}

void front_counts(const struct front *f, struct front_counts *ret)
{
        *ret = f->counts;
}
