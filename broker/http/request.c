#include <strings.h>

#include "broker/http/internal.h"

enum refusal_reason request_fault(enum http_fault fault)
{
        static const enum refusal_reason reasons[] = {
                [HTTP_FAULT_START_LINE] = REFUSE_MALFORMED,    [HTTP_FAULT_VERSION] = REFUSE_VERSION,
                [HTTP_FAULT_LINE_END] = REFUSE_LINE_END,       [HTTP_FAULT_FIELD] = REFUSE_HEADER,
                [HTTP_FAULT_LENGTH] = REFUSE_LENGTH,           [HTTP_FAULT_CHUNK] = REFUSE_CHUNK,
                [HTTP_FAULT_TARGET_SIZE] = REFUSE_TARGET_SIZE, [HTTP_FAULT_HEAD_SIZE] = REFUSE_HEADERS_SIZE,
                [HTTP_FAULT_BODY_SIZE] = REFUSE_BODY_SIZE,
        };

        return reasons[fault];
}

static int refuse(enum refusal_reason *reason, enum refusal_reason why)
{
        *reason = why;
        return -1;
}

static int judge_headers(const struct exchange *x, enum refusal_reason *reason)
{
        static const enum http_known once[] = {HTTP_ORIGIN, HTTP_CONTENT_TYPE};
        const struct http_head *h = &x->head;

        if (h->count[HTTP_HOST] != 1)
                return refuse(reason, REFUSE_TWICE);
        for (size_t i = 0; i < ELEMENTSOF(once); i++)
                if (h->count[once[i]] > 1)
                        return refuse(reason, REFUSE_TWICE);
        /* An authenticator judges its header itself: whoever shows two tokens learns what one learns who shows a wrong one. */
        return h->count[HTTP_AUTHORIZATION] > 1 && !x->front->authenticator ? refuse(reason, REFUSE_TWICE) : 0;
}

static int judge_method(const struct exchange *x, enum refusal_reason *reason)
{
        static const char *const passed[] = {"POST", "GET", "HEAD", "DELETE", "OPTIONS"};
        static const char *const known[] = {"PUT", "PATCH", "TRACE", "CONNECT"};

        for (size_t i = 0; i < ELEMENTSOF(passed); i++)
                if (str_eq(x->method, passed[i]))
                        return 0;
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (str_eq(x->method, known[i]))
                        return refuse(reason, REFUSE_METHOD);
        return refuse(reason, REFUSE_METHOD_UNKNOWN);
}

/* Also takes the absolute form apart, which a client may use with any server (RFC 9112, 3.2.2). */
static int judge_target(struct exchange *x, const struct guard *guard, enum refusal_reason *reason)
{
        const char *host = exchange_known(x, HTTP_HOST), *origin = exchange_known(x, HTTP_ORIGIN);

        if (strncasecmp(x->path, "http://", 7) == 0) {
                const char *authority = x->path + 7;
                size_t n = strcspn(authority, "/");

                if (!guard_host(guard, authority, n))
                        return refuse(reason, REFUSE_HOST);
                x->path = authority[n] ? authority + n : "/";
        }
        if (!guard_path(x->path))
                return refuse(reason, REFUSE_PATH);
        if (!guard_host(guard, host, strlen(host)))
                return refuse(reason, REFUSE_HOST);
        return origin && !guard_origin(guard, origin) ? refuse(reason, REFUSE_ORIGIN) : 0;
}

static int hex_of(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Is this the argument's name? Arguments come as they were sent, and a name can be written in several ways. */
static bool is_argument(const char *p, const char *name)
{
        for (; *p && *p != '&' && *p != '='; p++, name++) {
                char c = *p;

                if (c == '%' && hex_of(p[1]) >= 0 && hex_of(p[2]) >= 0) {
                        c = (char)(hex_of(p[1]) << 4 | hex_of(p[2]));
                        p += 2;
                }
                if (c >= 'A' && c <= 'Z')
                        c |= 0x20;
                if (c != *name || *name == '\0')
                        return false;
        }
        return *name == '\0';
}

static bool has_argument(const char *query, const char *name)
{
        for (const char *p = query; p; p = strchr(p, '&')) {
                p += *p == '&';
                if (is_argument(p, name))
                        return true;
        }
        return false;
}

/* The only credential of a request, in the only place where one may be (RFC 6750, section 2); NULL: there is none. */
static const char *only_credential(const struct exchange *x, size_t *n)
{
        const char *header = exchange_known(x, HTTP_AUTHORIZATION);

        if (x->head.count[HTTP_AUTHORIZATION] != 1 || strncasecmp(header, "Bearer ", 7) != 0 || has_argument(x->query, "access_token"))
                return NULL;
        header += 7;
        header += strspn(header, " ");
        *n = strlen(header);
        return header;
}

static int identify(struct exchange *x, const struct front_authenticator *a, enum refusal_reason *reason)
{
        size_t n = 0;
        const char *credential;

        if (a->is_open && a->is_open(x->path))
                return 0;
        credential = only_credential(x, &n);
        x->identity = a->identify(credential, n, a->user);
        x->authorized = x->identity != NULL;
        return x->authorized ? 0 : refuse(reason, REFUSE_IDENTITY);
}

static int judge_token(struct exchange *x, const struct guard *guard, enum refusal_reason *reason)
{
        const struct front *f = x->front;

        if (f->authenticator)
                return identify(x, f->authenticator, reason);
        x->authorized = guard_token(guard, exchange_known(x, HTTP_AUTHORIZATION));
        if (x->authorized || str_eq(x->path, "/healthz") || str_eq(x->path, "/readyz") || (f->open_path && str_eq(x->path, f->open_path)))
                return 0;
        return refuse(reason, REFUSE_TOKEN);
}

/* When the length is wrong, where the next request begins is not known. */
static int judge_length(struct exchange *x, int framed, enum http_fault fault, enum refusal_reason *reason)
{
        const struct front *f = x->front;

        if (framed < 0)
                return refuse(reason, request_fault(fault));
        return x->body_left > f->limits.max_body ? refuse(reason, REFUSE_BODY_SIZE) : 0;
}

int request_judge(struct exchange *x, bool *delimited, enum refusal_reason *reason)
{
        const struct guard *guard = x->front->guard;
        enum http_fault fault = HTTP_FAULT_NONE;
        int framed = http_head_framing(&x->head, x->text, false, &x->framing, &x->body_left, &fault);

        *delimited = framed == 0;
        if (judge_headers(x, reason) < 0 || judge_method(x, reason) < 0 || judge_target(x, guard, reason) < 0 ||
            judge_token(x, guard, reason) < 0)
                return -1;
        return judge_length(x, framed, fault, reason);
}
