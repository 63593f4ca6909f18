/*
 * Attach frames: the first byte says where to split; however they are split, the same payload comes out and the same verdict.
 */
#include <stdint.h>

#include "common/engine/engine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct taken {
        struct buf out[3];
};

static void take(int stream, const void *data, size_t n, void *user)
{
        struct taken *t = user;

        if (n == 0 || (stream != 1 && stream != 2))
                abort();
        buf_add(&t->out[stream], data, n);
}

static bool same(const struct buf *a, const struct buf *b)
{
        return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct attach_frames f = {.max_frame = 1U << 16}, g = f;
        struct taken one = {0}, two = {0};
        size_t step;
        int r, q = 0;

        if (size == 0)
                return 0;
        step = (size_t)data[0] + 1;
        data++;
        size--;
        r = attach_frames_feed(&f, data, size, take, &one, NULL);
        for (size_t i = 0; i < size && q == 0; i += step)
                q = attach_frames_feed(&g, data + i, MIN(step, size - i), take, &two, NULL);
        if (r != q || !same(&one.out[1], &two.out[1]) || !same(&one.out[2], &two.out[2]))
                abort();
        for (size_t i = 0; i < ELEMENTSOF(one.out); i++) {
                buf_deinit(&one.out[i]);
                buf_deinit(&two.out[i]);
        }
        return 0;
}
