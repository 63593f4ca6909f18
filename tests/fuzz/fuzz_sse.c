/*
 * An event stream, at once and byte by byte: both say the same. What was read and is written again reads the same. The first byte of the
 * input is the place of a third cut.
 */
#include "common/mcp/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int note(const char *type, const char *data, size_t n, void *user, _unused_ struct err **err)
{
        if (data[n] != '\0')
                abort();
        buf_addf(user, "%s %zu ", type, n);
        buf_add(user, data, n);
        return 0;
}

static int write_again(const char *type, const char *data, size_t n, void *user, _unused_ struct err **err)
{
        sse_add_event(user, type, "id", data, n);
        return 0;
}

static bool same(const struct buf *a, const struct buf *b)
{
        return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static int read_all(struct buf *out, const char *text, size_t n, size_t step, sse_event_fn event)
{
        struct sse_reader s = {.max = 4096};
        int r = 0;

        for (size_t i = 0; r == 0 && i < n; i += step)
                r = sse_reader_feed(&s, text + i, MIN(step, n - i), event, out, NULL);
        sse_reader_deinit(&s);
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = size > 1 ? mem_dup(data + 1, size - 1) : NULL;
        _cleanup_buf_ struct buf whole = {0}, bytes = {0}, cut = {0}, written = {0}, again = {0};

        if (!text)
                return 0;
        size--;
        int r = read_all(&whole, text, size, size, note);
        if (read_all(&bytes, text, size, 1, note) != r || !same(&whole, &bytes))
                abort();
        if (read_all(&cut, text, size, (size_t)data[0] + 1, note) != r || !same(&whole, &cut))
                abort();
        if (r == 0 && (read_all(&written, text, size, size, write_again) != 0 ||
                       read_all(&again, written.data, written.len, written.len, note) != 0 || !same(&whole, &again)))
                abort();
        return 0;
}
