#include "tests/bench/attach.h"

#include <unistd.h>

#include "common/engine/engine.h"

struct attaching {
        int fd;
        bool over;
        struct err **err;
};

static void on_attached(int fd, _unused_ const void *early, size_t n_early, struct err *err, void *user)
{
        struct attaching *a = user;

        a->over = true;
        a->fd = fd;
        if (err) {
                (void)err_set(a->err, err_code(err), "%s", err_msg(err));
        } else if (n_early > 0) {
                close(fd);
                a->fd = err_set(a->err, ERR_INVALID, "the container talks before it is asked");
        }
}

int attach_to(const char *engine, const char *container, struct err **err)
{
        _cleanup_(sd_event_unrefp) sd_event *loop = NULL;
        _cleanup_(engine_freep) struct engine *e = NULL;
        struct engine_call *call = NULL;
        struct attaching a = {.fd = -1, .err = err};
        int r = sd_event_new(&loop);

        if (r < 0)
                return err_sys(err, r, "event loop");
        if (engine_new(&e, loop, engine, err) < 0)
                return -1;
        engine_container_attach(e, &call, container, on_attached, &a);
        while (!a.over)
                if ((r = sd_event_run(loop, UINT64_MAX)) < 0)
                        return err_sys(err, r, "event loop");
        return a.fd;
}
