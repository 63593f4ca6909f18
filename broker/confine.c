#include "broker/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "common/confine.h"
#include "common/log.h"
#include "common/mem.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

static const int allowed[] = {
        SCMP_SYS(accept4),         SCMP_SYS(connect),    SCMP_SYS(shutdown),    SCMP_SYS(recvfrom),     SCMP_SYS(recvmsg),
        SCMP_SYS(sendto),          SCMP_SYS(sendmsg),    SCMP_SYS(getsockopt),  SCMP_SYS(setsockopt),   SCMP_SYS(epoll_create1),
        SCMP_SYS(epoll_ctl),       SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(timerfd_create),
        SCMP_SYS(timerfd_settime), SCMP_SYS(stat),       SCMP_SYS(newfstatat),  SCMP_SYS(lseek),        SCMP_SYS(getuid),
        SCMP_SYS(geteuid),         SCMP_SYS(signalfd4),
};

static int allow_sockets(scmp_filter_ctx f)
{
        /* Without SOCK_CLOEXEC and SOCK_NONBLOCK, which the type carries along. */
        const struct scmp_arg_cmp stream = SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff, SOCK_STREAM);
        int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, SCMP_A0(SCMP_CMP_EQ, AF_INET), stream);

        /* The link, and the datagrams of sd_notify(). */
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
        return r;
}

/* But for the way files are opened. */
static int allow_more(scmp_filter_ctx f)
{
        static const unsigned long requests[] = {FIONREAD, TCGETS};
        int r = allow_sockets(f);

        for (size_t i = 0; i < ELEMENTSOF(requests) && r >= 0; i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, requests[i]));
        return r;
}

/* Which ones, Landlock decides. */
static int allow_reading(scmp_filter_ctx f)
{
        int r = allow_more(f);

        return r < 0 ? r
                     : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                                        SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC | __O_TMPFILE, O_RDONLY));
}

/* Counters, the log, and files that take another's place. */
static int allow_writing(scmp_filter_ctx f)
{
        static const int calls[] = {SCMP_SYS(rename), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(unlink), SCMP_SYS(unlinkat),
                                    SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(ftruncate),
                                    SCMP_SYS(fchmod), SCMP_SYS(fallocate),
                                    /* of the counters, which are synced without waiting; their context is made before */
                                    SCMP_SYS(io_submit), SCMP_SYS(io_getevents), SCMP_SYS(io_destroy)};
        int r = allow_more(f);

        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, __O_TMPFILE & ~O_DIRECTORY, 0));
        for (size_t i = 0; i < ELEMENTSOF(calls) && r >= 0; i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
        return r;
}

static void free_caps(cap_t *caps)
{
        if (*caps)
                cap_free(*caps);
}

static int drop_capabilities(struct err **err)
{
        _cleanup_(free_caps) cap_t none = cap_init(), held = cap_get_proc();

        if (!none || !held || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return err_sys(err, errno, "looking at capabilities");
        /* The unit lets nobody call capset(), and leaves nothing to give up. */
        if (cap_compare(held, none) != 0 && cap_set_proc(none) < 0)
                return err_sys(err, errno, "giving up capabilities");
        return 0;
}

int broker_confine(const char *const *readable, const char *writable, struct err **err)
{
        const char *const written[] = {writable, NULL};
        int r;

        if (drop_capabilities(err) < 0 || confine_privileges(err) < 0)
                return -1;
        if (SANITIZED)
                return 1;
        /* Nobody reads what callers and servers said out of our memory: no core dump, no ptrace by the same user. */
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return err_sys(err, errno, "giving up core dumps");
        r = confine_files(readable, written, err);
        if (r < 0)
                return -1;
        if (r > 0)
                log_warning("this kernel has no Landlock: files are guarded by their modes and the unit only");
        return confine_only(allowed, ELEMENTSOF(allowed), writable ? allow_writing : allow_reading, err);
}
