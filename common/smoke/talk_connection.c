#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/smoke/talk.h"

static int wait_readable(int fd, uint64_t until, struct err **err)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        for (;;) {
                uint64_t now = talk_now_ms();
                int r = poll(&p, 1, now < until ? (int)MIN(until - now, (uint64_t)60000) : 0);

                if (r > 0)
                        return 0;
                if (r < 0 && errno != EINTR)
                        return err_sys(err, errno, "waiting for a connection to the server");
                if (talk_now_ms() >= until)
                        return err_set(err, ERR_TIMEOUT, "no connection to the server in time");
        }
}

static int take_descriptor(int *ret, struct msghdr *h)
{
        struct cmsghdr *c = CMSG_FIRSTHDR(h);

        if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
                return -1;
        memcpy(ret, CMSG_DATA(c), sizeof(int));
        return 0;
}

int talk_connection_get(int *ret, int fd, uint64_t until, struct err **err)
{
        char ask = TALK_ASK, reply = 0;
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {.iov_base = &reply, .iov_len = 1};
        struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
        ssize_t n;

        if (send(fd, &ask, 1, MSG_NOSIGNAL) != 1)
                return err_sys(err, errno, "asking for a connection to the server");
        if (wait_readable(fd, until, err) < 0)
                return -1;
        n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
        if (n <= 0)
                return err_set(err, ERR_INTERNAL, "the program that makes the connections is gone");
        if (reply == TALK_CONNECTED && take_descriptor(ret, &h) == 0)
                return 0;
        if (reply == TALK_REFUSED)
                return 1;
        return err_set(err, ERR_LIMIT, "more than %u connections in one smoke test", TALK_MAX_CONNECTIONS);
}
