#include "tests/unit/test_upstream_pipe.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

void server_leave(struct server *s)
{
        s->io = sd_event_source_disable_unref(s->io);
        if (s->fd >= 0)
                close(s->fd);
        s->fd = -1;
        s->gone = true;
}

void server_flush(struct server *s)
{
        while (s->fd >= 0 && s->out_at < s->out.len) {
                size_t n = s->out.len - s->out_at;
                ssize_t k = send(s->fd, s->out.data + s->out_at, s->step ? MIN(s->step, n) : n, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (k < 0 && errno == EAGAIN)
                        break;
                if (k < 0) {
                        server_leave(s);
                        return;
                }
                s->out_at += (size_t)k;
                if (s->step)
                        break; /* the rest from the loop, so that each piece is read by itself */
        }
        if (s->fd >= 0)
                assert_true(sd_event_source_set_io_events(s->io, EPOLLIN | (s->out_at < s->out.len ? EPOLLOUT : 0)) >= 0);
}

void server_frame(struct server *s, int stream, const char *data, size_t n)
{
        unsigned char h[8] = {(unsigned char)stream, 0, 0, 0, (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
                              (unsigned char)n};

        if (!s->rig->config.raw)
                buf_add(&s->out, h, sizeof(h));
        buf_add(&s->out, data, n);
        server_flush(s);
}

void server_say(struct server *s, const char *text)
{
        _cleanup_free_ char *line = mem_printf("%s\n", text);

        server_frame(s, 1, line, strlen(line));
}

void server_result(struct server *s, long id, const char *result)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}", id, result);

        server_say(s, text);
}

static void server_error(struct server *s, long id, const char *error)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"error\":%s}", id, error);

        server_say(s, text);
}

static bool line_is(const char *line, const char *method)
{
        _cleanup_free_ char *text = mem_printf("\"method\":\"%s\"", method);

        return strstr(line, text) != NULL;
}

static void server_answer(struct server *s, long id, const char *result, const char *error)
{
        if (!result)
                server_error(s, id, error ? error : UNKNOWN);
        else if (*result)
                server_result(s, id, result);
}

static void server_line(struct server *s, const char *line)
{
        const char *p = strstr(line, "\"id\":");
        long id = p ? strtol(p + 5, NULL, 10) : 0;

        buf_adds(&s->log, line);
        buf_addc(&s->log, '\n');
        if (line_is(line, "server/discover")) {
                server_answer(s, id, s->discover, s->discover_error);
                return;
        }
        if (line_is(line, "initialize")) {
                server_answer(s, id, s->initialize, NULL);
                return;
        }
        s->n_calls += id > 0;
        s->last_id = id > 0 ? id : s->last_id;
        if (s->script)
                s->script(s, line, id);
        else if (id > 0)
                server_result(s, id, "{\"ok\":true}");
}

static void server_read(struct server *s)
{
        char chunk[65536], *end;
        ssize_t n = recv(s->fd, chunk, sizeof(chunk), MSG_DONTWAIT);

        if (n <= 0) {
                if (n == 0 || errno != EAGAIN)
                        server_leave(s);
                return;
        }
        buf_add(&s->in, chunk, (size_t)n);
        while (s->in.len > 0 && (end = memchr(s->in.data, '\n', s->in.len))) {
                *end = '\0';
                server_line(s, s->in.data);
                buf_drop(&s->in, (size_t)(end - s->in.data) + 1);
        }
}

static int on_server_io(_unused_ sd_event_source *source, _unused_ int fd, uint32_t revents, void *user)
{
        struct server *s = user;

        if (revents & EPOLLOUT)
                server_flush(s);
        if (s->fd >= 0 && revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
                server_read(s);
        return 0;
}

void server_deinit(struct server *s)
{
        server_leave(s);
        buf_deinit(&s->in);
        buf_deinit(&s->out);
        buf_deinit(&s->log);
}

void server_watch(struct server *s)
{
        assert_true(sd_event_add_io(s->rig->loop, &s->io, s->fd, EPOLLIN, on_server_io, s) >= 0);
}

static void connect_pair(struct rig *r, struct server *s)
{
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        s->rig = r;
        s->fd = fds[1];
        r->config.fd = fds[0];
        server_watch(s);
}

void server_start(struct rig *r, struct server *s)
{
        struct err *err = NULL;

        connect_pair(r, s);
        assert_ok(upstream_stdio_new(&r->u, r->loop, &r->config, &rig_events, r, &err));
        assert_false(r->ready);
}

void server_ready(struct rig *r, struct server *s)
{
        server_start(r, s);
        rig_wait(r, &r->ready);
}

/* -- scripts ------------------------------------------------------------------------------------------------------------------- */

void server_silent(struct server *s, _unused_ const char *line, long id)
{
        if (id > 0)
                s->last_id = id;
}

void server_exit(struct server *s, _unused_ const char *line, _unused_ long id)
{
        server_leave(s);
}
