#include "tests/unit/test_upstream_web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void conn_close(struct web_conn *c)
{
        c->io = sd_event_source_disable_unref(c->io);
        if (c->fd >= 0) {
                close(c->fd);
                c->web->n_open--;
        }
        c->fd = -1;
        c->gone = true;
}

static void conn_flush(struct web_conn *c)
{
        while (c->fd >= 0 && c->out_at < c->out.len) {
                size_t n = c->out.len - c->out_at;
                ssize_t k = send(c->fd, c->out.data + c->out_at, c->web->step ? MIN(c->web->step, n) : n, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (k < 0 && errno == EAGAIN)
                        break;
                if (k < 0) {
                        conn_close(c);
                        return;
                }
                c->out_at += (size_t)k;
                if (c->web->step)
                        break;
        }
        if (c->fd < 0)
                return;
        if (c->closing && c->out_at == c->out.len)
                conn_close(c);
        else
                assert_true(sd_event_source_set_io_events(c->io, EPOLLIN | (c->out_at < c->out.len ? EPOLLOUT : 0)) >= 0);
}

void web_put(struct web_conn *c, const char *bytes, size_t n)
{
        if (c->gone)
                return;
        buf_add(&c->out, bytes, n);
        conn_flush(c);
}

void web_reply(struct web_conn *c, const char *status, const char *type, const char *extra, const char *body)
{
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "HTTP/1.1 %s\r\n%s", status, extra ? extra : "");
        if (type)
                buf_addf(&b, "Content-Type: %s\r\n", type);
        buf_addf(&b, "Content-Length: %zu\r\n\r\n", strlen(body));
        buf_adds(&b, body);
        web_put(c, b.data, b.len);
}

static void answer(struct web_conn *c, long id, const char *result, const char *extra)
{
        _cleanup_free_ char *text = mem_printf("{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}", id, result);

        if (c->web->as_events) {
                _cleanup_free_ char *head = mem_printf(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%sTransfer-Encoding: chunked\r\n\r\n", extra ? extra : "");
                web_put(c, head, strlen(head));
                web_message(c, text);
                web_end(c);
        } else {
                web_reply(c, "200 OK", "application/json", extra, text);
        }
}

void web_result(struct web_conn *c, long id, const char *result)
{
        answer(c, id, result, NULL);
}

void web_stream(struct web_conn *c)
{
        static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

        web_put(c, head, sizeof(head) - 1);
}

void web_event(struct web_conn *c, const char *lines)
{
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "%zx\r\n", strlen(lines));
        buf_adds(&b, lines);
        buf_adds(&b, "\r\n");
        web_put(c, b.data, b.len);
}

void web_message(struct web_conn *c, const char *json)
{
        _cleanup_free_ char *lines = mem_printf("event: message\ndata: %s\n\n", json);

        web_event(c, lines);
}

void web_end(struct web_conn *c)
{
        web_put(c, "0\r\n\r\n", 5);
}

void web_cut(struct web_conn *c)
{
        conn_close(c);
}

/* -- requests ------------------------------------------------------------------------------------------------------------------ */

char *web_header(const char *headers, const char *name)
{
        _cleanup_free_ char *start = mem_printf("\r\n%s: ", name);
        const char *p = strcasestr(headers, start), *end;

        if (!p)
                return NULL;
        p += strlen(start);
        end = strstr(p, "\r\n");
        return mem_strndup(p, end ? (size_t)(end - p) : strlen(p));
}

static char *rpc_method(const char *body)
{
        const char *p = strstr(body, "\"method\":\"");

        return p ? mem_strndup(p + 10, strcspn(p + 10, "\"")) : mem_strdup("");
}

static void take_request(struct web_conn *c, const char *head, size_t head_n, const char *body, size_t body_n)
{
        struct web *w = c->web;
        _cleanup_free_ char *headers = mem_strndup(head, head_n), *text = mem_strndup(body, body_n), *rpc = rpc_method(text);
        size_t n_method = strcspn(headers, " "), n_path = strcspn(headers + n_method + 1, " ");
        _cleanup_free_ char *method = mem_strndup(headers, n_method), *path = mem_strndup(headers + n_method + 1, n_path);
        const char *id = strstr(text, "\"id\":");
        struct web_request q = {c, method, path, headers, text, id && *rpc ? strtol(id + 5, NULL, 10) : 0, rpc};

        w->n_requests++;
        c->n_requests++;
        buf_addf(&w->log, "%s %s %s\n", method, path, rpc);
        w->script(w, &q);
}

static void conn_requests(struct web_conn *c)
{
        while (c->fd >= 0 && c->in.len > 0) {
                char *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
                _cleanup_free_ char *length = NULL;
                size_t head, body;
                struct buf taken = {0};

                if (!end)
                        return;
                head = (size_t)(end - c->in.data) + 4;
                *end = '\0';
                length = web_header(c->in.data, "Content-Length");
                *end = '\r';
                body = length ? strtoul(length, NULL, 10) : 0;
                if (c->in.len < head + body) {
                        if (c->web->early) {
                                assert_true(sd_event_source_set_enabled(c->io, SD_EVENT_OFF) >= 0);
                                c->web->early(c);
                        }
                        return;
                }
                buf_add(&taken, c->in.data, head + body);
                buf_drop(&c->in, head + body);
                take_request(c, taken.data, head - 2, taken.data + head, body);
                buf_deinit(&taken);
        }
}

static int on_conn_io(_unused_ sd_event_source *source, int fd, uint32_t revents, void *user)
{
        struct web_conn *c = user;
        static char chunk[65536];
        ssize_t n;

        if (revents & EPOLLOUT)
                conn_flush(c);
        if (c->fd < 0 || !(revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                return 0;
        n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
        if (n <= 0) {
                if (n == 0 || errno != EAGAIN)
                        conn_close(c);
                return 0;
        }
        buf_add(&c->in, chunk, (size_t)n);
        conn_requests(c);
        return 0;
}

static int on_accept(_unused_ sd_event_source *source, int fd, _unused_ uint32_t revents, void *user)
{
        struct web *w = user;
        struct web_conn *c = NEW(struct web_conn);
        int one = 1;

        c->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        assert_true(c->fd >= 0);
        assert_int_equal(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
        c->web = w;
        c->next = w->conns;
        w->conns = c;
        w->n_conns++;
        w->n_open++;
        assert_true(sd_event_add_io(w->rig->loop, &c->io, c->fd, EPOLLIN, on_conn_io, c) >= 0);
        return 0;
}

void web_reserve(struct web *w, struct rig *r)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof(a);
        int one = 1;

        w->rig = r;
        w->script = w->script ? w->script : web_decent;
        w->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(w->fd >= 0);
        assert_int_equal(setsockopt(w->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
        assert_int_equal(bind(w->fd, (struct sockaddr *)&a, n), 0);
        assert_int_equal(getsockname(w->fd, (struct sockaddr *)&a, &n), 0);
        w->port = ntohs(a.sin_port);
        r->config.address = a.sin_addr;
        r->config.port = w->port;
        r->config.path = "/mcp";
}

void web_listen(struct web *w)
{
        assert_int_equal(listen(w->fd, SOMAXCONN), 0);
        assert_true(sd_event_add_io(w->rig->loop, &w->io, w->fd, EPOLLIN, on_accept, w) >= 0);
}

void web_start(struct web *w, struct rig *r)
{
        web_reserve(w, r);
        web_listen(w);
}

void web_stop(struct web *w)
{
        struct web_conn *c;

        w->io = sd_event_source_disable_unref(w->io);
        if (w->fd > 0)
                close(w->fd);
        w->fd = -1;
        while ((c = w->conns)) {
                w->conns = c->next;
                conn_close(c);
                buf_deinit(&c->in);
                buf_deinit(&c->out);
                free(c);
        }
        buf_deinit(&w->log);
        free(TAKE_PTR(w->held_headers));
        free(TAKE_PTR(w->held_body));
        free(TAKE_PTR(w->last_event_id));
}

/* -- scripts ------------------------------------------------------------------------------------------------------------------- */

static void take_get(struct web *w, struct web_request *q)
{
        mem_replace(&w->last_event_id, web_header(q->headers, "Last-Event-ID"));
        w->get_at = now_us();
        if (!w->events) {
                web_reply(q->conn, "405 Method Not Allowed", NULL, NULL, "");
                return;
        }
        w->stream = q->conn;
        web_stream(q->conn);
}

void web_decent(struct web *w, struct web_request *q)
{
        if (str_eq(q->method, "GET")) {
                take_get(w, q);
        } else if (str_eq(q->method, "DELETE")) {
                web_reply(q->conn, "200 OK", NULL, NULL, "");
        } else if (str_eq(q->rpc, "server/discover")) {
                if (w->discover)
                        answer(q->conn, q->id, w->discover, NULL);
                else
                        web_reply(q->conn, "404 Not Found", "text/html", NULL, "<h1>Not Found</h1>");
        } else if (str_eq(q->rpc, "initialize")) {
                _cleanup_free_ char *extra = w->session ? mem_printf("Mcp-Session-Id: %s\r\n", w->session) : NULL;
                answer(q->conn, q->id, w->initialize, extra);
        } else if (q->id == 0) {
                web_reply(q->conn, "202 Accepted", NULL, NULL, "");
        } else {
                answer(q->conn, q->id, "{\"ok\":true}", NULL);
        }
}

void web_hold(struct web *w, struct web_request *q)
{
        if (!str_eq(q->rpc, "tools/call")) {
                web_decent(w, q);
                return;
        }
        w->held = q->conn;
        w->held_id = q->id;
        mem_replace(&w->held_headers, mem_strdup(q->headers));
        mem_replace(&w->held_body, mem_strdup(q->body));
}

void web_forget(struct web *w, struct web_request *q)
{
        if (str_eq(q->rpc, "tools/call"))
                web_reply(q->conn, "404 Not Found", "application/json", NULL,
                          "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32001,\"message\":\"Session not found\"},\"id\":null}");
        else
                web_decent(w, q);
}

/* -- sessions ----------------------------------------------------------------------------------------------------------------- */

void web_session(struct rig *r, struct web *w)
{
        struct err *err = NULL;

        if (!w->port)
                web_start(w, r);
        assert_ok(upstream_pool_new(&r->pool, r->loop, NULL, &err));
        r->config.pool = r->pool;
        assert_ok(upstream_http_new(&r->u, r->loop, &r->config, &rig_events, r, &err));
        assert_false(r->ready);
}

void web_session_ready(struct rig *r, struct web *w)
{
        web_session(r, w);
        rig_wait(r, &r->ready);
        assert_true(upstream_is_ready(r->u));
}

void web_wait_held(struct rig *r, struct web *w)
{
        for (int i = 0; !w->held && i < 1000; i++)
                rig_run(r, 5);
        assert_non_null(w->held);
}
