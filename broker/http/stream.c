#include <stdio.h>

#include "broker/http/internal.h"

#define FLUSH_AT (256U << 10) /* bytes: so much is not collected further before it is written */

/* -- writing ----------------------------------------------------------------------------------------------------------------- */

static void queue_text(struct conn *c, const void *text, size_t n)
{
        output_text(&c->out, text, n);
        c->front->queued += n;
}

static void queue_whole(struct conn *c, struct buf *bytes)
{
        c->front->queued += bytes->len;
        output_whole(&c->out, bytes, 0);
}

/* left() is not called from inside what the callee calls. */
static void fail_soon(struct conn *c)
{
        c->failed = true;
        conn_mark(c);
}

void stream_work(struct conn *c)
{
        if (!c->failed && (c->ended || !c->hung_up))
                c->failed = conn_write(c) < 0;
        if (c->failed || (c->hung_up && (!c->ended || c->out.first)))
                conn_lose(c);
        else if (c->ended && !c->out.first)
                conn_close(c);
}

/* -- beginning and end ------------------------------------------------------------------------------------------------------- */

void exchange_stream(struct exchange *x)
{
        struct conn *c = x->conn;
        struct front *f = x->front;
        _cleanup_buf_ struct buf head = {0};

        x->is_stream = true;
        f->counts.open_exchanges--;
        conn_set_state(c, CONN_STREAMING);
        /* Its end is also the connection's: what else came on it was read by nobody, and goes with it. */
        buf_addf(&head,
                 "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n"
                 "X-Accel-Buffering: no\r\nConnection: close\r\n",
                 front_date(f));
        buf_add(&head, x->headers.data, x->headers.len);
        buf_adds(&head, c->http10 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
        buf_deinit(&x->headers);
        queue_text(c, head.data, head.len);
        conn_mark(c);
        deadline_begin(&f->streaming, &c->deadline);
}

/*
 * Many streams have less for each than they may have alone. Who has most loses its stream, not who comes last; what waits for it is gone at
 * once, left() comes later.
 */
static void make_room(struct front *f, const struct conn *newest)
{
        while (f->queued > MAX_QUEUES * f->limits.max_queued) {
                struct conn *worst = NULL;

                for (struct conn *c = f->conns; c; c = c->next)
                        if (c->state == CONN_STREAMING && c != newest && c->out.queued > (worst ? worst->out.queued : 0))
                                worst = c;
                if (!worst)
                        return;
                f->counts.dropped_slow++;
                f->queued -= worst->out.queued;
                output_clear(&worst->out);
                fail_soon(worst);
        }
}

static void send_event(struct conn *c, struct buf *event)
{
        char size[24];

        /* Only one that has taken everything begins a new period: events alone are no sign of a client. */
        if (!c->out.first)
                deadline_begin(&c->front->streaming, &c->deadline);
        if (!c->http10)
                queue_text(c, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", event->len));
        if (event->len < OUTPUT_COPY_BELOW) {
                queue_text(c, event->data, event->len);
                buf_deinit(event);
        } else {
                queue_whole(c, event);
        }
        if (!c->http10)
                queue_text(c, "\r\n", 2);
        conn_mark(c);
        if (c->out.queued > FLUSH_AT && conn_write(c) < 0)
                c->failed = true;
        make_room(c->front, c);
}

void exchange_send(struct exchange *x, struct buf *event)
{
        struct conn *c = x->conn;

        if (c->failed || event->len == 0) {
                buf_deinit(event);
        } else if (c->out.queued > c->front->limits.max_queued) { /* one event may be longer than that */
                buf_deinit(event);
                x->front->counts.dropped_slow++;
                fail_soon(c);
        } else {
                send_event(c, event);
        }
}

void exchange_end(struct exchange *x)
{
        struct conn *c = x->conn;

        c->ended = true;
        if (!c->http10 && !c->failed)
                queue_text(c, "0\r\n\r\n", 5);
        c->x = NULL;
        exchange_free(x);
        conn_mark(c);
}

void stream_silence_over(struct front *f, struct deadline *d)
{
        struct conn *c = (struct conn *)(void *)((char *)d - offsetof(struct conn, deadline));

        deadline_begin(&f->streaming, d);
        if (c->stalled && c->out.first) {
                f->counts.dropped_slow++;
                fail_soon(c);
        } else if (c->out.first) {
                c->stalled = true;
        } else if (!c->ended) {
                struct buf comment = {0};

                buf_adds(&comment, ":\n\n");
                send_event(c, &comment);
        }
}
