#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/rig/servers/echo.h"

#define MAX_REQUEST (1U << 20)
#define SESSION     "echo-session-1"

/* One request a connection, one process a connection: slow clients harm nobody else. */

static bool read_request(int fd, struct buf *b, size_t *body)
{
        size_t need = 0;

        while (b->len < MAX_REQUEST) {
                char bytes[4096];
                ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
                const char *end, *length;

                if (n <= 0)
                        return false;
                buf_add(b, bytes, (size_t)n);
                end = strstr(b->data, "\r\n\r\n");
                if (!end)
                        continue;
                *body = (size_t)(end - b->data) + 4;
                length = strcasestr(b->data, "\r\ncontent-length:");
                need = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
                if (b->len >= *body + need)
                        return true;
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
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\n%sContent-Length: %zu\r\n", status, status < 300 ? "OK" : "No", extra,
                 body ? strlen(body) : 0);
        if (body)
                buf_adds(&b, "Content-Type: application/json\r\n");
        buf_adds(&b, "\r\n");
        if (body)
                buf_adds(&b, body);
        send_all(fd, b.data, b.len);
}

static void serve_one(const struct echo_options *o, int fd)
{
        _cleanup_buf_ struct buf b = {0};
        _cleanup_free_ char *answer = NULL;
        size_t body = 0;
        int status;

        if (!read_request(fd, &b, &body))
                return;
        if (!str_has_prefix(b.data, "POST ")) {
                respond(fd, 405, "Allow: POST\r\n", NULL);
                return;
        }
        answer = echo_answer(o, b.data + body, b.len - body, &status);
        respond(fd, status, strstr(b.data + body, "\"initialize\"") ? "Mcp-Session-Id: " SESSION "\r\n" : "", answer);
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
                if (fork() == 0) {
                        serve_one(o, c);
                        _exit(0);
                }
                close(c);
        }
}
