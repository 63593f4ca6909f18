/*
 * Any bytes as the head of a message and what follows as its body, in one piece and cut: both must be read alike. The first byte says how:
 * bit 0: a response; bit 1: the whole input is a chunked body; the others: how many bytes come at a time (0: one).
 */
#include <stdint.h>
#include <stdlib.h>

#include "common/http/chunked.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_spans(const struct http_head *h, size_t n)
{
        for (unsigned i = 0; i < h->n_fields; i++) {
                const struct http_field *f = &h->fields[i];
                if (f->name.n == 0 || (size_t)f->name.at + f->name.n > n || (size_t)f->value.at + f->value.n >= n)
                        abort();
        }
}

/* The same bytes, and memory of exactly their size: what is read behind them shows. */
static int read_head(struct http_head *h, enum http_kind kind, const char *bytes, size_t n, size_t step, enum http_fault *fault)
{
        int r = 0;

        http_head_init(h, kind, 2048);
        for (size_t have = MIN(step, n); r == 0; have = MIN(have + step, n)) {
                char *copy = mem_dup(bytes, have);

                r = http_head_read(h, copy, have, fault);
                free(copy);
                if (have == n)
                        break;
        }
        return r;
}

static int read_body(struct buf *ret, const char *bytes, size_t n, size_t step, enum http_fault *fault)
{
        struct http_chunked c = {0};

        for (size_t at = 0; at < n;) {
                size_t have = MIN(step, n - at), used = 0, data_n = 0;
                const char *text;
                int r = http_chunked_read(&c, bytes + at, have, &used, &text, &data_n, fault);

                if (r < 0 || r == HTTP_CHUNKED_END)
                        return r;
                if (r == HTTP_CHUNKED_DATA)
                        buf_add(ret, text, data_n);
                if (used == 0 || used > have || (r == HTTP_CHUNKED_MORE && used != have))
                        abort();
                at += used;
        }
        return HTTP_CHUNKED_MORE;
}

static void try_body(const char *bytes, size_t n, size_t step)
{
        _cleanup_buf_ struct buf whole = {0}, cut = {0};
        enum http_fault one = HTTP_FAULT_NONE, two = HTTP_FAULT_NONE;

        if (n == 0)
                return;
        if (read_body(&whole, bytes, n, n, &one) != read_body(&cut, bytes, n, step, &two) || one != two || whole.len != cut.len ||
            (whole.len > 0 && memcmp(whole.data, cut.data, cut.len) != 0))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        enum http_fault one = HTTP_FAULT_NONE, two = HTTP_FAULT_NONE;
        static struct http_head whole, cut;
        enum http_framing framing;
        uint64_t length;

        if (size < 2)
                return 0;
        const char *bytes = (const char *)data + 1;
        size_t n = size - 1, step = (data[0] >> 2) + 1U;
        enum http_kind kind = data[0] & 1 ? HTTP_RESPONSE : HTTP_REQUEST;
        if (data[0] & 2) {
                try_body(bytes, n, step);
                return 0;
        }
        int r = read_head(&whole, kind, bytes, n, n, &one);
        if (r != read_head(&cut, kind, bytes, n, step, &two) || one != two || whole.size != cut.size)
                abort();
        if (r < 1)
                return 0;
        check_spans(&whole, n);
        (void)http_head_persists(&whole, bytes);
        char *copy = mem_dup(bytes, n);
        http_head_terminate(&whole, copy);
        free(copy);
        if (http_head_framing(&whole, bytes, false, &framing, &length, &one) == 0 && framing == HTTP_CHUNKED)
                try_body(bytes + whole.size, n - whole.size, step);
        return 0;
}
