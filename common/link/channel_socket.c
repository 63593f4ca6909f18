/* The link's socket: packets in and out, descriptors with them, and what ends it. */
#include "common/link/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/file.h"
#include "common/log.h"
#include "common/manifest.h"

#define PACKETS_A_TURN 32U /* so that a talkative peer does not keep the loop */
#define PINS_A_PACKET  1000U
#define MAX_FDS        2U /* that one packet's control data has room for; more are dropped by the kernel, which says so */

struct packet {
        struct packet *next;
        char *text;
        size_t n;
        int fd; /* -1 = none */
};

struct channel {
        unsigned refs; /* the owner's, a running callback's */
        int fd;        /* -1: over */
        bool from_controller;
        bool freed;
        const struct channel_events *events;
        void *user;
        sd_event_source *io, *stall, *defer;
        struct packet *first, **end;
        size_t queued;
        struct channel_entry arriving; /* name and pins of the server that is told next */
        size_t n_pins, room_pins;
        struct err *why; /* it ended, and the owner was not told yet */
};

static void packet_free(struct packet *p)
{
        if (p->fd >= 0)
                close(p->fd);
        free(p->text);
        free(p);
}

/* Lets go of all but the memory. */
static void shut(struct channel *c)
{
        c->io = sd_event_source_disable_unref(c->io);
        c->stall = sd_event_source_disable_unref(c->stall);
        if (c->fd >= 0)
                close(TAKE_FD(c->fd));
        while (c->first) {
                struct packet *p = c->first;
                c->first = p->next;
                packet_free(p);
        }
        c->end = &c->first;
        c->queued = 0;
}

static void unref(struct channel *c)
{
        if (--c->refs > 0)
                return;
        shut(c);
        sd_event_source_disable_unref(c->defer);
        err_free(c->why);
        channel_entry_deinit(&c->arriving);
        free(c);
}

/* Over; the owner is told from the loop. why is taken over. */
static void fail(struct channel *c, struct err *why)
{
        if (c->fd < 0) {
                err_free(why);
                return;
        }
        shut(c);
        c->why = why;
        if (!c->freed && sd_event_source_set_enabled(c->defer, SD_EVENT_ONESHOT) < 0)
                log_error("the link's end cannot be told", "reason", err_msg(why));
}

static void fail_text(struct channel *c, enum err_code code, const char *text)
{
        struct err *why = NULL;

        (void)err_set(&why, code, "%s", text);
        fail(c, why);
}

static int on_defer(_unused_ sd_event_source *s, void *user)
{
        struct channel *c = user;
        _cleanup_err_ struct err *why = TAKE_PTR(c->why);

        c->refs++;
        if (!c->freed && why)
                c->events->closed(c, why, c->user);
        unref(c);
        return 0;
}

/* -- in ------------------------------------------------------------------------------------------------------------------------- */

struct arrival {
        char text[CHANNEL_MAX_PACKET + 1];
        int fds[MAX_FDS];
        size_t n_fds;
};

static void close_fds(struct arrival *a)
{
        for (size_t i = 0; i < a->n_fds; i++)
                close(a->fds[i]);
        a->n_fds = 0;
}

/* Every descriptor that came is in a->fds afterwards, so that none is left open by accident. */
static void collect_fds(struct arrival *a, struct msghdr *h)
{
        for (struct cmsghdr *m = CMSG_FIRSTHDR(h); m; m = CMSG_NXTHDR(h, m)) {
                if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
                        continue;
                size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(m) + i * sizeof(int), sizeof(int));
                        if (a->n_fds < MAX_FDS)
                                a->fds[a->n_fds++] = fd;
                        else
                                close(fd);
                }
        }
}

static bool from_controller(enum channel_kind kind)
{
        return kind <= CHANNEL_DECIDE;
}

/* One packet, checked as far as one can tell without knowing servers. */
static int judge(const struct channel *c, struct channel_message *m, const struct arrival *a, size_t n, int flags, struct err **err)
{
        if (flags & MSG_CTRUNC || a->n_fds > 1)
                return err_set(err, ERR_INVALID, "a message came with more than one descriptor");
        if (flags & MSG_TRUNC || n > CHANNEL_MAX_PACKET)
                return err_set(err, ERR_LIMIT, "a message is longer than %u bytes", CHANNEL_MAX_PACKET);
        if (channel_parse(m, a->text, n, err) < 0)
                return -1;
        if (from_controller(m->kind) != c->from_controller)
                return err_set(err, ERR_INVALID, "a message that only the other side may send");
        if ((m->kind == CHANNEL_STREAM) != (a->n_fds == 1))
                return err_set(err, ERR_INVALID,
                               a->n_fds ? "a descriptor came with a message that has none" : "a stream came without a descriptor");
        return 0;
}

/* More than one packet has room for: they come before their server, in order. */
static int keep_pins(struct channel *c, struct channel_message *m, struct err **err)
{
        struct channel_entry *e = &c->arriving;
        const char *last = c->n_pins ? e->pins[c->n_pins - 1] : "";

        if (!e->name)
                e->name = mem_strdup(m->entry.name);
        for (char **p = m->entry.pins; *p; last = *p, p++) {
                if (strcmp(*p, last) <= 0 || c->n_pins >= MANIFEST_MAX_PINS)
                        return err_set(err, ERR_INVALID, "pins that are not in order, or too many of them");
                if (c->n_pins + 1 >= c->room_pins) {
                        c->room_pins = c->room_pins ? 2 * c->room_pins : PINS_A_PACKET;
                        e->pins = mem_realloc(e->pins, c->room_pins, sizeof(*e->pins));
                }
                e->pins[c->n_pins++] = *p;
                e->pins[c->n_pins] = NULL;
                *p = mem_strdup("");
        }
        return 0;
}

static int put_together(struct channel *c, struct channel_message *m, struct err **err)
{
        struct channel_entry *e = &c->arriving;

        if (e->name && ((m->kind != CHANNEL_PINS && m->kind != CHANNEL_SERVER) || !str_eq(e->name, m->entry.name)))
                return err_set(err, ERR_INVALID, "pins without their server");
        if (m->kind == CHANNEL_PINS)
                return keep_pins(c, m, err);
        if (e->name && !m->entry.pinned)
                return err_set(err, ERR_INVALID, "pins of a server that is not pinned");
        if (e->name)
                m->entry.pins = TAKE_PTR(e->pins);
        channel_entry_deinit(e);
        c->n_pins = c->room_pins = 0;
        return 0;
}

/* 1: one was taken; 0: nothing more to take, or it is over. */
static int take_packet(struct channel *c, struct arrival *a)
{
        union {
                struct cmsghdr align;
                char data[CMSG_SPACE(MAX_FDS * sizeof(int))];
        } control;
        struct iovec iov = {a->text, sizeof(a->text)};
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        _cleanup_(channel_message_deinit) struct channel_message m = {0};
        struct err *err = NULL;
        ssize_t n = recvmsg(c->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0) {
                (void)err_sys(&err, errno, "reading");
                fail(c, err);
                return 0;
        }
        a->n_fds = 0;
        collect_fds(a, &h);
        if (n == 0 && a->n_fds == 0) { /* the peer left; an empty packet is no message either */
                fail_text(c, ERR_UNAVAILABLE, "the peer closed the link");
                return 0;
        }
        if (judge(c, &m, a, (size_t)n, h.msg_flags, &err) < 0 || put_together(c, &m, &err) < 0) {
                close_fds(a);
                fail(c, err);
                return 0;
        }
        if (m.kind != CHANNEL_PINS)
                c->events->message(c, &m, a->n_fds ? a->fds[0] : -1, c->user);
        return c->fd >= 0;
}

static void read_packets(struct channel *c)
{
        struct arrival *a = NEW(struct arrival);

        for (unsigned i = 0; i < PACKETS_A_TURN && take_packet(c, a) > 0; i++)
                ;
        free(a);
}

/* -- out ------------------------------------------------------------------------------------------------------------------------ */

static void arm(struct channel *c)
{
        struct err *err = NULL;
        int r;

        if (c->fd < 0)
                return;
        r = sd_event_source_set_io_events(c->io, c->first ? EPOLLIN | EPOLLOUT : EPOLLIN);
        if (r >= 0 && !c->first)
                r = sd_event_source_set_enabled(c->stall, SD_EVENT_OFF);
        if (r < 0) {
                (void)err_sys(&err, r, "watching the link");
                fail(c, err);
        }
}

/* The peer has from now on CHANNEL_STALL_MS to take the next packet. */
static void await_reader(struct channel *c)
{
        struct err *err = NULL;
        int r = sd_event_source_set_time_relative(c->stall, CHANNEL_STALL_MS * UINT64_C(1000));

        if (r >= 0)
                r = sd_event_source_set_enabled(c->stall, SD_EVENT_ONESHOT);
        if (r < 0) {
                (void)err_sys(&err, r, "setting the link's deadline");
                fail(c, err);
        }
}

static int on_stall(_unused_ sd_event_source *s, _unused_ uint64_t usec, void *user)
{
        fail_text(user, ERR_TIMEOUT, "the peer does not read");
        return 0;
}

/* 1: gone; 0: the peer must read first; -1: over. */
static int put_packet(struct channel *c, const struct packet *p)
{
        union {
                struct cmsghdr header;
                char data[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {p->text, p->n};
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
        struct err *err = NULL;

        if (p->fd >= 0) {
                h.msg_control = &control;
                h.msg_controllen = sizeof(control);
                control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
                memcpy(CMSG_DATA(&control.header), &p->fd, sizeof(int));
        }
        if (sendmsg(c->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
                return 1;
        if (errno == EAGAIN || errno == EINTR)
                return 0;
        (void)err_sys(&err, errno, "writing");
        fail(c, err);
        return -1;
}

static void write_packets(struct channel *c)
{
        bool some = false;

        while (c->fd >= 0 && c->first && put_packet(c, c->first) > 0) {
                struct packet *p = c->first;
                c->first = p->next;
                if (!c->first)
                        c->end = &c->first;
                c->queued -= p->n;
                packet_free(p);
                some = true;
        }
        if (c->fd >= 0 && c->first && some)
                await_reader(c);
        arm(c);
}

static int on_io(_unused_ sd_event_source *s, _unused_ int fd, uint32_t revents, void *user)
{
        struct channel *c = user;
        bool waited = c->first;

        c->refs++;
        if (revents & EPOLLOUT && c->fd >= 0)
                write_packets(c);
        /* A peer that left is seen at the end of what it said. */
        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->fd >= 0)
                read_packets(c);
        if (waited && c->fd >= 0 && !c->first && c->events->drained)
                c->events->drained(c, c->user);
        unref(c);
        return 0;
}

static void queue(struct channel *c, struct packet *p)
{
        if (c->fd < 0) {
                packet_free(p);
                return;
        }
        if (c->queued + p->n > CHANNEL_MAX_QUEUED) {
                packet_free(p);
                fail_text(c, ERR_LIMIT, "the peer does not read: too much waits for it");
                return;
        }
        bool idle = !c->first;
        *c->end = p;
        c->end = &p->next;
        c->queued += p->n;
        if (!idle)
                return;
        await_reader(c);
        write_packets(c);
}

static struct packet *packet_new(const struct channel_message *m, int fd)
{
        struct packet *p = NEW(struct packet);

        *p = (struct packet){.text = channel_format(m), .fd = fd};
        p->n = strlen(p->text);
        return p;
}

static void send_pins(struct channel *c, const struct channel_entry *e)
{
        char *some[PINS_A_PACKET + 1];
        const struct channel_message m = {.kind = CHANNEL_PINS, .entry = {.name = e->name, .pins = some}};

        for (size_t i = 0, n = strv_len(e->pins); i < n;) {
                size_t k = 0;

                while (k < PINS_A_PACKET && i < n)
                        some[k++] = e->pins[i++];
                some[k] = NULL;
                queue(c, packet_new(&m, -1));
        }
}

void channel_send(struct channel *c, const struct channel_message *m, int fd)
{
        struct packet *p = packet_new(m, fd);

        if (p->n > CHANNEL_MAX_PACKET) {
                log_error("a message over the link is too long and is not sent", "server", m->entry.name ? m->entry.name : "-");
                packet_free(p);
                return;
        }
        if (m->kind == CHANNEL_SERVER)
                send_pins(c, &m->entry);
        queue(c, p);
}

bool channel_fits(const struct channel_message *m)
{
        _cleanup_free_ char *text = channel_format(m);

        return strlen(text) <= CHANNEL_MAX_PACKET;
}

size_t channel_queued(const struct channel *c)
{
        return c->queued;
}

bool channel_alive(const struct channel *c)
{
        struct pollfd p = {.fd = c->fd};

        return c->fd >= 0 && poll(&p, 1, 0) == 0; /* no event was asked for: only a hang-up or an error is told */
}

/* -- its life ------------------------------------------------------------------------------------------------------------------- */

int channel_new(struct channel **ret, sd_event *loop, int fd, bool controller, const struct channel_events *events, void *user,
                struct err **err)
{
        _cleanup_(channel_freep) struct channel *c = NEW(struct channel);
        int flags = fcntl(fd, F_GETFL);

        *c = (struct channel){.refs = 1, .fd = fd, .from_controller = controller, .events = events, .user = user};
        c->end = &c->first;
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return err_sys(err, errno, "preparing the link");
        int r = sd_event_add_io(loop, &c->io, fd, EPOLLIN, on_io, c);
        if (r >= 0)
                r = sd_event_add_time_relative(loop, &c->stall, CLOCK_MONOTONIC, 0, 0, on_stall, c);
        if (r >= 0)
                r = sd_event_source_set_enabled(c->stall, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(loop, &c->defer, on_defer, c);
        if (r >= 0)
                r = sd_event_source_set_enabled(c->defer, SD_EVENT_OFF);
        if (r < 0)
                return err_sys(err, r, "watching the link");
        *ret = TAKE_PTR(c);
        return 0;
}

struct channel *channel_free(struct channel *c)
{
        if (!c)
                return NULL;
        c->freed = true;
        shut(c);
        c->defer = sd_event_source_disable_unref(c->defer);
        unref(c);
        return NULL;
}
