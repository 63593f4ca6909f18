#include <strings.h>

#include "broker/http/internal.h"

#define MAX_BODIES_AT_ONCE 8U /* times max_body: of all clients together */

/* -- is it in order? --------------------------------------------------------------------------------------------------------- */

static const struct refusal *judge_headers(const struct exchange *x, size_t max_header)
{
        static const char *const once[] = {"Host", "Origin", "Authorization", "Content-Length", "Transfer-Encoding", "Content-Type"};
        const union MHD_ConnectionInfo *size = MHD_get_connection_info(x->conn->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

        if (x->n_headers > MAX_HEADERS || (size && size->header_size > max_header))
                return refusal_of(REFUSE_HEADERS_SIZE);
        for (size_t i = 0; i < x->n_headers; i++) {
                const struct header *h = &x->headers[i];
                if (!guard_header(h->name, h->name_n, h->value))
                        return refusal_of(REFUSE_HEADER);
        }
        /* An authenticator judges its header itself: whoever shows two tokens learns what one learns who shows a wrong one. */
        for (size_t i = 0; i < ELEMENTSOF(once); i++)
                if (exchange_header_count(x, once[i]) > 1 && !(x->front->authenticator && str_eq(once[i], "Authorization")))
                        return refusal_of(REFUSE_TWICE);
        return exchange_header(x, "Host") ? NULL : refusal_of(REFUSE_TWICE);
}

static const struct refusal *judge_method(const struct exchange *x)
{
        static const char *const passed[] = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"};
        static const char *const known[] = {"PUT", "PATCH", "TRACE", "CONNECT"};

        for (size_t i = 0; i < ELEMENTSOF(passed); i++)
                if (str_eq(x->method, passed[i]))
                        return NULL;
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (str_eq(x->method, known[i]))
                        return refusal_of(REFUSE_METHOD);
        return refusal_of(REFUSE_METHOD_UNKNOWN);
}

/* Also takes the absolute form apart, which a client may use with any server (RFC 9112, 3.2.2). */
static const struct refusal *judge_target(struct exchange *x, const struct guard *guard)
{
        const char *host = exchange_header(x, "Host"), *origin = exchange_header(x, "Origin");

        if (strncasecmp(x->path, "http://", 7) == 0) {
                const char *authority = x->path + 7;
                size_t n = strcspn(authority, "/");

                if (!guard_host(guard, authority, n))
                        return refusal_of(REFUSE_HOST);
                x->path = authority[n] ? authority + n : "/";
        }
        if (!guard_path(x->path))
                return refusal_of(REFUSE_PATH);
        if (!guard_host(guard, host, strlen(host)))
                return refusal_of(REFUSE_HOST);
        return origin && !guard_origin(guard, origin) ? refusal_of(REFUSE_ORIGIN) : NULL;
}

static enum MHD_Result is_access_token(void *found, _unused_ enum MHD_ValueKind kind, const char *key, _unused_ const char *value)
{
        _cleanup_free_ char *name = mem_strdup(key);

        /* Arguments come as they were sent, and a name can be written in several ways. */
        MHD_http_unescape(name);
        *(bool *)found |= strcasecmp(name, "access_token") == 0;
        return MHD_YES;
}

/* The only credential of a request, in the only place where one may be (RFC 6750, section 2); NULL: there is none. */
static const char *only_credential(const struct exchange *x, size_t *n)
{
        const char *header = exchange_header(x, "Authorization");
        bool in_url = false;

        MHD_get_connection_values(x->conn->mhd, MHD_GET_ARGUMENT_KIND, is_access_token, &in_url);
        if (exchange_header_count(x, "Authorization") != 1 || strncasecmp(header, "Bearer ", 7) != 0 || in_url)
                return NULL;
        header += 7;
        header += strspn(header, " ");
        *n = strlen(header);
        return header;
}

static const struct refusal *identify(struct exchange *x, const struct front_authenticator *a)
{
        size_t n = 0;
        const char *credential;

        if (a->is_open && a->is_open(x->path))
                return NULL;
        credential = only_credential(x, &n);
        x->identity = a->identify(credential, n, a->user);
        x->authorized = x->identity != NULL;
        return x->authorized ? NULL : refusal_of(REFUSE_IDENTITY);
}

static const struct refusal *judge_token(struct exchange *x, const struct guard *guard)
{
        if (x->front->authenticator)
                return identify(x, x->front->authenticator);
        x->authorized = guard_token(guard, exchange_header(x, "Authorization"));
        if (x->authorized || str_eq(x->path, "/healthz") || str_eq(x->path, "/readyz"))
                return NULL;
        return refusal_of(REFUSE_TOKEN);
}

/* libmicrohttpd has checked that Content-Length is a number. */
static const struct refusal *judge_length(const struct exchange *x, bool *has_body)
{
        const char *length = exchange_header(x, "Content-Length"), *coding = exchange_header(x, "Transfer-Encoding");
        const struct front *f = x->front;
        unsigned long long n = length ? strtoull(length, NULL, 10) : 0;

        *has_body = coding || n > 0;
        if (coding && (length || x->http10 || strcasecmp(coding, "chunked") != 0))
                return refusal_of(REFUSE_LENGTH);
        if (n > f->limits.max_body)
                return refusal_of(REFUSE_BODY_SIZE);
        return n + f->buffered > MAX_BODIES_AT_ONCE * f->limits.max_body ? refusal_of(REFUSE_BUSY) : NULL;
}

static const struct refusal *judge(struct exchange *x, bool *has_body)
{
        const struct guard *guard = x->front->guard;
        const struct refusal *r = judge_length(x, has_body);
        const struct refusal *first = judge_headers(x, x->front->limits.max_header);

        if (!first)
                first = judge_method(x);
        if (!first)
                first = judge_target(x, guard);
        if (!first)
                first = judge_token(x, guard);
        return first ? first : r;
}

/* -- the steps of a request -------------------------------------------------------------------------------------------------- */

void *request_line(void *front, _unused_ const char *uri, struct MHD_Connection *mhd)
{
        struct front *f = front;
        struct conn *c = conn_of(mhd);

        f->counts.requests++;
        c->state = CONN_HEAD;
        deadline_begin(&f->receiving, &c->deadline);
        return c;
}

static void answer_refusal(struct conn *c)
{
        const struct refusal *r = c->refusal;
        /* libmicrohttpd does not write to what it calls persistent. */
        struct MHD_Response *response =
                MHD_create_response_from_buffer(strlen(r->body), (void *)(uintptr_t)r->body, MHD_RESPMEM_PERSISTENT);

        if (!response) {
                conn_end(c);
                return;
        }
        (void)MHD_add_response_header(response, "Content-Type", "application/json");
        if (r->header)
                (void)MHD_add_response_header(response, r->header, r->content);
        else if (c->challenge)
                (void)MHD_add_response_header(response, "WWW-Authenticate", c->challenge);
        c->front->counts.refused++;
        conn_answer(c, r->status, response);
}

static void begin(struct conn *c, const char *url, const char *method, const char *version)
{
        bool has_body;

        c->x = exchange_new(c, url, method, version);
        c->refusal = judge(c->x, &has_body);
        c->state = CONN_BODY;
        c->progress = 0;
        deadline_begin(&c->front->receiving, &c->deadline);
        if (!c->refusal)
                return;
        /* A listener can have many names; Host is the one under which this client will find what it is told of. */
        mem_replace(&c->challenge, c->refusal == refusal_of(REFUSE_IDENTITY)
                                           ? mem_printf("Bearer resource_metadata=\"http://%s%s\"", exchange_header(c->x, "Host"),
                                                        c->front->authenticator->metadata)
                                           : NULL);
        exchange_free(TAKE_PTR(c->x));
        c->state = CONN_REFUSED;
        /* Answered when the request is over, so that the connection lives on; but a body is not awaited, and then it ends. */
        if (has_body) {
                c->drain = true;
                answer_refusal(c);
        }
}

static void add_body(struct conn *c, const char *data, size_t n)
{
        struct front *f = c->front;
        struct exchange *x = c->x;

        if (n <= f->limits.max_body - x->body.len && f->buffered + n <= MAX_BODIES_AT_ONCE * f->limits.max_body) {
                buf_add(&x->body, data, n);
                f->buffered += n;
                x->charged += n;
                return;
        }
        bool too_long = n > f->limits.max_body - x->body.len;
        exchange_free(TAKE_PTR(c->x));
        conn_refuse_late(c, too_long ? REFUSE_BODY_SIZE : REFUSE_BUSY);
}

static void hand_over(struct conn *c)
{
        c->state = CONN_WAITING;
        deadline_end(&c->deadline);
        c->front->request(c->x, c->front->user);
        if (c->state == CONN_WAITING && c->hung_up) {
                /* One of several requests in a row, the end of which was told before: nobody will tell it again. */
                c->state = CONN_GONE;
                exchange_lost(TAKE_PTR(c->x));
        } else if (c->state == CONN_WAITING) {
                c->suspended = true;
                MHD_suspend_connection(c->mhd);
        }
}

enum MHD_Result request_handler(void *front, _unused_ struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                const char *data, size_t *n, void **context)
{
        struct front *f = front;
        struct conn *c = *context;

        c->in_handler = true;
        if (c->state == CONN_HEAD)
                begin(c, url, method, version);
        else if (c->state == CONN_BODY && *n > 0)
                add_body(c, data, *n);
        else if (c->state == CONN_BODY && !f->flushing)
                hand_over(c);
        else if (c->state == CONN_REFUSED)
                answer_refusal(c);
        *n = 0;
        c->in_handler = false;
        return c->state == CONN_GONE ? MHD_NO : MHD_YES;
}

void request_completed(void *front, _unused_ struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code)
{
        struct front *f = front;
        struct conn *c = *context;
        struct exchange *x = TAKE_PTR(c->x);

        if (c->state == CONN_HEAD || c->state == CONN_BODY) {
                f->counts.refused++;
                /* libmicrohttpd refused it for us, and its client may still be sending. */
                c->drain |= code == MHD_REQUEST_TERMINATED_WITH_ERROR;
        }
        if (c->state != CONN_GONE) {
                c->state = CONN_IDLE;
                c->progress = 0;
                deadline_begin(&f->idle, &c->deadline);
                if (c->hung_up)
                        conn_nudge(c);
        }
        if (x)
                exchange_lost(x);
}
