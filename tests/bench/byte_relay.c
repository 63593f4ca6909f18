/*
 * byte_relay: one process, one epoll, that copies bytes and looks at none: the limit of what any extra hop can cost. With --framed it is
 * the Engine's attach instead: what the process behind it writes gets the frames that Docker puts around it. See usage().
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/bench/attach.h"
#include "tests/rig/link_server.h"

#define BUFFER (64U << 10)

/* One direction. Each end is a descriptor of its own (a socket is there twice), so that each waits for one thing only. */
struct half {
        int from, to;
        bool blocked, over;
        struct half *other;
        size_t at, len;
        char data[BUFFER];
};

struct relay {
        int epoll, listener;
        char **target; /* "tcp", PORT | "unix", PATH | "attach", SOCKET, CONTAINER | "exec", COMMAND… */
        bool framed;
};

static _noreturn_ void usage(void)
{
        fputs("usage: byte_relay [--framed] tcp PORT|unix PATH TARGET\n"
              "  TARGET: tcp PORT | unix PATH | exec COMMAND…   (one process a connection)\n"
              "          attach SOCKET CONTAINER                (the stream that the Engine gives)\n",
              stderr);
        exit(64);
}

static _noreturn_ void die(const char *what)
{
        fprintf(stderr, "byte_relay: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void watch(struct relay *r, int fd, uint32_t events, void *user)
{
        struct epoll_event e = {.events = events, .data.ptr = user};

        if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0)
                die("epoll");
}

static void unwatch(struct relay *r, int fd)
{
        (void)!epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static int socket_for(char **address, bool listening)
{
        bool local = str_eq(address[0], "unix");
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtoul(address[1], NULL, 10)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct sockaddr_un u = {.sun_family = AF_UNIX};
        const struct sockaddr *to = local ? (struct sockaddr *)&u : (struct sockaddr *)&a;
        socklen_t len = local ? sizeof(u) : sizeof(a);
        int one = 1, fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(u.sun_path, sizeof(u.sun_path), "%s", address[1]);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (!local)
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (listening && local)
                unlink(address[1]);
        if (fd < 0 || (listening ? bind(fd, to, len) < 0 || listen(fd, 128) < 0 : connect(fd, to, len) < 0))
                die(address[1]);
        return fd;
}

/* A child with a pipe each way. */
static void spawn(char **command, int *in, int *out)
{
        int to[2], from[2];

        if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
                die("pipe");
        if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1)
                        execvp(command[0], command);
                die(command[0]);
        }
        close(to[0]);
        close(from[1]);
        *in = from[0];
        *out = to[1];
}

/* One descriptor for both ways. */
static int open_stream(struct relay *r)
{
        _cleanup_err_ struct err *err = NULL;
        int fd = -1, rc = 0;
        pid_t pid;

        if (str_eq(r->target[0], "exec"))
                rc = link_server_start(&pid, &fd, r->target + 1, &err);
        else if (str_eq(r->target[0], "attach"))
                rc = fd = attach_to(r->target[1], r->target[2], &err);
        else
                fd = socket_for(r->target, false);
        if (rc < 0) {
                fprintf(stderr, "byte_relay: %s\n", err_msg(err));
                exit(1);
        }
        return fd;
}

static void open_target(struct relay *r, int *in, int *out)
{
        if (str_eq(r->target[0], "exec") && !r->framed) {
                spawn(r->target + 1, in, out);
                return;
        }
        *in = open_stream(r);
        *out = fcntl(*in, F_DUPFD_CLOEXEC, 0);
}

static struct half *half_new(struct relay *r, int from, int to)
{
        struct half *h = NEW(struct half);

        h->from = from;
        h->to = to;
        fcntl(from, F_SETFL, O_NONBLOCK);
        fcntl(to, F_SETFL, O_NONBLOCK);
        watch(r, from, EPOLLIN, h);
        return h;
}

static void take_connection(struct relay *r)
{
        int one = 1, in, out, fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
                return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        open_target(r, &in, &out);
        struct half *to = half_new(r, fd, out), *back = half_new(r, in, fcntl(fd, F_DUPFD_CLOEXEC, 0));
        to->other = back;
        back->other = to;
}

/* Closed for good when the other direction is over as well: an event for it may still be in hand. */
static void end(struct relay *r, struct half *h)
{
        if (h->over)
                return;
        h->over = true;
        unwatch(r, h->from);
        unwatch(r, h->to);
        shutdown(h->to, SHUT_WR);
        close(h->from);
        close(h->to);
}

static bool drain(struct half *h)
{
        while (h->at < h->len) {
                ssize_t n = write(h->to, h->data + h->at, h->len - h->at);
                if (n < 0)
                        return errno == EAGAIN;
                h->at += (size_t)n;
        }
        return true;
}

static void move(struct relay *r, struct half *h)
{
        if (!h->blocked) {
                ssize_t n = read(h->from, h->data, BUFFER);
                if (n < 0 && errno == EAGAIN)
                        return;
                if (n <= 0) {
                        end(r, h);
                        return;
                }
                h->at = 0;
                h->len = (size_t)n;
        }
        if (!drain(h)) {
                end(r, h);
                return;
        }
        if ((h->at < h->len) == h->blocked)
                return;
        h->blocked = !h->blocked;
        unwatch(r, h->blocked ? h->from : h->to);
        watch(r, h->blocked ? h->to : h->from, h->blocked ? EPOLLOUT : EPOLLIN, h);
}

/* Frees pairs that are over; what the kernel said of them in the same breath is forgotten. */
static void bury(struct relay *r, struct epoll_event *events, int n)
{
        for (int i = 0; i < n; i++) {
                struct half *h = events[i].data.ptr;
                if (events[i].data.ptr == r || !h->over || !h->other->over)
                        continue;
                struct half *other = h->other;
                for (int k = i; k < n; k++)
                        if (events[k].data.ptr == h || events[k].data.ptr == other)
                                events[k].data.ptr = r;
                free(other);
                free(h);
        }
}

int main(int argc, char **argv)
{
        struct relay r = {.epoll = epoll_create1(EPOLL_CLOEXEC)};

        signal(SIGPIPE, SIG_IGN);
        signal(SIGCHLD, SIG_IGN);
        argv++;
        if (argc > 1 && str_eq(*argv, "--framed")) {
                r.framed = true;
                argv++;
        }
        if (argc - r.framed < 5)
                usage();
        r.target = argv + 2;
        r.listener = socket_for(argv, true);
        watch(&r, r.listener, EPOLLIN, &r);
        for (;;) {
                struct epoll_event events[64];
                int n = epoll_wait(r.epoll, events, ELEMENTSOF(events), -1);

                for (int i = 0; i < n; i++) {
                        if (events[i].data.ptr == &r)
                                take_connection(&r);
                        else if (!((struct half *)events[i].data.ptr)->over)
                                move(&r, events[i].data.ptr);
                }
                bury(&r, events, n);
        }
}
