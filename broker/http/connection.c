#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "broker/http/internal.h"

#define FLOOR_BYTES 4096U      /* a second: at least so fast a body must come in, and an answer be read */
#define MAX_DRAINED (4U << 20) /* bytes that a refused client may still send us for nothing */
/* All of it once and for all. EPOLLOUT is only told when a write had found no room before. */
#define EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* -- beginning and end ------------------------------------------------------------------------------------------------------- */

static int on_io(_unused_ sd_event_source *s, _unused_ int fd, uint32_t revents, void *user)
{
        struct conn *c = user;

        c->hung_up |= (revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        c->readable |= (revents & EPOLLIN) || c->hung_up;
        conn_work(c);
        return 0;
}

/* Connections as such are counted apart from streams, and from those that have had their answer. */
static void count(struct conn *c, unsigned by)
{
        if (c->state <= CONN_SENDING)
                c->front->counts.open_connections += by;
        else if (c->state == CONN_STREAMING)
                c->front->counts.open_streams += by;
}

void conn_set_state(struct conn *c, enum conn_state state)
{
        count(c, -1U);
        c->state = state;
        count(c, 1);
}

void conn_accepted(struct front *f, int fd, const struct sockaddr *address)
{
        struct conn *c = NEW(struct conn);

        *c = (struct conn){.front = f, .fd = fd, .next = f->conns, .peer = peers_add(&f->peers, address)};
        if (f->conns)
                f->conns->prev = c;
        f->conns = c;
        f->open++;
        count(c, 1);
        deadline_begin(&f->receiving, &c->deadline);
        if (sd_event_add_io(f->loop, &c->io, fd, EVENTS, on_io, c) < 0)
                conn_end(c);
}

static size_t *counter_of(const struct conn *c)
{
        return c->state == CONN_STREAMING ? &c->front->queued : &c->front->unsent;
}

void conn_end(struct conn *c)
{
        if (c->state == CONN_GONE)
                return;
        *counter_of(c) -= c->out.queued;
        output_clear(&c->out);
        conn_forget_half(c);
        conn_set_state(c, CONN_GONE);
        c->io = sd_event_source_disable_unref(c->io);
        close(c->fd);
        deadline_end(&c->deadline);
        conn_mark(c);
}

void conn_free(struct conn *c)
{
        struct front *f = c->front;

        if (c->prev)
                c->prev->next = c->next;
        else
                f->conns = c->next;
        if (c->next)
                c->next->prev = c->prev;
        peers_remove(&f->peers, c->peer);
        f->open--;
        buf_deinit(&c->in);
        free(c);
}

void conn_lose(struct conn *c)
{
        struct exchange *x = TAKE_PTR(c->x);

        conn_end(c);
        if (!x)
                return;
        x->conn = NULL;
        if (x->left)
                x->left(x, x->left_user);
        exchange_free(x);
}

/* -- closing, when the client may still be sending --------------------------------------------------------------------------- */

/* Closing with unread input would send a reset, which can overtake the answer. So we say that we are done, and wait for the client. */
static void drain(struct conn *c)
{
        struct front *f = c->front;
        ssize_t n;

        do {
                n = recv(c->fd, f->input, sizeof(f->input), MSG_DONTWAIT);
                if (n > 0)
                        c->received += (size_t)n;
        } while (n > 0 && c->received <= MAX_DRAINED);
        if (n >= 0 || errno != EAGAIN)
                conn_end(c);
}

void conn_close(struct conn *c)
{
        int unread = 0;

        if (!c->unread && c->in.len == 0 && (ioctl(c->fd, FIONREAD, &unread) < 0 || unread == 0)) {
                conn_end(c);
                return;
        }
        buf_deinit(&c->in);
        conn_set_state(c, CONN_DRAINING);
        deadline_begin(&c->front->draining, &c->deadline);
        c->received = 0;
        if (shutdown(c->fd, SHUT_WR) < 0)
                conn_end(c);
        else
                conn_mark(c);
}

/* -- what is to be done ------------------------------------------------------------------------------------------------------ */

void conn_mark(struct conn *c)
{
        struct front *f = c->front;

        if (c->dirty)
                return;
        c->dirty = true;
        c->next_dirty = NULL;
        *f->dirty_end = c;
        f->dirty_end = &c->next_dirty;
        (void)sd_event_source_set_enabled(f->rerun, SD_EVENT_ONESHOT);
}

int conn_write(struct conn *c)
{
        size_t before = c->out.queued;
        int r = output_write(&c->out, c->fd);

        *counter_of(c) -= before - c->out.queued;
        c->stalled &= before == c->out.queued;
        return r;
}

void conn_work(struct conn *c)
{
        switch (c->state) {
        case CONN_READING:
        case CONN_BODY:
                conn_read(c);
                break;
        case CONN_WAITING:
                if (c->hung_up)
                        conn_lose(c);
                break;
        case CONN_SENDING:
                conn_send_on(c);
                break;
        case CONN_STREAMING:
                stream_work(c);
                break;
        case CONN_DRAINING:
                drain(c);
                break;
        case CONN_GONE:
                break;
        }
        if (c->state == CONN_GONE && !c->dirty)
                conn_free(c);
}

/* -- deadlines --------------------------------------------------------------------------------------------------------------- */

/* Did at least as many bytes go by as the floor asks for? Then there is another period. */
static bool moved_on(struct conn *c, struct deadlines *list, uint64_t bytes)
{
        uint64_t wanted = FLOOR_BYTES * (list->period_us / 1000) / 1000;

        if (bytes < c->progress + MAX(wanted, 1U))
                return false;
        c->progress = bytes;
        deadline_begin(list, &c->deadline);
        return true;
}

#define conn_with(d) ((struct conn *)(void *)((char *)(d)-offsetof(struct conn, deadline)))

/* An empty line behind the last request, which some clients send, begins none: nobody waits for an answer. */
static bool has_begun(const struct conn *c)
{
        return c->state == CONN_BODY || (c->head && (c->head->begun || c->in.len > c->head->line));
}

void conn_receive_over(struct front *f, struct deadline *d)
{
        struct conn *c = conn_with(d);

        if (c->state == CONN_BODY && moved_on(c, &f->receiving, c->received))
                return;
        f->counts.dropped_slow++;
        if (has_begun(c))
                conn_refuse(c, REFUSE_SLOW);
        else
                conn_end(c);
}

/* What the kernel took from us says little: it takes megabytes at once, and then nothing for minutes. */
static uint64_t bytes_acknowledged(const struct conn *c)
{
        struct tcp_info info = {0};
        socklen_t n = sizeof(info);

        (void)getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n);
        return info.tcpi_bytes_acked;
}

void conn_send_over(struct front *f, struct deadline *d)
{
        struct conn *c = conn_with(d);

        if (moved_on(c, &f->sending, bytes_acknowledged(c)))
                return;
        f->counts.dropped_slow++;
        conn_end(c);
}

void conn_idle_over(_unused_ struct front *f, struct deadline *d)
{
        conn_end(conn_with(d));
}

void conn_drain_over(_unused_ struct front *f, struct deadline *d)
{
        conn_end(conn_with(d));
}
