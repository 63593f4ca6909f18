/* What the broker cannot do any more once it is confined, and what it still can. Each in a child, because nothing of it can be undone. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/confine.h"
#include "common/file.h"

#define SANITIZED 98 /* exit status: built with a sanitizer, with which nothing is confined */

static char directory[] = "/tmp/bh-confine-XXXXXX";

static bool is_refused(const char *what, bool worked)
{
        if (!worked && (errno == EPERM || errno == EACCES))
                return true;
        dprintf(STDERR_FILENO, "%s: %s\n", what, worked ? "worked" : strerror(errno));
        return false;
}

static bool forks(void)
{
        pid_t pid = fork();

        if (pid == 0)
                _exit(0);
        if (pid > 0)
                waitpid(pid, NULL, 0);
        return pid > 0;
}

static bool opens(const char *path, int flags)
{
        int fd = open(path, flags | O_CLOEXEC, 0600);

        if (fd >= 0)
                close(fd);
        return fd >= 0;
}

/* Number of things that were not refused. */
static int try_programs(void)
{
        char *const argv[] = {(char *)"false", NULL}, *const env[] = {NULL};
        int bad = 0;

        bad += !is_refused("execve", execve("/bin/false", argv, env) >= 0);
        bad += !is_refused("fork", forks());
        bad += !is_refused("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL) >= 0);
        bad += !is_refused("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0) >= 0);
        bad += !is_refused("kill", kill(getppid(), 0) >= 0);
        bad += !is_refused("mount", mount("none", "/tmp", "tmpfs", 0, NULL) >= 0);
        bad += !is_refused("unshare", unshare(CLONE_NEWUSER) >= 0);
        bad += !is_refused("bpf", syscall(SYS_bpf, 0, NULL, 0) >= 0);
        bad += !is_refused("io_uring", syscall(SYS_io_uring_setup, 1, NULL) >= 0);
        bad += !is_refused("executable memory", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
        return bad;
}

static int try_sockets(void)
{
        struct sockaddr_storage name;
        socklen_t n = sizeof(name);
        int bad = 0, pair[2];

        bad += !is_refused("netlink", socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
        bad += !is_refused("udp", socket(AF_INET, SOCK_DGRAM, 0) >= 0);
        bad += !is_refused("raw", socket(AF_INET, SOCK_RAW, IPPROTO_TCP) >= 0);
        bad += !is_refused("packet", socket(AF_PACKET, SOCK_RAW, 0) >= 0);
        bad += !is_refused("vsock", socket(AF_VSOCK, SOCK_STREAM, 0) >= 0);
        bad += !is_refused("bind", bind(STDIN_FILENO, NULL, 0) >= 0);
        bad += !is_refused("listen", listen(STDIN_FILENO, 1) >= 0);
        bad += !is_refused("a pair of sockets", socketpair(AF_UNIX, SOCK_STREAM, 0, pair) >= 0);
        bad += !is_refused("a pipe", pipe2(pair, O_CLOEXEC) >= 0);
        bad += !is_refused("who is there", getpeername(STDIN_FILENO, (struct sockaddr *)&name, &n) >= 0);
        return bad;
}

static int try_files(void)
{
        _cleanup_free_ char *inside = mem_printf("%s/readable", directory), *fresh = mem_printf("%s/fresh", directory);
        int bad = 0;

        bad += !is_refused("reading /etc/passwd", opens("/etc/passwd", O_RDONLY));
        bad += !is_refused("reading /proc", opens("/proc/self/mem", O_RDONLY));
        bad += !is_refused("listing /", opens("/", O_RDONLY | O_DIRECTORY));
        bad += !is_refused("writing", opens(inside, O_WRONLY));
        bad += !is_refused("creating", opens(fresh, O_RDWR | O_CREAT));
        bad += !is_refused("a nameless file", opens("/tmp", O_TMPFILE | O_WRONLY));
        bad += !is_refused("truncating", opens(inside, O_RDONLY | O_TRUNC));
        bad += !is_refused("unlink", unlink(inside) >= 0);
        bad += !is_refused("rename", rename(inside, fresh) >= 0);
        bad += !is_refused("symlink", symlink(inside, fresh) >= 0);
        bad += !is_refused("chmod", chmod(inside, 0777) >= 0);
        return bad;
}

/* What must go on working. */
static int try_needed(void)
{
        _cleanup_free_ char *inside = mem_printf("%s/readable", directory);
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), bad = 0;

        bad += fd < 0 || (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINPROGRESS && errno != ECONNREFUSED);
        bad += socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) < 0;
        bad += socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0;
        bad += epoll_create1(EPOLL_CLOEXEC) < 0;
        bad += !opens(inside, O_RDONLY | O_NOFOLLOW);
        bad += sched_yield() < 0;
        char *memory = malloc(64U << 20);
        bad += !memory;
        free(memory);
        return bad;
}

/* With a directory of state: there, and nowhere else. */
static int try_state(void)
{
        _cleanup_free_ char *inside = mem_printf("%s/readable", directory), *fresh = mem_printf("%s/fresh", directory);
        int bad = 0;

        bad += !opens(fresh, O_RDWR | O_CREAT | O_TRUNC);
        bad += rename(fresh, inside) < 0;
        bad += !opens(fresh, O_WRONLY | O_CREAT);
        bad += unlink(fresh) < 0;
        bad += file_write_atomic(fresh, "x", 1, 0600, NULL) < 0;
        bad += unlink(fresh) < 0;
        bad += !is_refused("reading elsewhere", opens("/etc/passwd", O_RDONLY));
        bad += !is_refused("writing elsewhere", opens("/tmp/bh-confine-elsewhere", O_WRONLY | O_CREAT));
        bad += !is_refused("moving elsewhere", rename(inside, "/tmp/bh-confine-elsewhere") >= 0);
        bad += !is_refused("a nameless file", opens(directory, O_TMPFILE | O_WRONLY));
        bad += !is_refused("symlink", symlink(inside, fresh) >= 0);
        bad += !is_refused("a device", mknod(fresh, S_IFIFO | 0600, 0) >= 0);
        return bad;
}

static int in_child(int (*try)(void), bool writes)
{
        pid_t pid = fork();
        int status = 0;

        if (pid == 0) {
                _cleanup_err_ struct err *err = NULL;
                const char *const readable[] = {directory, NULL};
                int r = broker_confine(readable, writes ? directory : NULL, &err);
                if (r < 0)
                        dprintf(STDERR_FILENO, "%s\n", err_msg(err));
                _exit(r < 0 ? 99 : r > 0 ? SANITIZED : try());
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == SANITIZED)
                skip();
        return WEXITSTATUS(status);
}

static int setup(_unused_ void **state)
{
        assert_non_null(mkdtemp(directory));
        _cleanup_free_ char *inside = mem_printf("%s/readable", directory);
        int fd = open(inside, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        close(fd);
        return 0;
}

static int teardown(_unused_ void **state)
{
        _cleanup_free_ char *inside = mem_printf("%s/readable", directory);

        assert_int_equal(unlink(inside), 0); /* still there */
        assert_int_equal(rmdir(directory), 0);
        return 0;
}

static void test_programs(_unused_ void **state)
{
        assert_int_equal(in_child(try_programs, true), 0);
}

static void test_sockets(_unused_ void **state)
{
        assert_int_equal(in_child(try_sockets, true), 0);
}

static void test_files(_unused_ void **state)
{
        assert_int_equal(in_child(try_files, false), 0);
}

static void test_needed(_unused_ void **state)
{
        assert_int_equal(in_child(try_needed, false), 0);
}

static void test_state(_unused_ void **state)
{
        assert_int_equal(in_child(try_state, true), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_programs), cmocka_unit_test(test_sockets), cmocka_unit_test(test_files),
                cmocka_unit_test(test_needed),   cmocka_unit_test(test_state),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
