#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/rig/servers/conformance.h"

#define MAX_HEADERS (64U << 10)
#define MAX_BODY    ((size_t)128 << 20)
#define STACK       (512U << 10)

/* One connection; one request at a time. */
struct connection {
        struct server *server;
        int fd;
        struct buf in;
        pthread_mutex_t lock;
        bool stream; /* the answer is an event stream that has begun */
        bool dead;
};

static bool send_all(struct connection *k, const char *data, size_t n)
{
        while (n > 0 && !k->dead) {
                ssize_t sent = send(k->fd, data, n, MSG_NOSIGNAL);
                if (sent <= 0)
                        k->dead = true;
                else {
                        data += sent;
                        n -= (size_t)sent;
                }
        }
        return !k->dead;
}

static bool respond(struct connection *k, int status, const char *extra, const char *body)
{
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "HTTP/1.1 %d %s\r\n%s", status, status < 300 ? "OK" : "No", extra);
        if (body)
                buf_adds(&b, "Content-Type: application/json\r\n");
        buf_addf(&b, "Content-Length: %zu\r\n\r\n", body ? strlen(body) : 0);
        if (body)
                buf_adds(&b, body);
        return send_all(k, b.data, b.len);
}

/* One chunk with one event; begins the stream when it has not begun. Our texts have no line breaks. */
static bool send_event(struct connection *k, const char *text, const char *extra)
{
        _cleanup_buf_ struct buf b = {0};
        bool there;

        pthread_mutex_lock(&k->lock);
        if (!k->stream)
                buf_addf(&b,
                         "HTTP/1.1 200 OK\r\n%sContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: "
                         "chunked\r\n\r\n",
                         extra);
        k->stream = true;
        if (text)
                buf_addf(&b, "%zx\r\ndata: %s\n\n\r\n", strlen(text) + 8, text);
        there = send_all(k, b.data, b.len);
        pthread_mutex_unlock(&k->lock);
        return there;
}

static bool call_send(struct call *c, const char *text)
{
        return send_event(c->transport, text, "");
}

static bool call_alive(struct call *c)
{
        struct connection *k = c->transport;
        struct pollfd p = {.fd = k->fd, .events = POLLRDHUP};

        return !k->dead && poll(&p, 1, 0) >= 0 && !(p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* -- reading ---------------------------------------------------------------------------------------------------------------------- */
static bool read_more(struct connection *k)
{
        char bytes[65536];
        ssize_t n = recv(k->fd, bytes, sizeof(bytes), 0);

        if (n <= 0)
                return false;
        buf_add(&k->in, bytes, (size_t)n);
        return true;
}

/* The next request's head (owned, with request line), taken off the input. */
static char *read_head(struct connection *k)
{
        for (;;) {
                const char *end = k->in.len ? memmem(k->in.data, k->in.len, "\r\n\r\n", 4) : NULL;
                if (end) {
                        size_t n = (size_t)(end - k->in.data) + 4;
                        char *head = mem_strndup(k->in.data, n);
                        buf_drop(&k->in, n);
                        return head;
                }
                if (k->in.len > MAX_HEADERS || !read_more(k))
                        return NULL;
        }
}

static bool read_body(struct connection *k, const char *head, struct buf *body)
{
        _cleanup_free_ char *length = header_value(head, "Content-Length"), *expect = header_value(head, "Expect");
        size_t n = length ? strtoul(length, NULL, 10) : 0;

        if (n > MAX_BODY || header_value(head, "Transfer-Encoding"))
                return false;
        if (expect && !send_all(k, "HTTP/1.1 100 Continue\r\n\r\n", 25))
                return false;
        while (k->in.len < n)
                if (!read_more(k))
                        return false;
        buf_add(body, k->in.data, n);
        buf_drop(&k->in, n);
        return true;
}

/* -- one request ------------------------------------------------------------------------------------------------------------------ */
/* A name that a browser could be made to resolve to us is nobody's; addresses and localhost are. */
static bool is_local_name(const char *value)
{
        const char *host = value;

        if (host && str_has_prefix(host, "http://"))
                host += 7;
        return !host || str_has_prefix(host, "localhost") || str_has_prefix(host, "[::1]") ||
               strspn(host, "0123456789.") == strcspn(host, ":/");
}

static bool accepts(const char *head, const char *type)
{
        _cleanup_free_ char *accept = header_value(head, "Accept");

        return accept && (strstr(accept, type) || strstr(accept, "*/*"));
}

/* 0, or the status that refuses it. */
static int check_head(const struct server *s, const char *head)
{
        _cleanup_free_ char *host = header_value(head, "Host"), *origin = header_value(head, "Origin");
        _cleanup_free_ char *type = header_value(head, "Content-Type");
        bool post = str_has_prefix(head, "POST ");

        if (!is_local_name(host) || !is_local_name(origin))
                return 403;
        if (!strstr(head, "/mcp HTTP/1.1\r\n"))
                return 404;
        if (!post && (!s->legacy || (!str_has_prefix(head, "GET ") && !str_has_prefix(head, "DELETE "))))
                return 405;
        if (post && (!type || !str_has_prefix(type, "application/json")))
                return 415;
        if ((post && !accepts(head, "application/json")) || (!str_has_prefix(head, "DELETE ") && !accepts(head, "text/event-stream")))
                return 406;
        return 0;
}

static void post(struct connection *k, const char *head, const struct buf *body)
{
        struct call c = {.server = k->server, .send = call_send, .alive = call_alive, .transport = k};
        _cleanup_free_ char *version = header_value(head, "MCP-Protocol-Version"), *session = header_value(head, "Mcp-Session-Id"),
                            *method = header_value(head, "Mcp-Method"), *name = header_value(head, "Mcp-Name"), *extra = NULL;
        struct headers h = {.version = version, .session = session, .method = method, .name = name, .text = head};
        int status;
        _cleanup_free_ char *text = serve(&c, body->len ? body->data : "", body->len, &h, &status);

        extra = c.opens ? mem_printf("Mcp-Session-Id: %s\r\n", c.session->id) : mem_strdup("");
        /* Legacy answers come as streams, as most servers have it; modern ones as plain JSON where nothing came before. */
        if (text && (k->stream || (!c.modern && status == 200)))
                send_event(k, text, extra);
        if (k->stream)
                send_all(k, "0\r\n\r\n", 5);
        else if (c.cancelled)
                k->dead = true;
        else
                respond(k, status, extra, text);
}

/* A legacy session's own stream, or its end. */
static void get_or_delete(struct connection *k, const char *head)
{
        _cleanup_free_ char *id = header_value(head, "Mcp-Session-Id");
        struct session *session = id ? session_find(k->server, id) : NULL;
        struct call c = {.server = k->server, .session = session, .send = call_send, .alive = call_alive, .transport = k};
        struct listener l = {.session = session};

        if (!session) {
                respond(k, id ? 404 : 400, "", NULL);
        } else if (str_has_prefix(head, "DELETE ")) {
                session_end(k->server, session);
                respond(k, 200, "", NULL);
        } else {
                send_event(k, NULL, "");
                listen_until_end(&c, &l);
                k->dead = true;
        }
}

static void *serve_connection(void *arg)
{
        struct connection *k = arg;

        while (!k->dead) {
                _cleanup_free_ char *head = read_head(k);
                _cleanup_buf_ struct buf body = {0};
                int refused;

                k->stream = false;
                if (!head || !read_body(k, head, &body))
                        break;
                refused = check_head(k->server, head);
                if (refused)
                        respond(k, refused, refused == 405 ? "Allow: POST\r\n" : "", NULL);
                else if (str_has_prefix(head, "POST "))
                        post(k, head, &body);
                else
                        get_or_delete(k, head);
        }
        close(k->fd);
        buf_deinit(&k->in);
        free(k);
        return NULL;
}

int serve_http(struct server *s, unsigned port)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        socklen_t size = sizeof(a);
        int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        pthread_attr_t attributes;

        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, STACK);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 256) < 0) {
                perror("mcp_conformance: listen");
                return 1;
        }
        getsockname(fd, (struct sockaddr *)&a, &size);
        printf("%u\n", ntohs(a.sin_port));
        fflush(stdout);
        for (;;) {
                int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
                struct connection *k;
                pthread_t thread;

                if (c < 0)
                        continue;
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                k = NEW(struct connection);
                *k = (struct connection){.server = s, .fd = c, .lock = PTHREAD_MUTEX_INITIALIZER};
                if (pthread_create(&thread, &attributes, serve_connection, k) != 0) {
                        close(c);
                        free(k);
                }
        }
}
