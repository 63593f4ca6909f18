#include <errno.h>
#include <sys/uio.h>

#include "broker/http/internal.h"

/* -- the head ---------------------------------------------------------------------------------------------------------------- */

static const char *reason_of(unsigned status)
{
        static const struct {
                unsigned status;
                const char *reason;
        } reasons[] = {
                {200, "OK"},
                {202, "Accepted"},
                {204, "No Content"},
                {400, "Bad Request"},
                {401, "Unauthorized"},
                {403, "Forbidden"},
                {404, "Not Found"},
                {405, "Method Not Allowed"},
                {406, "Not Acceptable"},
                {408, "Request Timeout"},
                {409, "Conflict"},
                {413, "Content Too Large"},
                {414, "URI Too Long"},
                {415, "Unsupported Media Type"},
                {422, "Unprocessable Content"},
                {429, "Too Many Requests"},
                {431, "Request Header Fields Too Large"},
                {500, "Internal Server Error"},
                {501, "Not Implemented"},
                {502, "Bad Gateway"},
                {503, "Service Unavailable"},
                {504, "Gateway Timeout"},
                {505, "HTTP Version Not Supported"},
        };

        for (size_t i = 0; i < ELEMENTSOF(reasons); i++)
                if (reasons[i].status == status)
                        return reasons[i].reason;
        return "";
}

static void add_number(struct buf *b, size_t n)
{
        char digits[24];
        size_t at = sizeof(digits);

        do
                digits[--at] = (char)('0' + n % 10);
        while (n /= 10);
        buf_add(b, digits + at, sizeof(digits) - at);
}

static void add_line(struct buf *b, const char *name, const char *value)
{
        buf_adds(b, name);
        buf_adds(b, value);
        buf_add(b, "\r\n", 2);
}

#define JSON "application/json"

/* Status line, date and type. Nearly all answers of a second begin alike, and the last one is still there. */
static void begin_head(struct front *f, unsigned status, const char *content_type)
{
        struct buf *b = &f->answer;
        bool usual = status == 200 && str_eq(content_type, JSON);
        const char *date = front_date(f);

        if (usual && f->usual_n > 0) {
                b->len = f->usual_n;
                return;
        }
        b->len = f->usual_n = 0;
        buf_adds(b, "HTTP/1.1 ");
        add_number(b, status);
        buf_addc(b, ' ');
        add_line(b, reason_of(status), "");
        add_line(b, "Date: ", date);
        if (content_type)
                add_line(b, "Content-Type: ", content_type);
        if (usual)
                f->usual_n = b->len;
}

/* In memory that is used again and again. */
static struct buf *make_head(struct conn *c, unsigned status, const char *content_type, const struct buf *headers, size_t length)
{
        struct buf *b = &c->front->answer;

        begin_head(c->front, status, content_type);
        if (status != 204) {
                buf_adds(b, "Content-Length: ");
                add_number(b, length);
                buf_add(b, "\r\n", 2);
        }
        if (!c->keep)
                buf_adds(b, "Connection: close\r\n");
        else if (c->http10)
                buf_adds(b, "Connection: keep-alive\r\n");
        if (headers)
                buf_add(b, headers->data, headers->len);
        buf_add(b, "\r\n", 2);
        return b;
}

/* -- sending ----------------------------------------------------------------------------------------------------------------- */

/* All of it is on its way. */
static void on_answered(struct conn *c)
{
        if (!c->keep) {
                conn_close(c);
                return;
        }
        conn_set_state(c, CONN_READING);
        deadline_begin(&c->front->idle, &c->deadline);
        if (!c->busy && (c->readable || c->in.len > 0))
                conn_mark(c);
}

void conn_send_on(struct conn *c)
{
        int r = conn_write(c);

        if (r < 0) {
                conn_end(c);
        } else if (r == 0) {
                on_answered(c);
                if (c->state == CONN_READING)
                        conn_read(c);
        }
}

/*
 * Clients that read nothing may each have one answer here, and all of them together have a bound. Who has most left loses its answer, not
 * who comes last: else a few that do not read would lock out all others.
 */
static void make_room(struct front *f, const struct conn *newest)
{
        while (f->unsent > MAX_AT_ONCE * f->limits.max_body) {
                struct conn *worst = NULL;

                for (struct conn *c = f->conns; c; c = c->next)
                        if (c->state == CONN_SENDING && c != newest && (!worst || c->out.queued > worst->out.queued))
                                worst = c;
                if (!worst)
                        return;
                f->counts.dropped_slow++;
                conn_end(worst);
        }
}

static void send_later(struct conn *c, const struct buf *head, struct buf *body, size_t sent)
{
        struct front *f = c->front;

        conn_set_state(c, CONN_SENDING);
        if (sent < head->len)
                output_text(&c->out, head->data + sent, head->len - sent);
        if (body->len > 0)
                output_whole(&c->out, body, sent > head->len ? sent - head->len : 0);
        f->unsent += c->out.queued;
        c->progress = 0;
        deadline_begin(&f->sending, &c->deadline);
        make_room(f, c);
        /* So that the kernel knows that we wait. */
        int r = conn_write(c);
        if (r < 0)
                conn_end(c);
        else if (r == 0)
                on_answered(c);
}

static void send_all(struct conn *c, const struct buf *head, struct buf *body)
{
        struct iovec iov[2] = {{head->data, head->len}, {body->data, body->len}};
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = body->len > 0 ? 2 : 1};
        ssize_t n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n == (ssize_t)(head->len + body->len))
                on_answered(c);
        else if (n >= 0 || errno == EAGAIN || errno == EINTR)
                send_later(c, head, body, n > 0 ? (size_t)n : 0);
        else
                conn_end(c);
}

void conn_answer(struct conn *c, unsigned status, const char *content_type, const struct buf *headers, struct buf *body)
{
        _cleanup_buf_ struct buf b = *body;

        *body = (struct buf){0};
        const struct buf *head = make_head(c, status, content_type, headers, b.len);
        if (c->head_only)
                b.len = 0;
        send_all(c, head, &b);
}

/* A listener can have many names; Host is the one under which this client will find what it is told of. */
static void add_challenge(struct buf *headers, const struct exchange *x)
{
        buf_addf(headers, "WWW-Authenticate: Bearer resource_metadata=\"http://%s%s\"\r\n", exchange_known(x, HTTP_HOST),
                 x->front->authenticator->metadata);
}

void conn_refuse(struct conn *c, enum refusal_reason reason)
{
        const struct refusal *r = refusal_of(reason);
        _cleanup_buf_ struct buf headers = {0}, body = {0};

        if (r->header)
                add_line(&headers, r->header, r->content);
        else if (reason == REFUSE_IDENTITY)
                add_challenge(&headers, c->x);
        if (c->state == CONN_BODY || c->x == NULL) {
                c->keep = false;
                c->unread = true;
        }
        c->head_only &= c->x != NULL; /* else it is the last request's */
        if (c->x)
                exchange_free(TAKE_PTR(c->x));
        c->front->counts.refused++;
        buf_adds(&body, r->body);
        conn_answer(c, r->status, JSON, &headers, &body);
}
