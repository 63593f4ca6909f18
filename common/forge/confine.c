#include "common/forge/confine.h"

#include <errno.h>

#include "common/confine.h"
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
        return confine_privileges(err) < 0 ? -1 : confine_all_but(refused, ELEMENTSOF(refused), EACCES, err);
}
