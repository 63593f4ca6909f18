#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "broker/http/internal.h"

/* Told once: sd-event asks for all that is ready before each callback, and when many clients leave at once, that must not be all of them.
 */
#define LEFT       (EPOLLRDHUP | EPOLLET)
#define COPY_BELOW (16U << 10) /* shorter events are put behind each other, longer ones go out from where they are */
#define MAX_IOV    16
#define MAX_QUEUES 8U           /* times max_queued: of all streams together */
#define FLUSH_AT   (256U << 10) /* so much is not collected further before it is written */

/* -- the queue --------------------------------------------------------------------------------------------------------------- */

static struct piece *new_piece(struct stream *s)
{
        struct piece *p = NEW(struct piece);

        if (s->last)
                s->last->next = p;
        else
                s->first = p;
        s->last = p;
        return p;
}

static void count_queued(struct stream *s, size_t n)
{
        s->queued += n;
        s->x->front->queued += n;
}

static void queue_text(struct stream *s, const void *text, size_t n)
{
        struct piece *p = s->last && s->last->bytes.len < COPY_BELOW ? s->last : new_piece(s);

        buf_add(&p->bytes, text, n);
        count_queued(s, n);
}

/* Takes what is in bytes. */
static void queue_whole(struct stream *s, struct buf *bytes)
{
        struct piece *p = new_piece(s);

        p->bytes = *bytes;
        count_queued(s, bytes->len);
        *bytes = (struct buf){0};
}

static void free_first(struct stream *s)
{
        struct piece *p = s->first;

        s->first = p->next;
        if (!s->first)
                s->last = NULL;
        s->sent = 0;
        buf_deinit(&p->bytes);
        free(p);
}

static void mark_sent(struct stream *s, size_t n)
{
        s->queued -= n;
        s->x->front->queued -= n;
        s->stalled = false;
        while (s->first && n >= s->first->bytes.len - s->sent) {
                n -= s->first->bytes.len - s->sent;
                free_first(s);
        }
        s->sent += n;
}

static void mark_dirty(struct exchange *x)
{
        struct stream *s = x->stream;

        if (s->dirty)
                return;
        s->dirty = true;
        s->next_dirty = x->front->dirty;
        x->front->dirty = x;
        front_rerun(x->front);
}

/* left() is not called from inside what the callee calls. */
static void fail_soon(struct exchange *x)
{
        x->stream->failed = true;
        mark_dirty(x);
}

/* -- writing ----------------------------------------------------------------------------------------------------------------- */

static void watch(struct exchange *x, uint32_t events)
{
        if (x->stream->events == events)
                return;
        x->stream->events = events;
        if (sd_event_source_set_io_events(x->stream->io, events) < 0)
                fail_soon(x);
}

/* Until all is written or the socket is full. */
static void write_pieces(struct exchange *x)
{
        struct stream *s = x->stream;
        struct iovec iov[MAX_IOV];

        while (s->first && !s->failed) {
                struct msghdr m = {.msg_iov = iov};

                for (struct piece *p = s->first; p && m.msg_iovlen < MAX_IOV; p = p->next) {
                        size_t skip = p == s->first ? s->sent : 0;
                        iov[m.msg_iovlen++] = (struct iovec){p->bytes.data + skip, p->bytes.len - skip};
                }
                ssize_t n = sendmsg(s->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n >= 0) {
                        mark_sent(s, (size_t)n);
                        continue;
                }
                if (errno == EAGAIN)
                        break;
                if (errno != EINTR)
                        fail_soon(x);
        }
        if (!s->failed)
                watch(x, s->first ? LEFT | EPOLLOUT : LEFT);
}

/* All is sent, and no more comes. The socket is closed at once, unless the client is still saying something nobody asked for. */
static void finish(struct exchange *x)
{
        struct stream *s = x->stream;
        int unread = 0;

        if (ioctl(s->fd, FIONREAD, &unread) == 0 && unread > 0)
                drain_begin(x->front, TAKE_FD(s->fd), TAKE_PTR(s->peer));
        exchange_free(x);
}

void streams_flush(struct front *f)
{
        /* What left() does may make others dirty, or free some: each is taken off before it is looked at. */
        while (f->dirty) {
                struct exchange *x = f->dirty;
                struct stream *s = x->stream;

                f->dirty = s->next_dirty;
                s->dirty = false;
                if (!s->failed)
                        write_pieces(x);
                if (s->failed && !s->ended)
                        exchange_lost(x);
                else if (s->failed || (s->ended && !s->first))
                        finish(x);
        }
}

static int on_event(_unused_ sd_event_source *source, _unused_ int fd, uint32_t revents, void *user)
{
        struct exchange *x = user;

        if (revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                x->stream->failed = true;
        mark_dirty(x);
        streams_flush(x->front);
        return 0;
}

/* -- beginning and end ------------------------------------------------------------------------------------------------------- */

static void queue_head(struct exchange *x)
{
        _cleanup_buf_ struct buf head = {0};
        char date[40];
        time_t now = time(NULL);
        struct tm tm;

        gmtime_r(&now, &tm);
        if (strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm) == 0)
                date[0] = '\0';
        /* Its end is the connection's: what else came on it was read by nobody, and goes with it. */
        buf_addf(&head,
                 "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n"
                 "X-Accel-Buffering: no\r\nConnection: close\r\n",
                 date);
        for (const struct answer_header *h = x->answer_headers; h; h = h->next)
                buf_addf(&head, "%s: %s\r\n", h->name, h->value);
        buf_adds(&head, x->http10 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
        queue_text(x->stream, head.data, head.len);
}

void exchange_stream(struct exchange *x)
{
        struct front *f = x->front;
        struct conn *c = TAKE_PTR(x->conn);
        struct stream *s = NEW(struct stream);

        *s = (struct stream){.x = x, .fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0), .events = LEFT, .next = f->streams};
        s->peer = TAKE_PTR(c->peer);
        x->stream = s;
        if (f->streams)
                f->streams->stream->prev = x;
        f->streams = x;
        f->open++;
        f->counts.open_streams++;
        f->counts.open_exchanges--;
        c->x = NULL;
        conn_end(c);
        queue_head(x);
        if (s->fd < 0 || sd_event_add_io(f->loop, &s->io, s->fd, s->events, on_event, x) < 0)
                s->failed = true;
        mark_dirty(x);
        deadline_begin(&f->streaming, &s->silence);
}

/* One event may be longer than the bound; but a client that has not read so much before gets no more. Many have less for each. */
static bool reads_too_little(const struct stream *s)
{
        const struct front *f = s->x->front;

        return s->queued > f->limits.max_queued || (s->queued > FLUSH_AT && f->queued > MAX_QUEUES * f->limits.max_queued);
}

void exchange_send(struct exchange *x, struct buf *event)
{
        struct stream *s = x->stream;
        char size[24];

        if (s->failed || event->len == 0) {
                buf_deinit(event);
                return;
        }
        if (reads_too_little(s)) {
                buf_deinit(event);
                x->front->counts.dropped_slow++;
                fail_soon(x);
                return;
        }
        if (!x->http10)
                queue_text(s, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", event->len));
        if (event->len < COPY_BELOW) {
                queue_text(s, event->data, event->len);
                buf_deinit(event);
        } else {
                queue_whole(s, event);
        }
        if (!x->http10)
                queue_text(s, "\r\n", 2);
        deadline_begin(&x->front->streaming, &s->silence);
        mark_dirty(x);
        if (s->queued > FLUSH_AT)
                write_pieces(x);
}

void exchange_end(struct exchange *x)
{
        x->left = NULL;
        x->stream->ended = true;
        if (!x->http10 && !x->stream->failed)
                queue_text(x->stream, "0\r\n\r\n", 5);
        mark_dirty(x);
}

void stream_silence_over(struct front *f, struct deadline *d)
{
        struct stream *s = (struct stream *)(void *)((char *)d - offsetof(struct stream, silence));

        deadline_begin(&f->streaming, d);
        if (s->stalled && s->first) {
                f->counts.dropped_slow++;
                fail_soon(s->x);
        } else if (s->first) {
                s->stalled = true;
        } else if (!s->ended) {
                struct buf comment = {0};

                buf_adds(&comment, ":\n\n");
                exchange_send(s->x, &comment);
        }
}

static void undirty(struct exchange *x)
{
        struct exchange **at = &x->front->dirty;

        while (*at != x)
                at = &(*at)->stream->next_dirty;
        *at = x->stream->next_dirty;
}

void stream_free(struct exchange *x)
{
        struct stream *s = x->stream;
        struct front *f = x->front;

        if (s->dirty)
                undirty(x);
        sd_event_source_disable_unref(s->io);
        deadline_end(&s->silence);
        f->queued -= s->queued;
        while (s->first)
                free_first(s);
        if (s->fd >= 0)
                close(s->fd);
        if (s->prev)
                s->prev->stream->next = s->next;
        else
                f->streams = s->next;
        if (s->next)
                s->next->stream->prev = s->prev;
        peers_remove(&f->peers, s->peer);
        f->open--;
        f->counts.open_streams--;
        free(s);
        x->stream = NULL;
}
