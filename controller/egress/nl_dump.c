#include "controller/egress/nl_dump.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/file.h"
#include "controller/egress/nl.h"

struct nl_dump {
        int fd;
        int error;
        sd_event_source *io;
        nl_dump_message_fn message;
        nl_dump_done_fn done;
        void *user;
};

struct nl_dump *nl_dump_cancel(struct nl_dump *d)
{
        if (!d)
                return NULL;
        sd_event_source_disable_unref(d->io);
        fd_closep(&d->fd);
        free(d);
        return NULL;
}

/* 1: the dump is complete. */
static int read_message(struct nl_dump *d, const struct nlmsghdr *h, struct err **err)
{
        if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                int code = 0;

                if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(code)))
                        memcpy(&code, NLMSG_DATA(h), sizeof(code));
                d->error = -code;
                return code ? err_sys(err, code, "the kernel refused to list a table") : 1;
        }
        return d->message(h, d->user, err);
}

static int read_piece(struct nl_dump *d, struct err **err)
{
        char data[65536] __attribute__((aligned(NLMSG_ALIGNTO)));
        ssize_t n = recv(d->fd, data, sizeof(data), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0)
                return err_sys(err, n < 0 ? errno : EPIPE, "cannot read a table from the kernel");
        size_t left = (size_t)n;
        for (const struct nlmsghdr *h = (const struct nlmsghdr *)data; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
                int r = read_message(d, h, err);
                if (r != 0)
                        return r;
        }
        return 0;
}

static int on_io(_unused_ sd_event_source *source, _unused_ int fd, _unused_ uint32_t events, void *user)
{
        struct nl_dump *d = user;
        _cleanup_err_ struct err *err = NULL;

        if (read_piece(d, &err) == 0)
                return 0;
        sd_event_source_set_enabled(d->io, SD_EVENT_OFF);
        d->done(d->error, err, d->user);
        nl_dump_cancel(d);
        return 0;
}

int nl_dump_start(struct nl_dump **ret, sd_event *loop, struct buf *request, nl_dump_message_fn message, nl_dump_done_fn done, void *user,
                  struct err **err)
{
        _cleanup_(nl_dump_cancelp) struct nl_dump *d = NEW(struct nl_dump);

        *d = (struct nl_dump){.fd = -1, .message = message, .done = done, .user = user};
        if (nl_open(&d->fd, err) < 0 || nl_send(d->fd, request, err) < 0)
                return -1;
        int r = sd_event_add_io(loop, &d->io, d->fd, EPOLLIN, on_io, d);
        if (r < 0)
                return err_sys(err, r, "cannot watch a netlink socket");
        *ret = TAKE_PTR(d);
        return 0;
}
