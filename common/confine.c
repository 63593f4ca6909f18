#include "common/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/file.h"

int confine_privileges(struct err **err)
{
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_sys(err, errno, "giving up privileges");
        return 0;
}

/* -- system calls ------------------------------------------------------------------------------------------------------------ */

static const int basic[] = {
        SCMP_SYS(read),
        SCMP_SYS(readv),
        SCMP_SYS(write),
        SCMP_SYS(writev),
        SCMP_SYS(poll),
        SCMP_SYS(ppoll),
        SCMP_SYS(close),
        SCMP_SYS(fstat),
        SCMP_SYS(brk),
        SCMP_SYS(munmap),
        SCMP_SYS(mremap),
        SCMP_SYS(madvise),
        SCMP_SYS(futex),
        SCMP_SYS(clock_gettime),
        SCMP_SYS(gettimeofday),
        SCMP_SYS(time),
        SCMP_SYS(clock_nanosleep),
        SCMP_SYS(nanosleep),
        SCMP_SYS(restart_syscall),
        SCMP_SYS(rt_sigreturn),
        SCMP_SYS(rt_sigaction),
        SCMP_SYS(rt_sigprocmask),
        SCMP_SYS(sigaltstack),
        SCMP_SYS(getrandom),
        SCMP_SYS(getpid),
        SCMP_SYS(gettid),
        SCMP_SYS(sched_yield),
        SCMP_SYS(sysinfo),
        SCMP_SYS(exit),
        SCMP_SYS(exit_group),
};

static int add_all(scmp_filter_ctx f, uint32_t action, const int *list, size_t n)
{
        int r = 0;

        for (size_t i = 0; i < n && r >= 0; i++)
                r = seccomp_rule_add(f, action, list[i], 0);
        return r;
}

static int add_basic(scmp_filter_ctx f)
{
        const unsigned flags[] = {F_GETFD, F_SETFD, F_GETFL, F_SETFL};
        int r = add_all(f, SCMP_ACT_ALLOW, basic, ELEMENTSOF(basic));

        for (size_t i = 0; i < ELEMENTSOF(flags) && r >= 0; i++)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, flags[i], 0));
        /* Memory, but never memory to run. */
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
        /* abort() */
        if (r >= 0)
                r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
        return r;
}

/* r: what building it gave. Loads and releases it. */
static int load(scmp_filter_ctx f, int r, struct err **err)
{
        if (r >= 0)
                r = seccomp_load(f);
        if (f)
                seccomp_release(f);
        return r < 0 ? err_sys(err, r, "loading the seccomp filter") : 0;
}

int confine_only(const int *allowed, size_t n, confine_rules_fn more, struct err **err)
{
        scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
        int r = f ? add_basic(f) : -ENOMEM;

        if (r >= 0)
                r = add_all(f, SCMP_ACT_ALLOW, allowed, n);
        if (r >= 0 && more)
                r = more(f);
        return load(f, r, err);
}

int confine_all_but(const int *refused, size_t n, int errnum, struct err **err)
{
        scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);

        return load(f, f ? add_all(f, SCMP_ACT_ERRNO((unsigned)errnum), refused, n) : -ENOMEM, err);
}

/* -- files ------------------------------------------------------------------------------------------------------------------- */

#define TO_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* What each version of Landlock can refuse, by the highest bit it knows. The headers of Debian 12 end with the second. */
static const uint64_t known[] = {
        0, LANDLOCK_ACCESS_FS_MAKE_SYM, LANDLOCK_ACCESS_FS_REFER, UINT64_C(1) << 14, UINT64_C(1) << 14, UINT64_C(1) << 15};

#define TO_WRITE    (TO_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define TO_TRUNCATE (UINT64_C(1) << 14)

static int allow_files(int ruleset, const char *path, uint64_t access, struct err **err)
{
        _cleanup_fd_ int dir = open(path, O_PATH | O_CLOEXEC);
        struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = dir};

        if (dir < 0)
                return err_sys(err, errno, "cannot open %s", path);
        if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
                return err_sys(err, errno, "Landlock rule for %s", path);
        return 0;
}

int confine_files(const char *const *readable, const char *const *writable, struct err **err)
{
        long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

        if (version < 0)
                return errno == ENOSYS || errno == EOPNOTSUPP ? 1 : err_sys(err, errno, "asking for Landlock");
        uint64_t highest = known[MIN((size_t)version, ELEMENTSOF(known) - 1)];
        struct landlock_ruleset_attr attr = {.handled_access_fs = highest | (highest - 1)};
        _cleanup_fd_ int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
        if (ruleset < 0)
                return err_sys(err, errno, "making a Landlock ruleset");
        for (; readable && *readable; readable++)
                if (allow_files(ruleset, *readable, TO_READ, err) < 0)
                        return -1;
        for (; writable && *writable; writable++)
                if (allow_files(ruleset, *writable, TO_WRITE | (attr.handled_access_fs & TO_TRUNCATE), err) < 0)
                        return -1;
        if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
                return err_sys(err, errno, "taking the Landlock ruleset");
        return 0;
}
