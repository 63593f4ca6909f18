#include "tests/bench/attach.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/file.h"

/* Reads the answer's head and not a byte more: what follows is the container's. */
static int read_head(int fd, struct err **err)
{
        char head[1024];
        size_t n = 0;

        do {
                if (n == sizeof(head) - 1)
                        return err_set(err, ERR_UNAVAILABLE, "the Engine's answer to attach has no end");
                ssize_t k = read(fd, head + n, 1);
                if (k <= 0)
                        return err_sys(err, k < 0 ? errno : ECONNRESET, "reading the Engine's answer to attach");
                head[++n] = '\0';
        } while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0);
        if (strncmp(head, "HTTP/1.1 101 ", 13) != 0)
                return err_set(err, ERR_UNAVAILABLE, "attach: %.*s", (int)strcspn(head, "\r"), head);
        return 0;
}

int attach_to(const char *engine, const char *container, struct err **err)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        char request[512];
        int n = snprintf(request, sizeof(request),
                         "POST /v1.41/containers/%s/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n"
                         "Host: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
                         container);
        _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (n >= (int)sizeof(request) || (size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s", engine) >= sizeof(a.sun_path))
                return err_set(err, ERR_UNAVAILABLE, "a name is too long: %s, %s", engine, container);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || write(fd, request, (size_t)n) != n)
                return err_sys(err, errno, "asking %s", engine);
        if (read_head(fd, err) < 0)
                return -1;
        return TAKE_FD(fd);
}
