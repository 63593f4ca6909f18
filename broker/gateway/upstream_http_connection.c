#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/gateway/upstream_http.h"

/*
 * One TCP connection to a server, one request at a time. What is kept is watched: a server that closes it, or says something that nobody
 * asked for, is not asked on it any more.
 */
#define READ_SIZE    (64U << 10) /* at once; then others have their turn */
#define REST_SIZE    (16U << 10) /* of a TLS record, at most */
#define KEEP_ALIVE_S 60          /* a stream can be silent for hours */

/* -- sockets ------------------------------------------------------------------------------------------------------------------- */

static int watch(struct http_connection *c, bool out)
{
        struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0U), .data.ptr = c};

        if (c->wants_out == out)
                return 0;
        c->wants_out = out;
        return epoll_ctl(c->peer->pool->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

void connection_close(struct http_connection *c)
{
        if (c->fd < 0)
                return;
        c->tls = tls_free(c->tls);
        close(TAKE_FD(c->fd));
        free(TAKE_PTR(c->head));
        buf_deinit(&c->in);
        if (c->stream)
                c->stream->connection = NULL;
        pool_remove(c);
}

/* Bytes that were taken; -1: none, and none ever will be. */
static ssize_t write_parts(struct http_connection *c, const struct iovec *parts, size_t n_parts)
{
        struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = n_parts};
        ssize_t n;

        if (c->tls)
                n = tls_write(c->tls, parts, n_parts);
        else
                do
                        n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
                while (n < 0 && errno == EINTR);
        return n < 0 && errno == EAGAIN ? 0 : n;
}

/* Did the server close it, or say something, since it was used last? */
static bool is_stale(const struct http_connection *c)
{
        char byte;

        if (c->tls && tls_pending(c->tls))
                return true;
        return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

/* -- how an exchange ends ------------------------------------------------------------------------------------------------------- */

static void fail(struct http_connection *c, enum stream_outcome outcome, char *error)
{
        struct http_stream *s = c->stream;

        connection_close(c);
        stream_over(s, outcome, error);
}

static void fail_connect(struct http_stream *s, enum stream_outcome outcome, const char *why)
{
        char text[INET_ADDRSTRLEN];
        const struct sockaddr_in *a = &s->peer->address;

        inet_ntop(AF_INET, &a->sin_addr, text, sizeof(text));
        stream_over(s, outcome, mem_printf("Failed to connect to %s:%u: %s", text, ntohs(a->sin_port), why));
}

/* The answer is whole; left: bytes behind it. */
static void complete(struct http_connection *c, size_t left)
{
        struct http_stream *s = c->stream;
        bool keep = c->persists && left == 0 && s->sent == s->request_size;

        if (keep) {
                s->connection = NULL;
                c->stream = NULL;
                c->in_body = false;
                pool_give(c);
        } else {
                connection_close(c);
        }
        stream_over(s, STREAM_WHOLE, NULL);
}

/*
 * Between two requests a server may close a kept connection just when the second one is on its way. What does no harm when it is done twice
 * is asked once more, on a connection of its own; a tool is never called twice for one call.
 */
static void ended(struct http_connection *c, int errnum)
{
        struct http_stream *s = c->stream;
        bool began = s->header_bytes > 0 || c->in.len > 0;

        if (c->in_body && c->framing == HTTP_UNTIL_CLOSE && errnum == 0) {
                c->persists = false;
                complete(c, 0);
        } else if (began) {
                fail(c, STREAM_BROKEN,
                     mem_printf("the connection %s in the middle of the answer",
                                errnum && errnum != ECONNRESET ? strerror(errnum) : "ended"));
        } else if (c->kept && s->repeatable && !s->repeated) {
                s->repeated = true;
                connection_close(c);
                connection_start(s, NULL, 0);
        } else {
                fail(c, STREAM_LOST, mem_strdup("the connection was lost before the answer"));
        }
}

/* -- reading -------------------------------------------------------------------------------------------------------------------- */

static void broken(struct http_connection *c, enum http_fault fault)
{
        c->stream->over_header = fault == HTTP_FAULT_HEAD_SIZE || (fault == HTTP_FAULT_TARGET_SIZE && !c->in_body);
        fail(c, STREAM_BROKEN, mem_printf("its answer is no HTTP: %s", http_fault_text(fault)));
}

/* The head is whole, `size` bytes of it. */
static void begin_body(struct http_connection *c, const struct http_head *h, const char *bytes)
{
        struct http_stream *s = c->stream;
        enum http_fault fault;

        s->header_bytes += h->size;
        if (h->status == 101) {
                broken(c, HTTP_FAULT_START_LINE);
        } else if (http_head_framing(h, bytes, false, &c->framing, &c->left, &fault) < 0) {
                broken(c, fault);
        } else if (h->status >= 200) {
                c->in_body = true;
                c->persists = http_head_persists(h, bytes);
                c->chunked = (struct http_chunked){0};
                stream_take_head(s, h, bytes);
        }
}

/* Takes what belongs to the head out of *p; in_body is set when there is no more of it. */
static void take_head(struct http_connection *c, const char **p, size_t *n)
{
        struct http_stream *s = c->stream;
        struct http_head fresh, *h = c->head;
        size_t before = c->in.len;
        const char *bytes = *p;
        size_t have = before + *n;
        enum http_fault fault;
        int r;

        if (before > 0) {
                buf_add(&c->in, *p, *n);
                bytes = c->in.data;
        }
        if (!h)
                http_head_init(h = &fresh, HTTP_RESPONSE, HTTP_MAX_HEADER - MIN(s->header_bytes, HTTP_MAX_HEADER));
        r = http_head_read(h, bytes, have, &fault);
        if (r < 0) {
                broken(c, fault);
                return;
        }
        if (r == 0) {
                if (before == 0)
                        buf_add(&c->in, *p, *n);
                if (!c->head)
                        c->head = mem_dup(h, sizeof(*h));
                *n = 0;
                return;
        }
        *p += h->size - before;
        *n -= h->size - before;
        begin_body(c, h, bytes);
        if (c->stream == s) {
                free(TAKE_PTR(c->head));
                buf_deinit(&c->in);
        }
}

/* false: no more of the body is wanted. */
static bool body(struct http_connection *c, const char *p, size_t n)
{
        struct http_stream *s = c->stream;
        bool more = n == 0 || stream_take_body(s, p, n);

        if (!more && c->stream == s)
                fail(c, STREAM_BROKEN, NULL);
        return more && c->stream == s;
}

static void take_chunked(struct http_connection *c, const char *p, size_t n)
{
        enum http_fault fault;

        for (;;) {
                const char *data;
                size_t used, n_data;
                int r = http_chunked_read(&c->chunked, p, n, &used, &data, &n_data, &fault);

                if (r < 0) {
                        broken(c, fault);
                        return;
                }
                p += used;
                n -= used;
                if (r == HTTP_CHUNKED_END) {
                        complete(c, n);
                        return;
                }
                if (r == HTTP_CHUNKED_MORE || !body(c, data, n_data))
                        return;
        }
}

static void take_body(struct http_connection *c, const char *p, size_t n)
{
        size_t k = (size_t)MIN(c->left, n);

        switch (c->framing) {
        case HTTP_NO_BODY:
                complete(c, n);
                break;
        case HTTP_SIZED:
                c->left -= k;
                if (body(c, p, k) && c->left == 0)
                        complete(c, n - k);
                break;
        case HTTP_CHUNKED:
                take_chunked(c, p, n);
                break;
        case HTTP_UNTIL_CLOSE:
                (void)body(c, p, n);
                break;
        }
}

static void take(struct http_connection *c, const char *p, size_t n)
{
        struct http_stream *s = c->stream;

        while (n > 0 && c->stream == s && !c->in_body)
                take_head(c, &p, &n);
        if (c->stream == s && c->in_body)
                take_body(c, p, n);
}

static void read_some(struct http_connection *c, size_t size)
{
        struct http_stream *s = c->stream;
        char chunk[READ_SIZE];
        ssize_t n = c->tls ? tls_read(c->tls, chunk, size) : recv(c->fd, chunk, size, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        stream_hold(s);
        if (n > 0)
                take(c, chunk, (size_t)n);
        else
                ended(c, n < 0 ? errno : 0);
        stream_deliver(s);
        stream_keep(s);
        stream_release(s);
}

static void readable(struct http_connection *c)
{
        const struct http_stream *s = c->stream;

        read_some(c, READ_SIZE);
        /* What is left of a record will not be told of again. It is less than a record, so that others have their turn soon. */
        while (c->stream == s && c->tls && tls_pending(c->tls))
                read_some(c, REST_SIZE);
}

/* -- writing -------------------------------------------------------------------------------------------------------------------- */

static void written(struct http_stream *s)
{
        if (s->sent == s->request_size && !s->repeatable)
                buf_deinit(&s->request);
}

static void writable(struct http_connection *c)
{
        struct http_stream *s = c->stream;

        if (s->sent < s->request_size && !c->unwritable) {
                struct iovec rest = {s->request.data + s->sent, s->request_size - s->sent};
                ssize_t n = write_parts(c, &rest, 1);

                if (n < 0)
                        c->unwritable = true; /* what it said before that is read, and says more */
                else
                        s->sent += (size_t)n;
        }
        if (watch(c, s->sent < s->request_size && !c->unwritable) < 0)
                c->unwritable = true;
        written(s);
}

/* -- connecting ----------------------------------------------------------------------------------------------------------------- */

static int open_socket(const struct sockaddr_in *address)
{
        static const int one = 1, idle = KEEP_ALIVE_S;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof(idle));
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno != EINPROGRESS) {
                int errnum = errno;
                close(fd);
                errno = errnum;
                return -1;
        }
        return fd;
}

/* NULL: errno says why. */
static struct http_connection *connection_new(struct http_peer *peer)
{
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT};
        struct http_connection *c;
        int fd = open_socket(&peer->address);

        if (fd < 0)
                return NULL;
        c = NEW(struct http_connection);
        *c = (struct http_connection){.peer = peer, .fd = fd, .connecting = true, .wants_out = true};
        pool_add(c);
        e.data.ptr = c;
        if (epoll_ctl(peer->pool->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
                int errnum = errno;
                connection_close(c);
                errno = errnum;
                return NULL;
        }
        return c;
}

static void ready(struct http_connection *c)
{
        c->connecting = false;
        list_del(&c->in_list);
}

/* The handshake, as far as it goes now. */
static void secure(struct http_connection *c)
{
        struct http_stream *s = c->stream;
        _cleanup_err_ struct err *err = NULL;
        enum tls_step step = TLS_DONE;

        if (c->peer->trust && !c->tls && tls_new(&c->tls, c->peer->trust, c->fd, &err) < 0)
                step = TLS_FAILED;
        if (c->tls)
                step = tls_handshake(c->tls, &err);
        if ((step == TLS_WANTS_IN || step == TLS_WANTS_OUT) && watch(c, step == TLS_WANTS_OUT) < 0)
                step = TLS_FAILED;
        if (step == TLS_DONE) {
                ready(c);
        } else if (step == TLS_FAILED) {
                connection_close(c);
                fail_connect(s, err_code(err) == ERR_DENIED ? STREAM_UNTRUSTED : STREAM_UNREACHABLE, err ? err_msg(err) : strerror(ENOMEM));
        }
}

static void connected(struct http_connection *c)
{
        struct http_stream *s = c->stream;
        int errnum = 0;
        socklen_t n = sizeof(errnum);

        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &errnum, &n) < 0)
                errnum = errno;
        if (errnum == 0) {
                secure(c);
                return;
        }
        connection_close(c);
        fail_connect(s, STREAM_UNREACHABLE, strerror(errnum));
}

void connection_timed_out(struct http_connection *c)
{
        struct http_stream *s = c->stream;

        connection_close(c);
        fail_connect(s, STREAM_UNREACHABLE, strerror(ETIMEDOUT));
        pool_due(s);
}

/* -- exchanges ------------------------------------------------------------------------------------------------------------------ */

/* A kept connection that takes some of the request, or a new one. */
static struct http_connection *begin(struct http_stream *s, const struct iovec *parts, size_t n_parts)
{
        struct http_connection *c;

        while (!s->repeated && (c = pool_take(s->peer))) {
                ssize_t n = is_stale(c) ? -1 : write_parts(c, parts, n_parts);
                if (n >= 0) {
                        s->sent = (size_t)n;
                        return c;
                }
                connection_close(c);
        }
        return connection_new(s->peer);
}

static void keep_request(struct http_stream *s, const struct iovec *parts, size_t n_parts)
{
        buf_reserve(&s->request, s->request_size);
        for (size_t i = 0; i < n_parts; i++)
                buf_add(&s->request, parts[i].iov_base, parts[i].iov_len);
}

void connection_start(struct http_stream *s, const struct iovec *parts, size_t n_parts)
{
        struct iovec whole = {s->request.data, s->request.len};
        bool borrowed = n_parts > 0;
        struct http_connection *c;
        int errnum;

        if (!borrowed)
                parts = &whole, n_parts = 1;
        s->sent = s->request_size = 0;
        for (size_t i = 0; i < n_parts; i++)
                s->request_size += parts[i].iov_len;
        c = begin(s, parts, n_parts);
        errnum = errno;
        if (borrowed && (s->repeatable || s->sent < s->request_size))
                keep_request(s, parts, n_parts);
        if (!c) {
                fail_connect(s, STREAM_UNREACHABLE, strerror(errnum));
                pool_due(s);
                return;
        }
        s->connection = c;
        c->stream = s;
        if (!c->connecting && s->sent < s->request_size)
                (void)watch(c, true);
}

void connection_event(struct http_connection *c, uint32_t events)
{
        struct http_stream *s = c->stream;
        bool fresh = c->connecting;

        if (!s) {
                connection_close(c);
                return;
        }
        if (fresh) {
                connected(c);
                if (c->stream != s) {
                        stream_deliver(s);
                        return;
                }
                if (c->connecting)
                        return;
        }
        if (fresh || events & EPOLLOUT)
                writable(c);
        if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                readable(c);
}
