#include "tests/rig/link_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/file.h"
#include "common/mem.h"

#define FRAME (32U << 10) /* what the Engine puts into one frame at most */

/* -- the frames: a thread for every server, which ends when the server's output does ------------------------------------------------ */
struct framer {
        int socket, out[2]; /* standard output and standard error */
};

/* The server may have made its standard input, which is this socket too, non-blocking. */
static bool write_frame(int fd, unsigned char stream, const char *data, size_t n)
{
        unsigned char header[8] = {stream,          0, 0, 0, (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
                                   (unsigned char)n};
        struct iovec v[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)data, n}};
        struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};

        while (v[0].iov_len + v[1].iov_len > 0) {
                struct pollfd p = {.fd = fd, .events = POLLOUT};
                ssize_t sent = sendmsg(fd, &m, MSG_NOSIGNAL);

                if (sent < 0 && errno != EAGAIN)
                        return false;
                if (sent < 0 && poll(&p, 1, -1) < 0)
                        return false;
                for (int i = 0; i < 2 && sent > 0; i++) {
                        size_t k = MIN((size_t)sent, v[i].iov_len);
                        v[i].iov_base = (char *)v[i].iov_base + k;
                        v[i].iov_len -= k;
                        sent -= (ssize_t)k;
                }
        }
        return true;
}

static void *run_framer(void *arg)
{
        struct framer *f = arg;
        struct pollfd p[2] = {{.fd = f->out[0], .events = POLLIN}, {.fd = f->out[1], .events = POLLIN}};
        char *data = mem_realloc(NULL, FRAME, 1);
        bool listened = true; /* nobody does any more: what the server says is taken all the same, as the Engine would */

        while (p[0].fd >= 0 || p[1].fd >= 0) {
                if (poll(p, 2, -1) < 0)
                        continue;
                for (unsigned i = 0; i < 2; i++) {
                        if (p[i].fd < 0 || !p[i].revents)
                                continue;
                        ssize_t n = read(p[i].fd, data, FRAME);
                        if (n <= 0)
                                p[i].fd = -1;
                        else if (listened)
                                listened = write_frame(f->socket, (unsigned char)(i + 1), data, (size_t)n);
                }
        }
        shutdown(f->socket, SHUT_RDWR);
        close(f->socket);
        close(f->out[0]);
        close(f->out[1]);
        free(data);
        free(f);
        return NULL;
}

static int start_framer(int socket, int out, int errors, struct err **err)
{
        struct framer *f = NEW(struct framer);
        pthread_t thread;
        sigset_t all, before;
        int r;

        *f = (struct framer){socket, {out, errors}};
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&thread, NULL, run_framer, f);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r != 0) {
                free(f);
                return err_sys(err, r, "starting a thread");
        }
        pthread_detach(thread);
        return 0;
}

/* -- the process --------------------------------------------------------------------------------------------------------------------- */
static _Noreturn void become(char *const *command, int in, int out, int errors)
{
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if ((in >= 0 && dup2(in, STDIN_FILENO) < 0) || (out >= 0 && dup2(out, STDOUT_FILENO) < 0) ||
            (errors >= 0 && dup2(errors, STDERR_FILENO) < 0))
                _exit(126);
        execvp(command[0], command);
        _exit(127);
}

static int start_plain(pid_t *ret, char *const *command, struct err **err)
{
        _cleanup_fd_ int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
        pid_t pid = fork();

        if (pid == 0)
                become(command, nothing, STDERR_FILENO, -1);
        if (pid < 0)
                return err_sys(err, errno, "starting %s", command[0]);
        *ret = pid;
        return 0;
}

static int start_streaming(pid_t *ret, int ours[3], const int theirs[3], char *const *command, struct err **err)
{
        pid_t pid = fork();

        if (pid == 0)
                become(command, theirs[0], theirs[1], theirs[2]);
        if (pid < 0)
                return err_sys(err, errno, "starting %s", command[0]);
        *ret = pid;
        /* The socket is the server's standard input and the framer's way out. */
        return start_framer(theirs[0], TAKE_FD(ours[1]), TAKE_FD(ours[2]), err);
}

int link_server_start(pid_t *ret, int *stream, char *const *command, struct err **err)
{
        int in[2] = {-1, -1}, out[2] = {-1, -1}, errors[2] = {-1, -1}, rc;

        if (!stream)
                return start_plain(ret, command, err);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0)
                return err_sys(err, errno, "making a stream for %s", command[0]);
        rc = start_streaming(ret, (int[3]){in[0], out[0], errors[0]}, (int[3]){in[1], out[1], errors[1]}, command, err);
        close(out[1]);
        close(errors[1]);
        *stream = in[0];
        return rc;
}
