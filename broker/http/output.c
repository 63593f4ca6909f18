#include <errno.h>
#include <sys/uio.h>

#include "broker/http/internal.h"

#define MAX_IOV 16

static struct piece *new_piece(struct output *o)
{
        struct piece *p = NEW(struct piece);

        if (o->last)
                o->last->next = p;
        else
                o->first = p;
        o->last = p;
        return p;
}

void output_text(struct output *o, const void *text, size_t n)
{
        struct piece *p = o->last && o->last->bytes.len < OUTPUT_COPY_BELOW ? o->last : new_piece(o);

        buf_add(&p->bytes, text, n);
        o->queued += n;
}

void output_whole(struct output *o, struct buf *bytes, size_t sent)
{
        struct piece *p = new_piece(o);

        if (o->first == p)
                o->sent = sent;
        p->bytes = *bytes;
        o->queued += bytes->len - sent;
        *bytes = (struct buf){0};
}

static void free_first(struct output *o)
{
        struct piece *p = o->first;

        o->first = p->next;
        if (!o->first)
                o->last = NULL;
        o->sent = 0;
        buf_deinit(&p->bytes);
        free(p);
}

static void mark_sent(struct output *o, size_t n)
{
        o->queued -= n;
        while (o->first && n >= o->first->bytes.len - o->sent) {
                n -= o->first->bytes.len - o->sent;
                free_first(o);
        }
        o->sent += n;
}

int output_write(struct output *o, int fd)
{
        while (o->first) {
                struct iovec iov[MAX_IOV];
                struct msghdr m = {.msg_iov = iov};

                for (struct piece *p = o->first; p && m.msg_iovlen < MAX_IOV; p = p->next) {
                        size_t skip = p == o->first ? o->sent : 0;
                        iov[m.msg_iovlen++] = (struct iovec){p->bytes.data + skip, p->bytes.len - skip};
                }
                ssize_t n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n >= 0)
                        mark_sent(o, (size_t)n);
                else if (errno == EAGAIN)
                        return 1;
                else if (errno != EINTR)
                        return -1;
        }
        return 0;
}

void output_clear(struct output *o)
{
        while (o->first)
                free_first(o);
        o->queued = 0;
}
