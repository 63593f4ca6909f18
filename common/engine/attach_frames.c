#include "common/engine/engine.h"

#define FRAME_MAX (16U << 20)

static int frame_begin(struct attach_frames *f, struct err **err)
{
        const unsigned char *h = f->header;
        uint32_t max = f->max_frame ? f->max_frame : FRAME_MAX;
        uint32_t n = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];

        if ((h[0] != 1 && h[0] != 2) || h[1] || h[2] || h[3])
                return err_set(err, ERR_INVALID, "attach stream: %02x%02x%02x%02x is not the beginning of a frame", h[0], h[1], h[2], h[3]);
        if (n > max)
                return err_set(err, ERR_LIMIT, "attach stream: a frame of %u bytes is over the limit of %u", n, max);
        f->stream = h[0];
        f->left = n;
        return 0;
}

int attach_frames_feed(struct attach_frames *f, const void *data, size_t n, attach_chunk_fn chunk, void *user, struct err **err)
{
        const unsigned char *p = data;

        while (n > 0) {
                if (f->left > 0) {
                        size_t k = MIN(n, (size_t)f->left);

                        /* Before the callback: it may look at f, and it may end in our being fed no more. */
                        f->left -= (uint32_t)k;
                        chunk(f->stream, p, k, user);
                        p += k;
                        n -= k;
                        continue;
                }
                f->header[f->have++] = *p++;
                n--;
                if (f->have < sizeof(f->header))
                        continue;
                f->have = 0;
                if (frame_begin(f, err) < 0)
                        return -1;
        }
        return 0;
}
