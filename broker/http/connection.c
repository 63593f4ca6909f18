#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "broker/http/internal.h"

#define FLOOR_BYTES     4096U /* a second: at least so fast a body must come in, and an answer be read */
#define HANGUP          (EPOLLRDHUP | EPOLLET)
#define TCP_ESTABLISHED 1 /* <netinet/tcp.h> has the name, and an older struct tcp_info */

/* -- beginning and end ------------------------------------------------------------------------------------------------------- */

struct conn *conn_of(struct MHD_Connection *mhd)
{
        return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/*
 * libmicrohttpd takes a short read for the end of what there is, and then does not hear of an end that came together with the last bytes:
 * its epoll has told that before. Shutting our side down tells it again.
 */
void conn_nudge(struct conn *c)
{
        (void)shutdown(c->fd, SHUT_RD);
}

static int on_hangup(sd_event_source *s, _unused_ int fd, _unused_ uint32_t revents, void *user)
{
        struct conn *c = user;
        int unread = 0;

        c->hung_up = true;
        if (c->state == CONN_WAITING) {
                struct exchange *x = TAKE_PTR(c->x);

                conn_end(c);
                exchange_lost(x);
        } else if (c->state != CONN_ANSWERING) {
                conn_nudge(c);
                /* It has not even read what came before the end: once more after that. */
                if (ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0)
                        (void)sd_event_source_set_io_events(s, HANGUP);
        }
        return 0;
}

struct conn *conn_opened(struct front *f, struct MHD_Connection *mhd)
{
        struct conn *c = NEW(struct conn);

        *c = (struct conn){.front = f,
                           .mhd = mhd,
                           .fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
                           .next = f->conns,
                           .peer = peers_add(&f->peers, MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr)};
        if (f->conns)
                f->conns->prev = c;
        f->conns = c;
        f->open++;
        f->counts.open_connections++;
        /* Once for the whole connection, and silent while the client stays: a request costs nothing here. */
        if (sd_event_add_io(f->loop, &c->hangup, c->fd, HANGUP, on_hangup, c) < 0)
                c->hangup = NULL;
        deadline_begin(&f->receiving, &c->deadline);
        return c;
}

static struct tcp_info tcp_info_of(const struct conn *c)
{
        struct tcp_info info = {0};
        socklen_t n = sizeof(info);

        (void)getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n);
        return info;
}

/* Past libmicrohttpd, when nothing else of this connection's is on its way. */
static void write_refusal(const struct conn *c, enum refusal_reason reason)
{
        const struct refusal *r = refusal_of(reason);
        _cleanup_buf_ struct buf b = {0};

        buf_addf(&b, "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n", r->status,
                 MHD_get_reason_phrase_for(r->status), strlen(r->body));
        if (r->header)
                buf_addf(&b, "%s: %s\r\n", r->header, r->content);
        buf_addf(&b, "\r\n%s", r->body);
        (void)!send(c->fd, b.data, b.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* libmicrohttpd closes a connection whose first line is no request without a word. */
static void explain_silence(struct conn *c)
{
        struct tcp_info info = tcp_info_of(c);

        if (info.tcpi_state != TCP_ESTABLISHED || info.tcpi_bytes_received == 0)
                return;
        write_refusal(c, REFUSE_MALFORMED);
        c->front->counts.refused++;
        c->drain = true;
}

void conn_closed(struct conn *c)
{
        struct front *f = c->front;
        struct exchange *x = TAKE_PTR(c->x);
        int fd = -1;

        if (c->state == CONN_NEW && !f->closing)
                explain_silence(c);
        c->state = CONN_GONE;
        c->hangup = sd_event_source_disable_unref(c->hangup);
        deadline_end(&c->deadline);
        if (c->drain && !f->closing && (fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0)) >= 0)
                drain_begin(f, fd, TAKE_PTR(c->peer));
        if (c->prev)
                c->prev->next = c->next;
        else
                f->conns = c->next;
        if (c->next)
                c->next->prev = c->prev;
        peers_remove(&f->peers, c->peer);
        f->open--;
        f->counts.open_connections--;
        free(c->challenge);
        free(c);
        if (x)
                exchange_lost(x);
}

/* -- answers ----------------------------------------------------------------------------------------------------------------- */

/* Only a suspended connection needs this; any other is in libmicrohttpd's hands at this moment. */
static void resume(struct conn *c)
{
        if (!c->suspended)
                return;
        c->suspended = false;
        MHD_resume_connection(c->mhd);
        front_flush(c->front);
}

void conn_answer(struct conn *c, unsigned status, struct MHD_Response *response)
{
        c->state = CONN_ANSWERING;
        if (MHD_queue_response(c->mhd, status, response) != MHD_YES)
                c->state = CONN_GONE;
        MHD_destroy_response(response);
        c->progress = 0;
        deadline_begin(&c->front->sending, &c->deadline);
        resume(c);
}

void conn_end(struct conn *c)
{
        c->state = CONN_GONE;
        if (c->suspended)
                resume(c);
        else if (!c->in_handler)
                (void)shutdown(c->fd, SHUT_RDWR);
}

void conn_refuse_late(struct conn *c, enum refusal_reason reason)
{
        write_refusal(c, reason);
        c->front->counts.refused++;
        c->drain = true;
        c->state = CONN_GONE;
        /* Ends its reading: it sees a client that left. The handler tells it by what it returns. */
        if (!c->in_handler)
                (void)shutdown(c->fd, SHUT_RD);
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

void conn_receive_over(struct front *f, struct deadline *d)
{
        struct conn *c = conn_with(d);
        struct tcp_info info = tcp_info_of(c);

        if (c->state == CONN_BODY && moved_on(c, &f->receiving, info.tcpi_bytes_received))
                return;
        f->counts.dropped_slow++;
        if (c->state == CONN_NEW && info.tcpi_bytes_received == 0)
                conn_end(c); /* has never said a word */
        else
                conn_refuse_late(c, REFUSE_SLOW);
}

void conn_send_over(struct front *f, struct deadline *d)
{
        struct conn *c = conn_with(d);

        if (moved_on(c, &f->sending, tcp_info_of(c).tcpi_bytes_acked))
                return;
        f->counts.dropped_slow++;
        conn_end(c);
}

void conn_idle_over(_unused_ struct front *f, struct deadline *d)
{
        conn_end(conn_with(d));
}
