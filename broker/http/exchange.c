#include <assert.h>

#include "broker/http/internal.h"

struct exchange *exchange_new(struct conn *c, const struct http_head *head, const char *bytes)
{
        size_t extent = http_head_extent(head), before = offsetof(struct exchange, head) + extent;
        struct exchange *x = mem_alloc(before + head->size + 1);

        x->front = c->front;
        x->conn = c;
        memcpy(&x->head, head, extent);
        x->text = (char *)x + before;
        memcpy(x->text, bytes, head->size);
        http_head_terminate(&x->head, x->text);
        x->method = x->text + head->method.at;
        char *target = x->text + head->target.at, *query = memchr(target, '?', head->target.n);
        x->path = target;
        if (query) {
                *query = '\0';
                x->query = query + 1;
        }
        c->front->counts.open_exchanges++;
        return x;
}

void exchange_free(struct exchange *x)
{
        if (!x->is_stream)
                x->front->counts.open_exchanges--;
        x->front->buffered -= x->charged;
        buf_deinit(&x->body);
        buf_deinit(&x->headers);
        if (x->identity)
                x->front->authenticator->release(x->identity);
        free(x);
}

/* -- reading the request ----------------------------------------------------------------------------------------------------- */

const char *exchange_method(const struct exchange *x)
{
        return x->method;
}

const char *exchange_path(const struct exchange *x)
{
        return x->path;
}

static const char *value_of(const struct exchange *x, const struct http_field *field)
{
        return field ? x->text + field->value.at : NULL;
}

const char *exchange_known(const struct exchange *x, enum http_known known)
{
        return value_of(x, http_head_known(&x->head, known));
}

const char *exchange_header(const struct exchange *x, const char *name)
{
        return value_of(x, http_head_find(&x->head, x->text, name));
}

unsigned exchange_header_count(const struct exchange *x, const char *name)
{
        return http_head_count(&x->head, x->text, name);
}

const char *exchange_body(const struct exchange *x, size_t *n)
{
        *n = x->body.len;
        return x->body.data ? x->body.data : "";
}

void exchange_take_body(struct exchange *x, struct buf *ret)
{
        *ret = x->body;
        x->body = (struct buf){0};
        x->front->buffered -= x->charged;
        x->charged = 0;
}

bool exchange_authorized(const struct exchange *x)
{
        return x->authorized;
}

void *exchange_identity(const struct exchange *x)
{
        return x->identity;
}

void exchange_on_left(struct exchange *x, void (*left)(struct exchange *x, void *user), void *user)
{
        x->left = left;
        x->left_user = user;
}

/* -- answering --------------------------------------------------------------------------------------------------------------- */

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
        struct buf *b = &x->headers;

        /* A line end in a value would begin a header of somebody else's. */
        if (!http_is_token(name, strlen(name)) || !http_is_value(value, strlen(value)))
                return;
        buf_adds(b, name);
        buf_add(b, ": ", 2);
        buf_adds(b, value);
        buf_add(b, "\r\n", 2);
}

void exchange_answer(struct exchange *x, unsigned status, const char *content_type, struct buf *body)
{
        struct conn *c = x->conn;
        struct buf none = {0};

        assert(c->state == CONN_WAITING); /* a stream was answered already */
        c->x = NULL;
        conn_answer(c, status, content_type, &x->headers, body ? body : &none);
        exchange_free(x);
}

bool exchange_is_stream(const struct exchange *x)
{
        return x->is_stream;
}
