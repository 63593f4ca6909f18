#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/http/internal.h"

#define MAX_DRAINED (4U << 20) /* bytes that a refused client may still send us for nothing */

static void drain_free(struct drain *d)
{
        struct front *f = d->front;

        sd_event_source_disable_unref(d->io);
        deadline_end(&d->deadline);
        close(d->fd);
        if (d->prev)
                d->prev->next = d->next;
        else
                f->drains = d->next;
        if (d->next)
                d->next->prev = d->prev;
        peers_remove(&f->peers, d->peer);
        f->open--;
        free(d);
}

/* Told once for what came (see stream.c), so all of it is read. */
static int on_input(_unused_ sd_event_source *s, int fd, _unused_ uint32_t revents, void *user)
{
        struct drain *d = user;
        char waste[16384];
        ssize_t n;

        do {
                n = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);
                if (n > 0)
                        d->drained += (size_t)n;
        } while (n > 0 && d->drained <= MAX_DRAINED);
        if (n >= 0 || errno != EAGAIN)
                drain_free(d);
        return 0;
}

void drain_begin(struct front *f, int fd, struct peer *peer)
{
        struct drain *d = NEW(struct drain);

        *d = (struct drain){.front = f, .fd = fd, .peer = peer, .next = f->drains};
        if (f->drains)
                f->drains->prev = d;
        f->drains = d;
        f->open++;
        deadline_begin(&f->draining, &d->deadline);
        if (shutdown(fd, SHUT_WR) < 0 || sd_event_add_io(f->loop, &d->io, fd, EPOLLIN | EPOLLET, on_input, d) < 0)
                drain_free(d);
}

void drain_over(_unused_ struct front *f, struct deadline *d)
{
        drain_free((struct drain *)(void *)((char *)d - offsetof(struct drain, deadline)));
}

void drains_free(struct front *f)
{
        while (f->drains)
                drain_free(f->drains);
}
