#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/smoke_internal.h"
#include "common/smoke/talk.h"

#define CONNECT_USEC 2000000U
#define REFUSED_USEC 100000U /* before "refused" is said: the helper asks again at once */

/* One byte from the helper, one connection for it: always to the same address, never waiting in the loop. */
struct smoke_connector {
        sd_event *loop;
        struct sockaddr_in to;
        int asks; /* our end */
        int fd;   /* being connected */
        unsigned given;
        sd_event_source *on_ask, *on_connect, *timer;
};

struct smoke_connector *smoke_connector_free(struct smoke_connector *c)
{
        if (!c)
                return NULL;
        sd_event_source_disable_unref(c->on_ask);
        sd_event_source_disable_unref(c->on_connect);
        sd_event_source_disable_unref(c->timer);
        fd_closep(&c->fd);
        fd_closep(&c->asks);
        sd_event_unref(c->loop);
        free(c);
        return NULL;
}

/* A full or closed socket means a helper that does not keep to the rules or is gone: its own deadline ends it. */
static void say(struct smoke_connector *c, char reply, int fd)
{
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {.iov_base = &reply, .iov_len = 1};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

        if (fd >= 0) {
                m.msg_control = control.bytes;
                m.msg_controllen = sizeof(control.bytes);
                struct cmsghdr *h = CMSG_FIRSTHDR(&m);
                h->cmsg_level = SOL_SOCKET;
                h->cmsg_type = SCM_RIGHTS;
                h->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(h), &fd, sizeof(int));
        }
        (void)!sendmsg(c->asks, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Done with one request: listen for the next. */
static void ready(struct smoke_connector *c)
{
        c->on_connect = sd_event_source_disable_unref(c->on_connect);
        c->timer = sd_event_source_disable_unref(c->timer);
        fd_closep(&c->fd);
        c->fd = -1;
        (void)sd_event_source_set_enabled(c->on_ask, SD_EVENT_ON);
}

static int on_refused(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct smoke_connector *c = user;

        say(c, TALK_REFUSED, -1);
        ready(c);
        return 0;
}

static void refuse_later(struct smoke_connector *c)
{
        c->on_connect = sd_event_source_disable_unref(c->on_connect);
        c->timer = sd_event_source_disable_unref(c->timer);
        if (sd_event_add_time_relative(c->loop, &c->timer, CLOCK_MONOTONIC, REFUSED_USEC, 0, on_refused, c) < 0)
                on_refused(NULL, 0, c);
}

static int on_connected(_unused_ sd_event_source *source, int fd, _unused_ uint32_t events, void *user)
{
        struct smoke_connector *c = user;
        int problem = 0;
        socklen_t n = sizeof(problem);

        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &n) < 0 || problem) {
                refuse_later(c);
                return 0;
        }
        c->given++;
        say(c, TALK_CONNECTED, fd);
        ready(c);
        return 0;
}

static int on_slow(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        refuse_later(user);
        return 0;
}

static void begin_connect(struct smoke_connector *c)
{
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || (connect(c->fd, (struct sockaddr *)&c->to, sizeof(c->to)) < 0 && errno != EINPROGRESS) ||
            sd_event_add_io(c->loop, &c->on_connect, c->fd, EPOLLOUT, on_connected, c) < 0 ||
            sd_event_add_time_relative(c->loop, &c->timer, CLOCK_MONOTONIC, CONNECT_USEC, 0, on_slow, c) < 0)
                refuse_later(c);
}

static int on_ask(sd_event_source *source, int fd, _unused_ uint32_t events, void *user)
{
        struct smoke_connector *c = user;
        char ask = 0;
        ssize_t n = recv(fd, &ask, 1, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
        if (n != 1 || ask != TALK_ASK)
                return 0; /* closed, or no helper of ours */
        if (c->given >= TALK_MAX_CONNECTIONS) {
                say(c, TALK_EXHAUSTED, -1);
                return 0;
        }
        begin_connect(c);
        return 0;
}

int smoke_connector_new(struct smoke_connector **ret, sd_event *loop, const char *address, uint16_t port, int *helper_fd, struct err **err)
{
        struct smoke_connector *c = NEW(struct smoke_connector);
        int pair[2], r;

        *c = (struct smoke_connector){.loop = sd_event_ref(loop), .asks = -1, .fd = -1};
        c->to.sin_family = AF_INET;
        c->to.sin_port = htons(port);
        if (inet_pton(AF_INET, address, &c->to.sin_addr) != 1) {
                smoke_connector_free(c);
                return err_set(err, ERR_INTERNAL, "\"%s\" is not an address", address);
        }
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
                r = errno;
                smoke_connector_free(c);
                return err_sys(err, r, "no socket pair for the smoke test's helper");
        }
        c->asks = pair[0];
        r = sd_event_add_io(loop, &c->on_ask, c->asks, EPOLLIN, on_ask, c);
        if (r < 0) {
                close(pair[1]);
                smoke_connector_free(c);
                return err_sys(err, r, "watching the smoke test's helper");
        }
        *helper_fd = pair[1];
        *ret = c;
        return 0;
}
