#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/engine/internal.h"
#include "common/file.h"
#include "common/http/head.h"

/*
 * The upgrade is spoken by hand, because after it the descriptor must be ours alone, and not one byte may be sent on it before a parsed
 * 101: what follows goes to the server's standard input, or, had the Engine refused, would be another request to the Engine.
 */

#define ATTACH_HEADER_MAX (16U << 10)
#define ATTACH_BODY_MAX   (16U << 10)
#define CONNECT_RETRY_MS  10

struct attach {
        int fd;
        sd_event_source *io;
        struct buf out; /* of the request, still to be written */
        struct buf in;
        struct http_head head;
        size_t header_len; /* of the final answer, with its empty line; 0 = not complete */
        int status;
        bool sized; /* else the body ends with a chunk, or with the connection */
        uint64_t body_len;
        engine_attach_fn done;
        void *user;
};

void attach_free(struct attach *a)
{
        sd_event_source_disable_unref(a->io);
        if (a->fd >= 0)
                close(a->fd);
        buf_deinit(&a->out);
        buf_deinit(&a->in);
        free(a);
}

void attach_finish(struct attach *a, struct err *err)
{
        if (err || a->status != 101)
                a->done(-1, NULL, 0, err, a->user);
        else
                a->done(TAKE_FD(a->fd), a->in.data + a->header_len, a->in.len - a->header_len, NULL, a->user);
        attach_free(a);
}

/* -- parsing ------------------------------------------------------------------------------------------------------------------ */

static int not_http(struct engine_call *c, enum http_fault fault, struct err **err)
{
        if (fault == HTTP_FAULT_HEAD_SIZE || fault == HTTP_FAULT_TARGET_SIZE)
                return err_set(err, ERR_LIMIT, "%s: the header of the Engine's answer is over %u bytes", c->what, ATTACH_HEADER_MAX);
        return err_set(err, ERR_INVALID, "%s: what answers is not HTTP: %s", c->what, http_fault_text(fault));
}

/* 0: more is needed; 1: the header of the final answer is complete. */
static int parse_header(struct engine_call *c, struct attach *a, struct err **err)
{
        enum http_fault fault = HTTP_FAULT_NONE;
        enum http_framing framing;
        int r;

        if (a->header_len > 0)
                return 1;
        while ((r = http_head_read(&a->head, a->in.data, a->in.len, &fault)) > 0) {
                a->status = (int)a->head.status;
                if (a->status >= 200 || a->status == 101)
                        break;
                /* "100 Continue" and the like announce another. */
                buf_drop(&a->in, a->head.size);
                http_head_init(&a->head, HTTP_RESPONSE, ATTACH_HEADER_MAX);
                if (a->in.len == 0)
                        return 0;
        }
        if (r == 0)
                return 0;
        if (r < 0 || http_head_framing(&a->head, a->in.data, false, &framing, &a->body_len, &fault) < 0)
                return not_http(c, fault, err);
        a->header_len = a->head.size;
        a->sized = framing == HTTP_SIZED || framing == HTTP_NO_BODY;
        return 1;
}

/* A refusal's JSON, also from inside a chunked body: it is small, and one object. */
static int refusal(struct engine_call *c, struct attach *a, struct err **err)
{
        char *body = a->in.data + a->header_len;
        size_t n = a->in.len - a->header_len;
        json_object *o = NULL;
        char *open, *close_;

        if (a->status < 300)
                return err_set(err, ERR_INVALID, "%s: the Engine answered HTTP %d and did not switch to a raw stream", c->what, a->status);
        open = memchr(body, '{', n);
        close_ = memrchr(body, '}', n);
        if (!a->sized && open && close_ && open < close_) {
                n = (size_t)(close_ - open) + 1;
                body = open;
        }
        if (answer_parse(&o, a->status, c->what, body, n, err) == 0) /* 304 has no meaning here */
                (void)err_set(err, ERR_INVALID, "%s: the Engine answered HTTP %d", c->what, a->status);
        json_object_put(o);
        return -1;
}

/* -- the exchange --------------------------------------------------------------------------------------------------------------- */

/* 1: done, the call is over (with *err or without); 0: wait for more. */
static int take(struct engine_call *c, struct attach *a, bool closed, struct err **err)
{
        int r = a->in.len > 0 ? parse_header(c, a, err) : 0;

        if (r < 0)
                return 1;
        if (r == 0) {
                if (closed)
                        (void)err_set(err, ERR_UNAVAILABLE, "%s: the Engine closed the connection before it answered", c->what);
                return closed;
        }
        if (a->status == 101)
                return 1;
        size_t have = a->in.len - a->header_len;
        if (!closed && have < ATTACH_BODY_MAX && (!a->sized || have < a->body_len))
                return !a->sized && memchr(a->in.data + a->header_len, '}', have) ? refusal(c, a, err) < 0 : 0;
        return refusal(c, a, err) < 0;
}

static int read_some(struct engine_call *c, struct attach *a, struct err **err)
{
        char piece[4096];
        ssize_t n = read(a->fd, piece, sizeof(piece));

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0) {
                (void)err_set(err, ERR_UNAVAILABLE, "%s: the connection to the Engine broke: %s", c->what, strerror(errno));
                return 1;
        }
        if (n > 0)
                buf_add(&a->in, piece, (size_t)n);
        return take(c, a, n == 0, err);
}

static int write_some(struct engine_call *c, struct attach *a, struct err **err)
{
        ssize_t n = send(a->fd, a->out.data, a->out.len, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR) {
                (void)err_set(err, ERR_UNAVAILABLE, "%s: the connection to the Engine broke: %s", c->what, strerror(errno));
                return 1;
        }
        if (n > 0)
                buf_drop(&a->out, (size_t)n);
        if (a->out.len == 0)
                (void)sd_event_source_set_io_events(a->io, EPOLLIN);
        return 0;
}

static int on_io(_unused_ sd_event_source *s, _unused_ int fd, uint32_t revents, void *user)
{
        struct engine_call *c = user;
        struct attach *a = c->attach;
        struct err *err = NULL;
        int over = 0;

        if (revents & EPOLLOUT && a->out.len > 0)
                over = write_some(c, a, &err);
        if (!over && revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
                over = read_some(c, a, &err);
        if (!over)
                return 0;
        if (err && (a->status == 0 || a->status == 400)) /* gone, or another Engine that wants another version */
                c->engine->negotiated = false;
        a->io = sd_event_source_disable_unref(a->io); /* the descriptor is the owner's from now on */
        call_finish(c, a->status, NULL, err);
        return 0;
}

static int connect_to(struct engine_call *c, struct attach *a, struct err **err)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        const char *path = c->engine->socket_path;

        memcpy(address.sun_path, path, strlen(path) + 1); /* engine_new() checked that it fits */
        if (a->fd < 0)
                a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (a->fd < 0)
                return err_sys(err, errno, "%s: socket", c->what);
        if (connect(a->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                return 0;
        if (errno == EAGAIN) /* its queue is full */
                return 1;
        if (errno == EACCES || errno == EPERM)
                return err_set(err, ERR_DENIED, "%s: no access to the Engine's socket %s", c->what, path);
        return err_set(err, ERR_UNAVAILABLE, "%s: no Engine at %s: %s", c->what, path, strerror(errno));
}

void attach_start(struct engine_call *c)
{
        struct attach *a = c->attach;
        struct err *err = NULL;
        int r = connect_to(c, a, &err);

        if (r > 0) {
                call_again(c, "POST", strchr(c->what, ' ') + 1, strchr(c->target, '?') + 1, NULL, CONNECT_RETRY_MS);
                return;
        }
        if (r == 0) {
                buf_addf(&a->out,
                         "POST /v1.%u%s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bulkhead\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                         "Content-Length: 0\r\n\r\n",
                         c->engine->minor, c->target);
                r = sd_event_add_io(c->engine->loop, &a->io, a->fd, EPOLLIN | EPOLLOUT, on_io, c);
                if (r < 0)
                        (void)err_sys(&err, r, "%s: watching the connection", c->what);
        }
        if (r < 0)
                call_fail_later(c, err);
}

void engine_container_attach(struct engine *e, struct engine_call **ret, const char *id, engine_attach_fn done, void *user)
{
        _cleanup_free_ char *escaped = engine_escape(id), *path = mem_printf("/containers/%s/attach", escaped);
        struct engine_request request = {.method = "POST", .path = path, .query = "stream=1&stdin=1&stdout=1&stderr=1"};
        struct engine_call *c = call_new(e, &request, NULL, NULL);

        c->attach = NEW(struct attach);
        c->attach->fd = -1;
        http_head_init(&c->attach->head, HTTP_RESPONSE, ATTACH_HEADER_MAX);
        c->attach->done = done;
        c->attach->user = user;
        call_enqueue(c);
        if (ret)
                *ret = c;
}
