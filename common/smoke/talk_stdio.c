#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/engine/engine.h"
#include "common/smoke/talk.h"

/*
 * The Engine's attach stream: frames from the server (1 standard output, 2 standard error), bare bytes to it. Reading goes on while writing
 * waits: a server that does not read must not keep us from draining what it writes (the Engine stops both streams when one is not read).
 */
struct talk_stdio {
        int fd;
        size_t max_bytes, total;
        struct attach_frames frames;
        struct buf line; /* an unfinished one */
        struct buf out;  /* not yet written */
        char **lines;    /* finished, not yet taken */
        size_t *sizes, n_lines, next;
        char tail[TALK_STDERR_TAIL];
        size_t tail_total; /* bytes ever put in the ring */
        bool ended;
        int read_errno;
};

static void push_line(struct talk_stdio *t)
{
        t->lines = mem_realloc(t->lines, t->n_lines + 1, sizeof(*t->lines));
        t->sizes = mem_realloc(t->sizes, t->n_lines + 1, sizeof(*t->sizes));
        t->sizes[t->n_lines] = t->line.len;
        t->lines[t->n_lines++] = buf_take(&t->line);
}

static void take_stdout(struct talk_stdio *t, const char *data, size_t n)
{
        while (n > 0) {
                const char *end = memchr(data, '\n', n);
                size_t part = end ? (size_t)(end - data) : n;

                if (part > 0)
                        buf_add(&t->line, data, part);
                if (!end)
                        return;
                push_line(t);
                data += part + 1;
                n -= part + 1;
        }
}

static void take_stderr(struct talk_stdio *t, const char *data, size_t n)
{
        for (size_t i = n > TALK_STDERR_TAIL ? n - TALK_STDERR_TAIL : 0; i < n; i++)
                t->tail[t->tail_total++ % TALK_STDERR_TAIL] = data[i];
}

static void take_chunk(int stream, const void *data, size_t n, void *user)
{
        struct talk_stdio *t = user;

        if (stream == 2)
                take_stderr(t, data, n);
        else
                take_stdout(t, data, n);
}

char *talk_stdio_stderr(const struct talk_stdio *t, size_t *n)
{
        struct buf b = {0};
        size_t have = MIN(t->tail_total, (size_t)TALK_STDERR_TAIL);

        for (size_t i = t->tail_total - have; i < t->tail_total; i++)
                buf_addc(&b, t->tail[i % TALK_STDERR_TAIL]);
        *n = have;
        return buf_take(&b);
}

static int stdio_send(void *self, const struct talk_outgoing *m, _unused_ struct err **err)
{
        struct talk_stdio *t = self;
        _cleanup_free_ char *text = json_canonical(m->message);

        buf_adds(&t->out, text);
        buf_addc(&t->out, '\n');
        return 0;
}

/* A broken pipe is not an error yet: what the server wrote before it left may explain it. */
static void write_some(struct talk_stdio *t)
{
        ssize_t n = send(t->fd, t->out.data, t->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0)
                buf_drop(&t->out, (size_t)n);
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
                buf_drop(&t->out, t->out.len);
}

static int read_some(struct talk_stdio *t, struct err **err)
{
        char bytes[65536];
        ssize_t n = recv(t->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                /* ECONNRESET: the other side left without reading all that we had sent. To us that is its end, whichever came first. */
                t->ended = true;
                t->read_errno = n < 0 && errno != ECONNRESET ? errno : 0;
                return 0;
        }
        t->total += (size_t)n;
        if (t->total > t->max_bytes)
                return err_set(err, ERR_LIMIT, "the server wrote more than the %zu bytes a smoke test may read", t->max_bytes);
        if (attach_frames_feed(&t->frames, bytes, (size_t)n, take_chunk, t, err) < 0)
                return err_wrap(err, "the attach stream");
        return 0;
}

int talk_stdio_drain(struct talk_stdio *t, struct err **err)
{
        if (!t->ended && read_some(t, err) < 0)
                return -1;
        for (; t->next < t->n_lines; t->next++)
                mem_freep(&t->lines[t->next]);
        t->next = t->n_lines = 0;
        buf_drop(&t->line, t->line.len);
        return t->ended;
}

static int pump(struct talk_stdio *t, uint64_t until, struct err **err)
{
        struct pollfd p = {.fd = t->fd, .events = (short)(POLLIN | (t->out.len > 0 ? POLLOUT : 0))};
        uint64_t now = talk_now_ms();
        int r;

        if (now >= until)
                return 1;
        r = poll(&p, 1, (int)MIN(until - now, (uint64_t)60000));
        if (r < 0 && errno != EINTR)
                return err_sys(err, errno, "waiting for the server");
        if (r <= 0)
                return 0;
        if (p.revents & POLLOUT)
                write_some(t);
        if (p.revents & (POLLIN | POLLHUP | POLLERR))
                return read_some(t, err);
        return 0;
}

static int stdio_receive(void *self, char **text, size_t *n, _unused_ long *status, uint64_t until, struct err **err)
{
        struct talk_stdio *t = self;

        for (;;) {
                int r;

                if (t->next < t->n_lines) {
                        *text = TAKE_PTR(t->lines[t->next]);
                        *n = t->sizes[t->next++];
                        if (t->next == t->n_lines)
                                t->next = t->n_lines = 0;
                        return 0;
                }
                if (t->ended && t->read_errno)
                        return err_sys(err, t->read_errno, "the stream to the server broke");
                if (t->ended)
                        return err_set(err, ERR_UNAVAILABLE,
                                       t->line.len > 0 || t->frames.left > 0 || t->frames.have > 0
                                               ? "the server ended in the middle of a message"
                                               : "the server ended (it closed its output)");
                r = pump(t, until, err);
                if (r != 0)
                        return r;
        }
}

struct talk_stdio *talk_stdio_new(int fd, size_t max_bytes, struct talk_io *io)
{
        struct talk_stdio *t = NEW(struct talk_stdio);

        t->fd = fd;
        t->max_bytes = max_bytes;
        *io = (struct talk_io){stdio_send, stdio_receive, t};
        return t;
}

struct talk_stdio *talk_stdio_free(struct talk_stdio *t)
{
        for (size_t i = t->next; i < t->n_lines; i++)
                free(t->lines[i]);
        free(t->lines);
        free(t->sizes);
        buf_deinit(&t->line);
        buf_deinit(&t->out);
        free(t);
        return NULL;
}
