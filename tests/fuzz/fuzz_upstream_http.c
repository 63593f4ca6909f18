/*
 * Any bytes from an HTTP server into a session. The first byte: bit 0 the older transport, bit 1 legacy only, bit 2 connections are closed
 * behind each piece, bit 3 pieces come in parts, half of what is left at a time. The rest is cut at 0xff; each request gets the next piece,
 * with the request's own id in place of every '#'.
 */
#include <arpa/inet.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/upstream_owner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_CONNS 16

struct server {
        sd_event *loop;
        struct sockaddr_in address;
        int fd;
        struct conn {
                int fd;
                sd_event_source *io;
                struct buf out; /* has not been sent yet */
        } conns[MAX_CONNS];
        size_t n_conns;
        const uint8_t *data;
        size_t size;
        bool close_behind, in_parts;
};

static struct server server;

/* -- the server ---------------------------------------------------------------------------------------------------------------- */

static void conn_close(struct conn *c)
{
        c->io = sd_event_source_disable_unref(c->io);
        close(c->fd);
        c->fd = -1;
}

static void conn_flush(struct conn *c)
{
        size_t n = server.in_parts ? (c->out.len + 1) / 2 : c->out.len;
        ssize_t k = n > 0 ? send(c->fd, c->out.data, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

        buf_drop(&c->out, k > 0 ? (size_t)k : n);
        if (sd_event_source_set_io_events(c->io, EPOLLIN | (c->out.len > 0 ? EPOLLOUT : 0U)) < 0)
                abort();
        if (c->out.len == 0 && server.close_behind)
                conn_close(c);
}

static void put_piece(struct conn *c, const uint8_t *p, size_t n, const char *request)
{
        const char *id = strstr(request, "\"id\":");
        size_t n_id = id ? strspn(id + 5, "0123456789") : 0;

        for (size_t i = 0; i < n; i++)
                if (p[i] == '#' && n_id)
                        buf_add(&c->out, id + 5, n_id);
                else
                        buf_add(&c->out, &p[i], 1);
        conn_flush(c);
}

static int on_request(_unused_ sd_event_source *s, int fd, uint32_t revents, void *user)
{
        struct conn *c = user;
        char request[8192];
        const uint8_t *end;
        ssize_t n;
        size_t k;

        if (!(revents & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
                conn_flush(c);
                return 0;
        }
        n = recv(fd, request, sizeof(request) - 1, MSG_DONTWAIT);

        if (n > 0) {
                request[n] = '\0';
                end = server.size ? memchr(server.data, 0xff, server.size) : NULL;
                k = end ? (size_t)(end - server.data) : server.size;
                put_piece(c, server.data, k, request);
                server.data += k + (end != NULL);
                server.size -= k + (end != NULL);
        } else {
                conn_close(c);
        }
        return 0;
}

static int on_accept(_unused_ sd_event_source *s, int fd, _unused_ uint32_t revents, _unused_ void *user)
{
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        struct conn *c = &server.conns[server.n_conns];

        if (peer < 0)
                return 0;
        if (server.n_conns == MAX_CONNS) {
                close(peer);
                return 0;
        }
        server.n_conns++;
        c->fd = peer;
        if (sd_event_add_io(server.loop, &c->io, peer, EPOLLIN, on_request, c) < 0)
                abort();
        return 0;
}

static void server_start(void)
{
        socklen_t n = sizeof(server.address);
        sd_event_source *io;

        server.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (sd_event_new(&server.loop) < 0 || bind(server.fd, (struct sockaddr *)&server.address, n) < 0 || listen(server.fd, 64) < 0 ||
            getsockname(server.fd, (struct sockaddr *)&server.address, &n) < 0 ||
            sd_event_add_io(server.loop, &io, server.fd, EPOLLIN, on_accept, NULL) < 0)
                abort();
}

static void server_rest(void)
{
        for (size_t i = 0; i < server.n_conns; i++) {
                struct conn *c = &server.conns[i];

                buf_deinit(&c->out);
                if (c->fd >= 0) {
                        /* Without this, thousands of runs leave as many ports waiting. */
                        struct linger now = {.l_onoff = 1};
                        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
                        conn_close(c);
                }
                *c = (struct conn){.fd = -1};
        }
        server.n_conns = 0;
}

static void turn(void)
{
        for (int i = 0; i < 300 && sd_event_run(server.loop, 0) > 0; i++)
                ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct upstream_config config = {
                .name = "f",
                .limits = OWNER_LIMITS,
                .path = "/mcp",
        };
        struct upstream *u = NULL;
        bool ended = false;

        if (size < 1)
                return 0;
        if (!server.loop)
                server_start();
        server.data = data + 1;
        server.size = size - 1;
        server.close_behind = data[0] & 4;
        server.in_parts = data[0] & 8;
        config.address = server.address.sin_addr;
        config.port = ntohs(server.address.sin_port);
        config.sse = data[0] & 1;
        config.legacy_only = data[0] & 2;
        if (upstream_http_new(&u, server.loop, &config, &owner_events, &ended, NULL) < 0)
                abort();
        turn();
        upstream_free(u);
        turn();
        server_rest();
        return 0;
}
