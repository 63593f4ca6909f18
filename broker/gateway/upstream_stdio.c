#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "broker/gateway/upstream_internal.h"
#include "common/engine/engine.h"
#include "common/file.h"
#include "common/text.h"

/*
 * The Engine's attach stream: frames of standard output and standard error towards us, raw lines towards the server. Both outputs share one
 * socket and the Engine stops a writer at about 1 MB unread, so standard error is always read.
 */
#define READ_SIZE    (64U << 10)
#define BATCH        (8U << 10)
#define LAST_READS   64U /* of what a server wrote before it closed its input */
#define STDERR_KEPT  512U
#define STDERR_TOLD  500U
#define OUTGOING_MAX ELEMENTSOF(((struct outgoing *)0)->parts)

struct stdio {
        struct upstream *upstream;
        int fd;
        bool raw;
        bool unwritable; /* a write failed: the end is near */
        bool full;       /* the socket took less than there was */
        uint64_t turn;   /* of the loop, in which something was sent last */
        sd_event_source *io;
        sd_event_source *later; /* flush() is due */
        struct attach_frames frames;
        struct buf line; /* the beginning of a line; none of it has a line break */
        struct buf out;  /* from out_at on it waits for the server */
        size_t out_at;
        char tail[STDERR_KEPT]; /* of standard error */
        size_t n_tail;
};

/* -- what the server writes ---------------------------------------------------------------------------------------------------- */

static void take_stderr(struct stdio *s, const char *data, size_t n)
{
        size_t keep;

        if (n > sizeof(s->tail)) {
                data += n - sizeof(s->tail);
                n = sizeof(s->tail);
        }
        keep = MIN(s->n_tail, sizeof(s->tail) - n);
        memmove(s->tail, s->tail + s->n_tail - keep, keep);
        memcpy(s->tail + keep, data, n);
        s->n_tail = keep + n;
}

static void end_line_too_long(struct stdio *s)
{
        struct err *err = NULL;

        err_set(&err, ERR_LIMIT, "it wrote a line of more than %zu bytes (gateway.max_message)", s->upstream->limits.max_message);
        upstream_end(s->upstream, err);
}

/* A line that came whole is read where it lies; only the rest of one that did not is copied, once. */
static void take_stdout(struct stdio *s, const char *data, size_t n)
{
        struct upstream *u = s->upstream;

        while (n > 0 && upstream_alive(u)) {
                const char *newline = memchr(data, '\n', n);
                size_t k = newline ? (size_t)(newline - data) : n;

                if (k > u->limits.max_message || s->line.len > u->limits.max_message - k) {
                        end_line_too_long(s);
                        return;
                }
                if (!newline) {
                        buf_add(&s->line, data, k);
                        return;
                }
                if (s->line.len == 0) {
                        upstream_receive(u, NULL, data, k);
                } else {
                        buf_add(&s->line, data, k);
                        upstream_receive(u, NULL, s->line.data, s->line.len);
                        s->line.len = 0;
                        if (s->line.cap > UPSTREAM_KEEP)
                                buf_deinit(&s->line);
                }
                data += k + 1;
                n -= k + 1;
        }
}

static void on_chunk(int stream, const void *data, size_t n, void *user)
{
        struct stdio *s = user;

        if (stream == 2)
                take_stderr(s, data, n);
        else
                take_stdout(s, data, n);
}

/* Takes ownership of why; the server's last words on standard error are the best explanation there is. */
static void end_with_words(struct stdio *s, struct err *why)
{
        _cleanup_free_ char *words = upstream_stderr_tail(s->upstream);
        struct err *err = NULL;

        if (*words == '\0') {
                upstream_end(s->upstream, why);
                return;
        }
        err_set(&err, err_code(why), "%s; it last said: %s", err_msg(why), words);
        err_free(why);
        upstream_end(s->upstream, err);
}

static void end_of_stream(struct stdio *s, int errnum)
{
        const char *where = s->line.len > 0 || s->frames.left > 0 || s->frames.have > 0 ? " in the middle of a message" : "";
        struct err *err = NULL;

        if (errnum && errnum != ECONNRESET)
                err_sys(&err, errnum, "reading its stream");
        else
                err_set(&err, ERR_UNAVAILABLE, "it ended%s", where);
        end_with_words(s, err);
}

/* One read. false: there is nothing more now, or the session is over. */
static bool read_some(struct stdio *s)
{
        char chunk[READ_SIZE];
        ssize_t n = recv(s->fd, chunk, sizeof(chunk), MSG_DONTWAIT);
        struct err *err = NULL;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        if (n <= 0) {
                end_of_stream(s, n < 0 ? errno : 0);
                return false;
        }
        if (s->raw)
                take_stdout(s, chunk, (size_t)n);
        else if (attach_frames_feed(&s->frames, chunk, (size_t)n, on_chunk, s, &err) < 0)
                upstream_end(s->upstream, err);
        return upstream_alive(s->upstream);
}

/* -- what it is sent ------------------------------------------------------------------------------------------------------------ */

static int watch(struct stdio *s, uint32_t events)
{
        return sd_event_source_set_io_events(s->io, events);
}

/* The session ends soon; what the server wrote before is read first, so that calls that it has answered are not lost. */
static void cannot_write(struct stdio *s, int errnum)
{
        struct err *err = NULL;

        s->unwritable = true;
        buf_deinit(&s->out);
        s->out_at = 0;
        err_sys(&err, errnum, "it does not take input any more");
        upstream_end_later(s->upstream, err);
}

static void flush(struct stdio *s)
{
        while (s->out_at < s->out.len) {
                ssize_t n = send(s->fd, s->out.data + s->out_at, s->out.len - s->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        s->full = errno == EAGAIN;
                        if (s->full)
                                (void)watch(s, EPOLLIN | EPOLLOUT);
                        else
                                cannot_write(s, errno);
                        return;
                }
                s->out_at += (size_t)n;
        }
        s->out.len = s->out_at = 0;
        s->full = false;
        if (s->out.cap > UPSTREAM_KEEP)
                buf_deinit(&s->out);
        (void)watch(s, EPOLLIN);
}

/* Behind what waits. What has gone out is dropped when it is the larger part, so that every byte is moved once at most. */
static void enqueue(struct stdio *s, const struct iovec *v, size_t n_parts, size_t skip)
{
        if (s->out_at > s->out.len / 2) {
                buf_drop(&s->out, s->out_at);
                s->out_at = 0;
        }
        for (size_t i = 0; i < n_parts; i++) {
                size_t k = MIN(skip, v[i].iov_len);

                buf_add(&s->out, (const char *)v[i].iov_base + k, v[i].iov_len - k);
                skip -= k;
        }
        if (s->full)
                (void)watch(s, EPOLLIN | EPOLLOUT);
        else
                (void)sd_event_source_set_enabled(s->later, SD_EVENT_ONESHOT);
}

static bool has_line_break(const struct outgoing *m)
{
        for (size_t i = 0; i < m->n_parts; i++)
                if (memchr(m->parts[i].at, '\n', m->parts[i].n) || memchr(m->parts[i].at, '\r', m->parts[i].n))
                        return true;
        return false;
}

/* Line breaks in JSON are white space between values (in strings they are escapes); here one would end the message. */
static void add_on_one_line(struct buf *b, const struct outgoing *m)
{
        for (size_t i = 0; i < m->n_parts; i++)
                buf_add(b, m->parts[i].at, m->parts[i].n);
        for (size_t i = 0; i < b->len; i++)
                if (b->data[i] == '\n' || b->data[i] == '\r')
                        b->data[i] = ' ';
}

/*
 * What is sent in one turn of the loop behind its first message goes out together, in the next turn: with many clients that is one write
 * for many calls. The first message never waits, and no more than BATCH does.
 */
static bool is_for_later(struct stdio *s, size_t n)
{
        size_t waiting = s->out.len - s->out_at, most = MIN(BATCH, s->upstream->limits.max_queued);
        uint64_t turn = 0, last = s->turn;

        (void)sd_event_get_iteration(s->upstream->loop, &turn);
        s->turn = turn;
        if (!s->full && waiting > 0 && (turn != last || n > most - MIN(waiting, most)))
                flush(s);
        return s->out.len > s->out_at || (turn == last && n <= most);
}

static int send_parts(struct stdio *s, struct iovec *v, size_t n_parts, size_t n, struct err **err)
{
        bool later = is_for_later(s, n);
        size_t waiting = s->out.len - s->out_at;
        struct msghdr h = {.msg_iov = v, .msg_iovlen = n_parts};
        ssize_t sent = 0;

        if (s->unwritable)
                return err_set(err, ERR_UNAVAILABLE, "it does not take input any more");
        if (waiting > 0 && n > s->upstream->limits.max_queued - MIN(waiting, s->upstream->limits.max_queued))
                return err_set(err, ERR_LIMIT, "it does not read its input: %zu bytes wait for it", waiting);
        if (!later) {
                sent = sendmsg(s->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (sent < 0 && errno != EAGAIN && errno != EINTR) {
                        cannot_write(s, errno);
                        return err_set(err, ERR_UNAVAILABLE, "it does not take input any more");
                }
                sent = MAX(sent, 0);
                s->full = (size_t)sent < n;
        }
        if ((size_t)sent < n)
                enqueue(s, v, n_parts, (size_t)sent);
        return 0;
}

static int stdio_send(struct upstream *u, const struct outgoing *m, struct err **err)
{
        struct stdio *s = u->transport;
        _cleanup_buf_ struct buf flat = {0};
        struct iovec v[OUTGOING_MAX + 1];
        static char end[] = "\n";
        size_t n = 0;

        if (has_line_break(m)) {
                add_on_one_line(&flat, m);
                v[n++] = (struct iovec){flat.data, flat.len};
        } else {
                for (; n < m->n_parts; n++)
                        v[n] = (struct iovec){(void *)(uintptr_t)m->parts[n].at, m->parts[n].n};
        }
        v[n++] = (struct iovec){end, 1};
        return send_parts(s, v, n, m->n + 1, err);
}

/* -- the session ---------------------------------------------------------------------------------------------------------------- */

static int on_io(_unused_ sd_event_source *source, _unused_ int fd, uint32_t revents, void *user)
{
        struct stdio *s = user;
        struct upstream *u = s->upstream;

        upstream_hold(u);
        if (revents & EPOLLOUT)
                flush(s);
        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR) && upstream_alive(u))
                (void)read_some(s);
        (void)upstream_release(u);
        return 0;
}

static int on_later(_unused_ sd_event_source *source, void *user)
{
        flush(user);
        return 0;
}

static void stdio_settle(struct upstream *u)
{
        struct outgoing o = {0};
        struct err *err = NULL;

        outgoing_note(&o, "notifications/initialized", (struct mcp_slice){0});
        if (stdio_send(u, &o, &err) < 0)
                upstream_end(u, err);
        else
                upstream_settled(u);
}

static void stdio_drain(struct upstream *u)
{
        unsigned left = LAST_READS;

        while (left-- > 0 && read_some(u->transport))
                ;
}

static void stdio_close(struct upstream *u)
{
        struct stdio *s = u->transport;

        s->io = sd_event_source_disable_unref(s->io);
        s->later = sd_event_source_disable_unref(s->later);
        if (s->fd >= 0)
                close(TAKE_FD(s->fd));
}

static void stdio_destroy(struct upstream *u)
{
        struct stdio *s = u->transport;

        buf_deinit(&s->line);
        buf_deinit(&s->out);
        free(s);
}

static char *stdio_last_words(const struct upstream *u)
{
        const struct stdio *s = u->transport;
        size_t n = s->n_tail, at = 0;
        char *safe = NULL;

        while (n > 0 && strchr(" \t\r\n", s->tail[n - 1]))
                n--;
        /* Escaping makes it longer: the end is what counts. */
        do {
                char raw[STDERR_KEPT + 1] = "";

                while (at < n && ((unsigned char)s->tail[at] & 0xc0) == 0x80)
                        at++;
                memcpy(raw, s->tail + at, n - at);
                for (char *p = raw; p < raw + (n - at); p++)
                        if (*p == '\n' || *p == '\0')
                                *p = ' ';
                mem_replace(&safe, text_escape(raw));
                at += (n - at + 1) / 2;
        } while (strlen(safe) > STDERR_TOLD);
        return safe;
}

static const struct upstream_ops stdio_ops = {
        .send = stdio_send,
        .settle = stdio_settle,
        .drain = stdio_drain,
        .close = stdio_close,
        .destroy = stdio_destroy,
        .last_words = stdio_last_words,
        .may_be_silent = true,
};

static int check_socket(int fd, struct err **err)
{
        int type = 0;
        socklen_t n = sizeof(type);

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
                return err_sys(err, errno, "a server's stream is no socket");
        return type == SOCK_STREAM ? 0 : err_set(err, ERR_INVALID, "a server's stream is a socket of another kind");
}

int upstream_stdio_new(struct upstream **ret, sd_event *loop, const struct upstream_config *config, const struct upstream_events *events,
                       void *user, struct err **err)
{
        _cleanup_(upstream_freep) struct upstream *u = NULL;
        struct stdio *s;
        int r;

        if (check_socket(config->fd, err) < 0 || upstream_new(&u, loop, config, events, user, err) < 0)
                return -1;
        s = NEW(struct stdio);
        s->upstream = u;
        s->fd = -1; /* the caller's until nothing can fail any more */
        s->raw = config->raw;
        u->ops = &stdio_ops;
        u->transport = s;
        r = sd_event_add_io(loop, &s->io, config->fd, EPOLLIN, on_io, s);
        if (r >= 0)
                r = sd_event_add_defer(loop, &s->later, on_later, s);
        if (r >= 0)
                r = sd_event_source_set_enabled(s->later, SD_EVENT_OFF);
        if (r < 0)
                return err_sys(err, r, "event loop for server %s", u->name);
        s->fd = config->fd;
        if (handshake_start(u, err) < 0) {
                s->fd = -1;
                return -1;
        }
        handshake_go(u);
        *ret = TAKE_PTR(u);
        return 0;
}
