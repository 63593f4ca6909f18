#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "broker/http/internal.h"
#include "common/file.h"

#define MAX_ACCEPTED 64U /* in a row, before others have their turn */

/* -- the loop ---------------------------------------------------------------------------------------------------------------- */

/* Who becomes dirty meanwhile has its turn after all others of the loop. */
static void work(struct front *f)
{
        struct conn *c = f->dirty;

        f->dirty = NULL;
        f->dirty_end = &f->dirty;
        while (c) {
                struct conn *next = c->next_dirty;

                c->dirty = false;
                conn_work(c);
                c = next;
        }
}

static int on_rerun(_unused_ sd_event_source *s, void *user)
{
        work(user);
        return 0;
}

static bool may_enter(const struct front *f, const struct sockaddr *address)
{
        return f->open < f->limits.max_connections && peers_count(&f->peers, address) < f->limits.max_per_address;
}

/* Without descriptors the next try would fail as well, and at once: epoll goes on telling. */
static void rest(struct front *f)
{
        (void)sd_event_source_set_enabled(f->listener, SD_EVENT_OFF);
        deadline_begin(&f->resting, &f->rest);
}

void front_rested(struct front *f, _unused_ struct deadline *d)
{
        (void)sd_event_source_set_enabled(f->listener, SD_EVENT_ON);
}

static int on_client(_unused_ sd_event_source *s, int fd, _unused_ uint32_t revents, void *user)
{
        struct front *f = user;

        for (unsigned i = 0; i < MAX_ACCEPTED; i++) {
                struct sockaddr_storage address = {0};
                socklen_t n = sizeof(address);
                int client = accept4(fd, (struct sockaddr *)&address, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (client < 0) {
                        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                                rest(f);
                        break;
                }
                f->counts.connections++;
                if (may_enter(f, (struct sockaddr *)&address)) {
                        conn_accepted(f, client, (struct sockaddr *)&address);
                } else {
                        f->counts.refused++;
                        close(client);
                }
        }
        return 0;
}

const char *front_date(struct front *f)
{
        uint64_t us = 0;
        struct tm tm;

        /* The loop's, which has asked for it already. */
        (void)sd_event_now(f->loop, CLOCK_REALTIME, &us);
        time_t now = (time_t)(us / 1000000);
        if (now != f->date_of) {
                f->date_of = now;
                f->usual_n = 0;
                gmtime_r(&now, &tm);
                if (strftime(f->date, sizeof(f->date), "%a, %d %b %Y %H:%M:%S GMT", &tm) == 0)
                        f->date[0] = '\0';
        }
        return f->date;
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

static int watch(struct front *f, struct err **err)
{
        int on = 1;

        /* Connections inherit it: what is written is written as a whole, and there is nothing to wait for. */
        if (setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
                return err_sys(err, errno, "TCP_NODELAY");
        if (ioctl(f->fd, FIONBIO, &on) < 0)
                return err_sys(err, errno, "FIONBIO");
        int r = sd_event_add_io(f->loop, &f->listener, f->fd, EPOLLIN, on_client, f);
        if (r >= 0)
                r = sd_event_add_defer(f->loop, &f->rerun, on_rerun, f);
        if (r >= 0)
                r = sd_event_source_set_enabled(f->rerun, SD_EVENT_OFF);
        return r < 0 ? err_sys(err, r, "watching the listener") : 0;
}

int front_new(struct front **ret, sd_event *loop, const struct front_config *config, front_request_fn request, void *user, struct err **err)
{
        _cleanup_(front_freep) struct front *f = NEW(struct front);
        _cleanup_fd_ int fd = -1;

        f->loop = sd_event_ref(loop);
        f->name = mem_strdup(config->name);
        f->fd = -1;
        f->limits = config->limits;
        f->authenticator = config->authenticator;
        f->open_path = config->open_path;
        f->request = request;
        f->user = user;
        f->dirty_end = &f->dirty;
        if (config->listen_fd >= 0)
                fd = config->listen_fd;
        else if (make_listener(&fd, config, err) < 0)
                return err_wrap(err, "%s", f->name);
        f->fd = TAKE_FD(fd);
        if (port_of(&f->port, f->fd, err) < 0 || guard_new(&f->guard, f->port, config->allowed_hosts, config->token_sha256, err) < 0 ||
            deadlines_start(f, err) < 0 || watch(f, err) < 0)
                return err_wrap(err, "%s", f->name);
        *ret = TAKE_PTR(f);
        return 0;
}

/* -- coming to an end -------------------------------------------------------------------------------------------------------- */

struct front *front_free(struct front *f)
{
        if (!f)
                return NULL;
        f->listener = sd_event_source_disable_unref(f->listener);
        f->closing = true;
        /* What was sent goes out, as far as sockets take it at once. */
        if (f->rerun)
                work(f);
        for (struct conn *c = f->conns; c; c = c->next)
                if (c->x)
                        conn_lose(c);
        for (struct conn *c = f->conns; c; c = c->next)
                conn_end(c);
        while (f->conns)
                conn_free(f->conns);
        sd_event_source_disable_unref(f->rerun);
        deadlines_stop(f);
        guard_free(f->guard);
        buf_deinit(&f->answer);
        sd_event_unref(f->loop);
        if (f->fd >= 0)
                close(f->fd);
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
