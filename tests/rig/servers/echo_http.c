#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/rig/servers/echo.h"

#define MAX_REQUEST (80U << 20)
#define SESSION     "echo-session-1"

/* One process a connection: slow clients harm nobody else. */

/* One request, which stays at the front of b: *body is where its body begins, *n how long that is. */
static bool read_request(int fd, struct buf *b, size_t *body, size_t *n)
{
        for (*body = 0; b->len < MAX_REQUEST;) {
                const char *end = *body == 0 && b->len > 0 ? strstr(b->data, "\r\n\r\n") : NULL;
                ssize_t got;

                if (end) {
                        const char *length = strcasestr(b->data, "\r\ncontent-length:");
                        *body = (size_t)(end - b->data) + 4;
                        *n = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
                }
                if (*body > 0 && b->len - *body >= *n)
                        return true;
                buf_reserve(b, 65536);
                got = recv(fd, b->data + b->len, b->cap - b->len - 1, 0);
                if (got <= 0)
                        return false;
                b->len += (size_t)got;
                b->data[b->len] = '\0';
        }
        return false;
}

static void send_all(int fd, const char *data, size_t n)
{
        while (n > 0) {
                ssize_t k = send(fd, data, n, MSG_NOSIGNAL);
                if (k <= 0)
                        return;
                data += k;
                n -= (size_t)k;
        }
}

static void respond(int fd, int status, const char *extra, const char *body)
{
        size_t n = body ? strlen(body) : 0;
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "HTTP/1.1 %d %s\r\n%sContent-Length: %zu\r\n%s\r\n", status, status < 300 ? "OK" : "No", extra, n,
                 body ? "Content-Type: application/json\r\n" : "");
        buf_add(&b, body, n);
        send_all(fd, b.data, b.len);
}

/* Until the client goes. */
static void serve_connection(const struct echo_options *o, int fd)
{
        _cleanup_buf_ struct buf b = {0};
        size_t body, n;

        while (read_request(fd, &b, &body, &n)) {
                _cleanup_free_ char *answer = NULL;
                int status;

                if (!str_has_prefix(b.data, "POST ")) {
                        respond(fd, 405, "Allow: POST\r\n", NULL);
                } else {
                        answer = echo_answer(o, b.data + body, n, &status);
                        respond(fd, status, memmem(b.data + body, n, "\"initialize\"", 12) ? "Mcp-Session-Id: " SESSION "\r\n" : "",
                                answer);
                }
                buf_drop(&b, body + n);
                if (b.data)
                        b.data[b.len] = '\0';
        }
}

int echo_serve_http(const struct echo_options *o, unsigned port)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        struct timeval limit = {.tv_sec = 30};
        int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        signal(SIGCHLD, SIG_IGN);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0) {
                perror("mcp_echo: listen");
                return 1;
        }
        for (;;) {
                int c = accept(fd, NULL, NULL);
                if (c < 0)
                        continue;
                setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                if (fork() == 0) {
                        close(fd);
                        serve_connection(o, c);
                        _exit(0);
                }
                close(c);
        }
}
