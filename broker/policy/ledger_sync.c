/*
 * The journal on its way to the disk, by the kernel's asynchronous I/O: an fdatasync of our own would keep every caller waiting for as long
 * as the disk takes. Records are in the file before their calls go on, so that this is only about crashes of the kernel and of the power.
 * Source: io_submit(2), IOCB_CMD_FDSYNC (Linux 4.18).
 */
#include <errno.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/policy/ledger_internal.h"

void ledger_sync_init(struct ledger *l)
{
        aio_context_t context = 0;

        /* Where the kernel has none, the disk is waited for. */
        if (syscall(SYS_io_setup, 1, &context) == 0)
                l->aio = context;
}

void ledger_sync_deinit(struct ledger *l)
{
        /* Waits for what is under way, which names a file of ours. */
        if (l->aio)
                (void)syscall(SYS_io_destroy, (aio_context_t)l->aio);
        l->aio = 0;
}

static int failed(const struct ledger *l, int error, struct err **err)
{
        return err_sys(err, error, "cannot bring the counters in %s to the disk", l->dir);
}

/* 0: nothing is under way any more; 1: it still is. */
static int reap(struct ledger *l, struct err **err)
{
        struct timespec now = {0};
        struct io_event event = {0};

        if (!l->syncing)
                return 0;
        if (syscall(SYS_io_getevents, (aio_context_t)l->aio, 0L, 1L, &event, &now) != 1)
                return 1;
        l->syncing = false;
        if (event.res >= 0)
                return 0;
        l->unsynced = true;
        return failed(l, (int)-event.res, err);
}

int ledger_sync(struct ledger *l, struct err **err)
{
        struct iocb sync = {.aio_lio_opcode = IOCB_CMD_FDSYNC, .aio_fildes = (uint32_t)l->journal}, *list[] = {&sync};
        int r = reap(l, err);

        if (r != 0 || !l->unsynced || l->journal < 0)
                return r < 0 ? -1 : 0;
        l->unsynced = false;
        if (l->aio && syscall(SYS_io_submit, (aio_context_t)l->aio, 1L, list) == 1) {
                l->syncing = true;
                return 0;
        }
        if (fdatasync(l->journal) == 0)
                return 0;
        l->unsynced = true;
        return failed(l, errno, err);
}
