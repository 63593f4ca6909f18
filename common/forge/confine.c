#include "common/forge/confine.h"

#include <errno.h>
#include <seccomp.h>
#include <sys/prctl.h>

#include "common/mem.h"

/* A list of what is refused, not of what is allowed: ssh-keygen and libgit2 are other people's and change with every release. */
static const int refused[] = {
        SCMP_SYS(socket),           SCMP_SYS(connect),           SCMP_SYS(bind),        SCMP_SYS(listen), SCMP_SYS(io_uring_setup),
        SCMP_SYS(io_uring_enter),
#ifndef __SANITIZE_ADDRESS__ /* its search for leaks stops the process with it */
        SCMP_SYS(ptrace),
#endif
        SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd), SCMP_SYS(bpf),    SCMP_SYS(userfaultfd),
        SCMP_SYS(perf_event_open),  SCMP_SYS(unshare),           SCMP_SYS(setns),       SCMP_SYS(mount),  SCMP_SYS(keyctl),
        SCMP_SYS(add_key),          SCMP_SYS(open_by_handle_at),
};

int forge_confine(struct err **err)
{
        scmp_filter_ctx f = NULL;
        int r;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_sys(err, errno, "giving up privileges");
        f = seccomp_init(SCMP_ACT_ALLOW);
        r = f ? 0 : -ENOMEM;
        for (size_t i = 0; i < ELEMENTSOF(refused) && r >= 0; i++)
                r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), refused[i], 0);
        if (r >= 0)
                r = seccomp_load(f);
        if (f)
                seccomp_release(f);
        return r < 0 ? err_sys(err, r, "loading the seccomp filter") : 0;
}
