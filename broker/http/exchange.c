#include <assert.h>
#include <strings.h>

#include "broker/http/internal.h"

/* -- from libmicrohttpd's memory to ours ------------------------------------------------------------------------------------- */

struct copying {
        struct exchange *x;
        char *text; /* where the next one goes */
};

static enum MHD_Result measure(void *size, _unused_ enum MHD_ValueKind kind, _unused_ const char *name, size_t name_n,
                               _unused_ const char *value, size_t value_n)
{
        *(size_t *)size += sizeof(struct header) + name_n + value_n + 2;
        return MHD_YES;
}

static char *copy_text(char **at, const char *text, size_t n)
{
        char *copy = *at;

        memcpy(copy, text, n);
        copy[n] = '\0';
        *at += n + 1;
        return copy;
}

static enum MHD_Result copy_header(void *user, _unused_ enum MHD_ValueKind kind, const char *name, size_t name_n, const char *value,
                                   size_t value_n)
{
        struct copying *copying = user;
        struct exchange *x = copying->x;

        while (value_n > 0 && (value[value_n - 1] == ' ' || value[value_n - 1] == '\t'))
                value_n--;
        struct header *h = &x->headers[x->n_headers++];
        h->name_n = name_n;
        h->name = copy_text(&copying->text, name, name_n);
        h->value = copy_text(&copying->text, value ? value : "", value_n);
        return MHD_YES;
}

struct exchange *exchange_new(struct conn *c, const char *url, const char *method, const char *version)
{
        size_t size = sizeof(struct exchange) + strlen(url) + 1 + strlen(method) + 1;
        int n = MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, measure, &size);
        struct exchange *x = mem_alloc(size);
        struct copying copying = {x, (char *)&x->headers[n]};

        *x = (struct exchange){.front = c->front, .conn = c, .http10 = str_eq(version, "HTTP/1.0")};
        x->path = copy_text(&copying.text, url, strlen(url));
        x->method = copy_text(&copying.text, method, strlen(method));
        (void)MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, copy_header, &copying);
        c->front->counts.open_exchanges++;
        return x;
}

void exchange_free(struct exchange *x)
{
        if (x->stream)
                stream_free(x);
        else
                x->front->counts.open_exchanges--;
        while (x->answer_headers) {
                struct answer_header *h = x->answer_headers;
                x->answer_headers = h->next;
                free(h);
        }
        x->front->buffered -= x->charged;
        buf_deinit(&x->body);
        if (x->identity)
                x->front->authenticator->release(x->identity);
        free(x);
}

void exchange_lost(struct exchange *x)
{
        if (x->left)
                x->left(x, x->left_user);
        exchange_free(x);
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

static bool is_named(const struct header *h, const char *name, size_t n)
{
        /* The first letter tells most apart: this is asked a hundred times for each request. */
        return h->name_n == n && (h->name[0] | 0x20) == (name[0] | 0x20) && strncasecmp(h->name, name, n) == 0;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
        size_t n = strlen(name);

        for (size_t i = 0; i < x->n_headers; i++)
                if (is_named(&x->headers[i], name, n))
                        return x->headers[i].value;
        return NULL;
}

unsigned exchange_header_count(const struct exchange *x, const char *name)
{
        size_t n = strlen(name);
        unsigned count = 0;

        for (size_t i = 0; i < x->n_headers; i++)
                count += is_named(&x->headers[i], name, n);
        return count;
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
        size_t name_n = strlen(name) + 1, value_n = strlen(value) + 1;
        struct answer_header *h = mem_alloc(sizeof(*h) + name_n + value_n);

        memcpy(h->name, name, name_n);
        h->value = memcpy(h->name + name_n, value, value_n);
        h->next = x->answer_headers;
        x->answer_headers = h;
}

void exchange_answer(struct exchange *x, unsigned status, const char *content_type, struct buf *body)
{
        struct buf b = body ? *body : (struct buf){0};
        struct conn *c = x->conn;

        assert(c); /* a stream was answered already */
        struct MHD_Response *response =
                MHD_create_response_from_buffer(b.len, b.data, b.data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);

        if (body)
                *body = (struct buf){0};
        if (response && content_type)
                (void)MHD_add_response_header(response, "Content-Type", content_type);
        for (const struct answer_header *h = x->answer_headers; response && h; h = h->next)
                (void)MHD_add_response_header(response, h->name, h->value);
        c->x = NULL;
        exchange_free(x);
        if (response)
                conn_answer(c, status, response);
        else
                conn_end(c);
}

bool exchange_is_stream(const struct exchange *x)
{
        return x->stream != NULL;
}
