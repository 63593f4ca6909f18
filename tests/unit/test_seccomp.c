/*
 * The seccomp profile, in the kernel: a child loads it through libseccomp, as an Engine's runtime does, and tries what must fail and what
 * must work.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/spec/spec.h"

static json_object *profile(void)
{
        json_object *o = NULL;
        _cleanup_err_ struct err *err = NULL;

        assert_ok(json_parse(&o, spec_seccomp_profile(), strlen(spec_seccomp_profile()), "seccomp.json", NULL, &err));
        return o;
}

/* -- as text -------------------------------------------------------------------------------------------------------------- */

static bool named(json_object *rule, const char *syscall_name)
{
        _cleanup_strv_ char **names = NULL;

        assert_true(json_to_strv(&names, json_get(rule, "names")));
        return strv_contains(names, syscall_name);
}

static const char *const never[] = {
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "process_madvise",
        "kcmp",
        "pidfd_getfd",
        "keyctl",
        "add_key",
        "request_key",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "bpf",
        "perf_event_open",
        "mount",
        "umount",
        "umount2",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "pivot_root",
        "chroot",
        "unshare",
        "setns",
        "socketcall",
        "open_by_handle_at",
        "name_to_handle_at",
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "quotactl",
        "settimeofday",
        "clock_settime",
        "adjtimex",
        "iopl",
        "ioperm",
        "modify_ldt",
        "syslog",
        "sethostname",
        "setdomainname",
        "vhangup",
        "lookup_dcookie",
        "mbind",
        "move_pages",
        "migrate_pages",
        "nfsservctl",
        "uselib",
        "fanotify_init",
        "memfd_secret",
        "vm86",
};

static void never_names_what_breaks_out(_unused_ void **state)
{
        _cleanup_json_ json_object *o = profile();
        json_object *rules = json_get(o, "syscalls");

        assert_string_equal(json_str(o, "defaultAction"), "SCMP_ACT_ERRNO");
        for (size_t i = 0; i < json_object_array_length(rules); i++)
                for (size_t k = 0; k < ELEMENTSOF(never); k++)
                        if (named(json_object_array_get_idx(rules, i), never[k]))
                                fail_msg("%s is allowed", never[k]);
}

static void filters_arguments(_unused_ void **state)
{
        static const char *const filtered[] = {"socket", "socketpair", "clone", "personality", "mknod", "mknodat"};
        _cleanup_json_ json_object *o = profile();
        json_object *rules = json_get(o, "syscalls");

        for (size_t i = 0; i < json_object_array_length(rules); i++) {
                json_object *rule = json_object_array_get_idx(rules, i);
                for (size_t k = 0; k < ELEMENTSOF(filtered); k++)
                        if (named(rule, filtered[k]))
                                assert_true(json_object_array_length(json_get(rule, "args")) > 0);
                if (named(rule, "clone3")) {
                        assert_string_equal(json_str(rule, "action"), "SCMP_ACT_ERRNO");
                        assert_int_equal(json_int(rule, "errnoRet", 0), ENOSYS);
                }
        }
}

/* -- in the kernel -------------------------------------------------------------------------------------------------------- */

static int load_rule(scmp_filter_ctx ctx, json_object *rule)
{
        bool allow = strcmp(json_str(rule, "action"), "SCMP_ACT_ALLOW") == 0;
        uint32_t action = allow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO((uint32_t)json_int(rule, "errnoRet", EPERM));
        json_object *names = json_get(rule, "names"), *args = json_get(rule, "args");
        size_t n_args = args ? json_object_array_length(args) : 0;
        struct scmp_arg_cmp cmp[6];

        for (size_t i = 0; i < n_args; i++) {
                json_object *a = json_object_array_get_idx(args, i);
                bool masked = strcmp(json_str(a, "op"), "SCMP_CMP_MASKED_EQ") == 0;

                cmp[i] = (struct scmp_arg_cmp){(unsigned)json_int(a, "index", 0), masked ? SCMP_CMP_MASKED_EQ : SCMP_CMP_EQ,
                                               (uint64_t)json_int(a, "value", 0), (uint64_t)json_int(a, "valueTwo", 0)};
        }
        for (size_t i = 0; i < json_object_array_length(names); i++) {
                int nr = seccomp_syscall_resolve_name(json_object_get_string(json_object_array_get_idx(names, i)));

                /* Names this libseccomp does not know (or that another architecture has) are skipped, as runtimes do. */
                if (nr != __NR_SCMP_ERROR && nr >= 0 && seccomp_rule_add_array(ctx, action, nr, (unsigned)n_args, cmp) < 0)
                        return -1;
        }
        return 0;
}

static int load_profile(void)
{
        _cleanup_json_ json_object *o = profile();
        json_object *rules = json_get(o, "syscalls");
        scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));

        for (size_t i = 0; i < json_object_array_length(rules); i++)
                if (load_rule(ctx, json_object_array_get_idx(rules, i)) < 0)
                        return -1;
        int r = seccomp_load(ctx);
        seccomp_release(ctx);
        return r;
}

struct probe {
        long nr, a, b, c;
        int error; /* expected; 0 = not refused by the filter */
};

#define AF_VSOCK_ 40
#define AF_ALG_   38

static const struct probe probes[] = {
        {SYS_socket, AF_VSOCK_, SOCK_STREAM, 0, EPERM},
        {SYS_socket, AF_ALG_, SOCK_SEQPACKET, 0, EPERM},
        {SYS_socket, AF_PACKET, SOCK_DGRAM, 0, EPERM},
        {SYS_socket, AF_BLUETOOTH, SOCK_RAW, 0, EPERM},
        {SYS_socket, AF_NETLINK, SOCK_RAW, 12 /* netfilter */, EPERM},
        {SYS_socket, AF_INET | (1L << 32), SOCK_STREAM, 0, EPERM},
        {SYS_socket, AF_INET, SOCK_STREAM, 0, 0},
        {SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0},
        {SYS_socket, AF_NETLINK, SOCK_RAW, 0, 0},
        {SYS_ptrace, 0, 0, 0, EPERM},
        {SYS_process_vm_readv, 0, 0, 0, EPERM},
        {SYS_keyctl, 0, 0, 0, EPERM},
        {SYS_add_key, 0, 0, 0, EPERM},
        {SYS_userfaultfd, 0, 0, 0, EPERM},
        {SYS_io_uring_setup, 1, 0, 0, EPERM},
        {SYS_bpf, 0, 0, 0, EPERM},
        {SYS_perf_event_open, 0, 0, 0, EPERM},
        {SYS_unshare, CLONE_NEWUSER, 0, 0, EPERM},
        {SYS_unshare, 0, 0, 0, EPERM},
        {SYS_setns, -1, 0, 0, EPERM},
        {SYS_clone, CLONE_NEWUSER | 17, 0, 0, EPERM},
        {SYS_clone, CLONE_NEWNET | 17, 0, 0, EPERM},
        {SYS_clone, CLONE_NEWCGROUP | 17, 0, 0, EPERM},
        {SYS_clone3, 0, 0, 0, ENOSYS},
        {SYS_mount, 0, 0, 0, EPERM},
        {SYS_personality, 0x0400000 /* READ_IMPLIES_EXEC */, 0, 0, EPERM},
        {SYS_personality, 0xffffffffL, 0, 0, 0},
        {SYS_mknodat, -1, 0, S_IFCHR | 0600, EPERM},
        {SYS_mknodat, -1, 0, S_IFBLK | 0600, EPERM},
        {SYS_getpid, 0, 0, 0, 0},
        {SYS_getrandom, 0, 0, 0, 0},
};

static void *nothing(void *p)
{
        return p;
}

/* Exit code 0: all as expected; else 1 + the probe's number, 100 and up for the rest. */
static _noreturn_ void child(void)
{
        pthread_t thread;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || load_profile() < 0)
                _exit(100);
        for (size_t i = 0; i < ELEMENTSOF(probes); i++) {
                const struct probe *p = &probes[i];
                long r = syscall(p->nr, p->a, p->b, p->c, 0, 0, 0);

                if (p->error ? r != -1 || errno != p->error : r < 0)
                        _exit(1 + (int)i);
        }
        if (pthread_create(&thread, NULL, nothing, NULL) != 0 || pthread_join(thread, NULL) != 0)
                _exit(101);
        pid_t pid = fork();
        if (pid == 0)
                _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
                _exit(102);
        if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
                _exit(103);
        _exit(0);
}

static void holds_in_the_kernel(_unused_ void **state)
{
        int status = 0;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                child();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(never_names_what_breaks_out),
                cmocka_unit_test(filters_arguments),
                cmocka_unit_test(holds_in_the_kernel),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
