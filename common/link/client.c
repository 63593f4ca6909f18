#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "common/file.h"
#include "common/link/address.h"
#include "common/link/line.h"
#include "common/link/link.h"

#define EXIT_UNREACHABLE 69
#define EXIT_DENIED      77

static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int wait_for(int fd, short events, uint64_t deadline, struct err **err)
{
        struct pollfd p = {.fd = fd, .events = events};

        for (;;) {
                uint64_t now = now_ms();
                if (now >= deadline)
                        return err_set(err, ERR_TIMEOUT, "the controller does not answer");
                int r = poll(&p, 1, (int)MIN(deadline - now, (uint64_t)1000000));
                if (r > 0)
                        return 0;
                if (r < 0 && errno != EINTR)
                        return err_sys(err, errno, "waiting for the controller");
        }
}

static int dial(int *ret, const char *path, unsigned timeout_s, int *exit_code, struct err **err)
{
        struct sockaddr_un sa;
        struct timeval tv = {.tv_sec = (time_t)timeout_s};
        _cleanup_fd_ int fd = -1;

        *exit_code = EXIT_UNREACHABLE;
        if (address_init(&sa, path, err) < 0)
                return -1;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_sys(err, errno, "making a unix socket");
        /* A connect to a full backlog blocks: the send timeout bounds it. */
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0)
                return err_sys(err, errno, "setting a timeout");
        if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
                int saved = errno;
                if (saved == EACCES || saved == EPERM) {
                        *exit_code = EXIT_DENIED;
                        return err_sys(err, saved, "connecting to the controller at %s (its directory admits operators only)", path);
                }
                err_sys(err, saved, "connecting to the controller at %s (is bulkhead-controller running?)", path);
                return -1;
        }
        *ret = TAKE_FD(fd);
        return 0;
}

static int send_all(int fd, const struct buf *line, uint64_t deadline, struct err **err)
{
        for (size_t sent = 0; sent < line->len;) {
                if (wait_for(fd, POLLOUT, deadline, err) < 0)
                        return -1;
                ssize_t n = send(fd, line->data + sent, line->len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
                /* A daemon that refused us before reading the request has left its reason to be read. */
                if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
                        return 0;
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return err_sys(err, errno, "sending the request");
                sent += n > 0 ? (size_t)n : 0;
        }
        return 0;
}

/* Reads until in holds a whole line; *len without its newline. */
static int read_line(int fd, struct buf *in, size_t *len, uint64_t deadline, struct err **err)
{
        size_t scanned = 0;

        for (;;) {
                char chunk[16384], *end = in->len > scanned ? memchr(in->data + scanned, '\n', in->len - scanned) : NULL;
                if (end) {
                        *len = (size_t)(end - in->data);
                        return 0;
                }
                scanned = in->len;
                if (in->len > LINK_MAX_LINE)
                        return err_set(err, ERR_LIMIT, "the controller's answer is longer than 8 MiB");
                if (wait_for(fd, POLLIN, deadline, err) < 0)
                        return -1;
                ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
                if (n == 0)
                        return err_set(err, ERR_UNAVAILABLE, "the controller closed the connection before it answered");
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return err_sys(err, errno, "reading the controller's answer");
                if (n > 0)
                        buf_add(in, chunk, (size_t)n);
        }
}

int link_call(const char *path, json_object *request, unsigned timeout_s, link_progress_fn progress, void *user, json_object **result,
              int *exit_code, struct err **err)
{
        _cleanup_buf_ struct buf line = {0}, in = {0};
        _cleanup_fd_ int fd = -1;

        timeout_s = timeout_s ? timeout_s : 30;
        *result = NULL;
        if (dial(&fd, path, timeout_s, exit_code, err) < 0)
                return -1;
        line_append(&line, request);
        if (send_all(fd, &line, now_ms() + timeout_s * UINT64_C(1000), err) < 0)
                return -1;
        for (;;) {
                _cleanup_line_answer_ struct line_answer a = {0};
                size_t n;

                if (read_line(fd, &in, &n, now_ms() + timeout_s * UINT64_C(1000), err) < 0)
                        return -1;
                if (line_parse_answer(&a, in.data, n, err) < 0) {
                        *exit_code = 1;
                        return err_wrap(err, "the controller's answer makes no sense");
                }
                buf_drop(&in, n + 1);
                if (a.kind == LINE_PROGRESS) {
                        if (progress)
                                progress(a.value, user);
                        continue;
                }
                if (a.kind == LINE_FAILURE) {
                        *exit_code = a.exit_code;
                        return err_set(err, a.exit_code == EXIT_DENIED ? ERR_DENIED : ERR_UNAVAILABLE, "%s", a.error);
                }
                *result = TAKE_PTR(a.value);
                *exit_code = 0;
                return 0;
        }
}
