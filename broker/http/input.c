#include <errno.h>

#include "broker/http/internal.h"

#define MAX_ROUNDS 16U         /* requests and reads of one connection in a row, before others have their turn */
#define BODY_STEP  (64U << 10) /* bytes of memory for a body that is announced, before they are here */
#define MAX_HALF   4096U       /* connections of which the half of a head is here: nobody knows yet who they are */

/* -- a request, step by step ------------------------------------------------------------------------------------------------- */

static void hand_over(struct conn *c)
{
        conn_set_state(c, CONN_WAITING);
        deadline_end(&c->deadline);
        c->front->request(c->x, c->front->user);
        /* What was told before is not told again. */
        if (c->state == CONN_WAITING && c->hung_up)
                conn_lose(c);
}

static void say_continue(struct conn *c)
{
        static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
        ssize_t n = send(c->fd, interim, sizeof(interim) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);

        /* In part: the client does not read, and what followed would make no sense. */
        if (n > 0 && n < (ssize_t)sizeof(interim) - 1)
                conn_lose(c);
}

/* All is right with the head. at_once: something of the body came with it. */
static void await_body(struct conn *c, bool at_once)
{
        struct exchange *x = c->x;

        if (x->framing != HTTP_CHUNKED && x->body_left == 0) {
                hand_over(c);
                return;
        }
        conn_set_state(c, CONN_BODY);
        c->progress = c->received;
        deadline_begin(&c->front->receiving, &c->deadline);
        if (!at_once && !c->http10 && http_head_lists(&x->head, x->text, HTTP_EXPECT, "100-continue"))
                say_continue(c);
}

static void begin(struct conn *c, const struct http_head *head, const char *bytes, bool more)
{
        bool delimited;
        enum refusal_reason reason;
        struct exchange *x = exchange_new(c, head, bytes);

        c->x = x;
        c->http10 = head->minor == 0;
        c->head_only = str_eq(x->method, "HEAD");
        c->keep = http_head_persists(&x->head, x->text);
        if (request_judge(x, &delimited, &reason) == 0) {
                await_body(c, more);
                return;
        }
        /* Without a body the connection lives on; one is not awaited. */
        if (!delimited || x->framing == HTTP_CHUNKED || x->body_left > 0) {
                c->keep = false;
                c->unread = true;
        }
        conn_refuse(c, reason);
}

/* Most heads come whole. Those that do not are kept, up to a bound that leaves alone all others. */
static bool keep_half(struct conn *c, const struct http_head *head)
{
        struct front *f = c->front;

        if (!c->head) {
                if (f->n_half >= MIN(MAX_HALF, f->limits.max_connections / 2 + 1))
                        return false;
                c->head = mem_dup(head, sizeof(*head));
                f->n_half++;
        }
        if (c->deadline.list != &f->receiving)
                deadline_begin(&f->receiving, &c->deadline);
        return true;
}

void conn_forget_half(struct conn *c)
{
        if (!c->head)
                return;
        free(TAKE_PTR(c->head));
        c->front->n_half--;
}

/* How many bytes were used: all or none of a head. */
static size_t take_head(struct conn *c, const char *bytes, size_t n)
{
        struct front *f = c->front;
        struct http_head *head = c->head ? c->head : &f->head;
        enum http_fault fault = HTTP_FAULT_NONE;

        if (!c->head)
                http_head_init(head, HTTP_REQUEST, f->limits.max_header);
        int r = http_head_read(head, bytes, n, &fault);
        if (r == 0) {
                if (keep_half(c, head))
                        return 0;
                conn_refuse(c, REFUSE_BUSY);
                return n;
        }
        f->counts.requests++;
        if (r < 0) {
                conn_refuse(c, request_fault(fault));
                return n;
        }
        size_t used = head->size;
        begin(c, head, bytes, n > used);
        conn_forget_half(c);
        return used;
}

/*
 * Bodies that are not whole have a bound for all of them together. Who has had most room loses it, not who comes last: else a few that send
 * theirs slowly would lock out all others.
 */
static bool make_room(struct conn *c, size_t n)
{
        struct front *f = c->front;

        while (f->buffered + n > MAX_AT_ONCE * f->limits.max_body) {
                struct conn *worst = c;

                for (struct conn *other = f->conns; other; other = other->next)
                        if (other->state == CONN_BODY && other->x->charged > worst->x->charged)
                                worst = other;
                conn_refuse(worst, REFUSE_BUSY);
                if (worst == c)
                        return false;
        }
        return true;
}

/* Has a body room for n more bytes? If not it is refused. */
static bool has_room(struct conn *c, size_t n)
{
        if (n <= c->front->limits.max_body - c->x->body.len)
                return make_room(c, n);
        conn_refuse(c, REFUSE_BODY_SIZE);
        return false;
}

static void charge(struct exchange *x, size_t n)
{
        x->front->buffered += n;
        x->charged += n;
}

static size_t take_chunked(struct conn *c, const char *bytes, size_t n)
{
        struct exchange *x = c->x;
        enum http_fault fault = HTTP_FAULT_NONE;
        const char *data = NULL;
        size_t used = 0, data_n = 0;
        int r = http_chunked_read(&x->chunked, bytes, n, &used, &data, &data_n, &fault);

        if (r < 0) {
                conn_refuse(c, request_fault(fault));
        } else if (r == HTTP_CHUNKED_END) {
                hand_over(c);
        } else if (r == HTTP_CHUNKED_DATA && has_room(c, data_n)) {
                buf_add(&x->body, data, data_n);
                charge(x, data_n);
        }
        return used;
}

static size_t take_sized(struct conn *c, const char *bytes, size_t n)
{
        struct exchange *x = c->x;
        size_t data_n = (size_t)MIN((uint64_t)n, x->body_left);

        if (!has_room(c, data_n))
                return data_n;
        buf_add(&x->body, bytes, data_n);
        charge(x, data_n);
        x->body_left -= data_n;
        if (x->body_left == 0)
                hand_over(c);
        return data_n;
}

/* Takes what belongs to one request; says how much. */
static size_t take(struct conn *c, const char *bytes, size_t n)
{
        size_t used = 0;

        if (c->state == CONN_READING)
                used = take_head(c, bytes, n);
        while (c->state == CONN_BODY && used < n)
                used += c->x->framing == HTTP_CHUNKED ? take_chunked(c, bytes + used, n - used) : take_sized(c, bytes + used, n - used);
        return used;
}

/* -- reading ----------------------------------------------------------------------------------------------------------------- */

/* The client has ended, or the connection is broken: what it has begun to ask is not answered. */
static bool on_end(struct conn *c)
{
        if (c->state == CONN_BODY || c->head)
                c->front->counts.refused++;
        if (c->x)
                exchange_free(TAKE_PTR(c->x));
        conn_end(c);
        return false;
}

/* Bytes read: a short read has emptied the socket, and epoll tells when there is more. */
static bool on_bytes(struct conn *c, ssize_t n, size_t room)
{
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                c->readable = errno == EINTR;
                return false;
        }
        if (n <= 0)
                return on_end(c);
        c->readable = (size_t)n == room || c->hung_up;
        c->received += (size_t)n;
        return true;
}

/* Straight to where it belongs. */
static void read_body(struct conn *c)
{
        struct exchange *x = c->x;
        size_t room = (size_t)MIN(x->body_left, MAX((uint64_t)BODY_STEP, x->body.len));

        buf_reserve(&x->body, room);
        ssize_t n = recv(c->fd, x->body.data + x->body.len, room, MSG_DONTWAIT);
        if (!on_bytes(c, n, room) || !has_room(c, (size_t)n))
                return;
        x->body.len += (size_t)n;
        x->body.data[x->body.len] = '\0';
        charge(x, (size_t)n);
        x->body_left -= (size_t)n;
        if (x->body_left == 0)
                hand_over(c);
}

/* Nothing is kept of a connection: what was read is used where it is, and mostly nothing is left of it. */
static void read_fresh(struct conn *c)
{
        struct front *f = c->front;
        ssize_t n = recv(c->fd, f->input, sizeof(f->input), MSG_DONTWAIT);

        if (!on_bytes(c, n, sizeof(f->input)))
                return;
        size_t used = take(c, f->input, (size_t)n);
        c->unread |= used < (size_t)n && c->state >= CONN_STREAMING;
        if (used < (size_t)n && c->state < CONN_STREAMING)
                buf_add(&c->in, f->input + used, (size_t)n - used);
}

static void use_kept(struct conn *c)
{
        struct buf in = c->in;

        c->in = (struct buf){0};
        size_t used = take(c, in.data, in.len);
        c->unread |= used < in.len && c->state >= CONN_STREAMING;
        if (used < in.len && c->state < CONN_STREAMING) {
                buf_drop(&in, used);
                c->in = in;
        } else {
                buf_deinit(&in);
        }
}

/* Memory only for what came: thousands may have sent the half of a head. */
static void read_more(struct conn *c)
{
        struct front *f = c->front;
        ssize_t n = recv(c->fd, f->input, sizeof(f->input), MSG_DONTWAIT);

        if (!on_bytes(c, n, sizeof(f->input)))
                return;
        buf_add(&c->in, f->input, (size_t)n);
        use_kept(c);
}

void conn_read(struct conn *c)
{
        c->busy = true;
        for (unsigned i = 0; !c->front->closing && (c->state == CONN_READING || c->state == CONN_BODY); i++) {
                bool kept = c->in.len > 0 && !c->head;

                if (!kept && !c->readable)
                        break;
                if (i == MAX_ROUNDS) {
                        conn_mark(c);
                        break;
                }
                if (kept)
                        use_kept(c);
                else if (c->head)
                        read_more(c);
                else if (c->state == CONN_BODY && c->x->framing == HTTP_SIZED)
                        read_body(c);
                else
                        read_fresh(c);
        }
        c->busy = false;
}
