#include <arpa/inet.h>

#include "tests/bench/load.h"

#define FRAME_HEAD 8U

void line_send(struct stream *s, const struct buf *message)
{
        static struct buf b;

        b.len = 0;
        buf_add(&b, message->data, message->len);
        buf_addc(&b, '\n');
        stream_write(s, b.data, b.len);
}

/* Takes the Engine's frames off: what is said on standard output goes to body, the rest away. */
static void unframe(struct stream *s)
{
        size_t at = 0;

        while (at < s->got.len) {
                size_t n = MIN(s->frame, s->got.len - at);

                if (n > 0) {
                        if (s->status == 1)
                                buf_add(&s->body, s->got.data + at, n);
                        s->frame -= n;
                        at += n;
                        continue;
                }
                if (s->got.len - at < FRAME_HEAD)
                        break;
                uint32_t size;
                memcpy(&size, s->got.data + at + 4, 4);
                s->frame = ntohl(size);
                s->status = s->got.data[at]; /* 1: standard output */
                at += FRAME_HEAD;
        }
        buf_drop(&s->got, at);
}

void line_take(struct stream *s)
{
        struct buf *b = &s->got;
        size_t start = 0;

        if (s->load->o.framed) {
                unframe(s);
                b = &s->body;
        }
        while (s->seen < b->len) {
                const char *end = memchr(b->data + s->seen, '\n', b->len - s->seen);

                if (!end) {
                        s->seen = b->len;
                        break;
                }
                s->seen = (size_t)(end - b->data) + 1;
                load_message(s, b->data + start, (size_t)(end - b->data) - start);
                start = s->seen;
        }
        buf_drop(b, start);
        s->seen -= start;
}
