#include "tests/unit/test_smoke_harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/smoke/talk.h"
#include "common/spawn.h"

static char *built(const char *path)
{
        const char *top = getenv("top_builddir");

        return mem_printf("%s/%s", top ? top : ".", path);
}

pid_t harness_start(const char *const *argv, int in, int out, int errors)
{
        _cleanup_free_ char *path = built(argv[0]);
        pid_t pid = fork();

        if (pid != 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (in >= 0)
                dup2(in, STDIN_FILENO);
        if (out >= 0)
                dup2(out, STDOUT_FILENO);
        if (errors >= 0)
                dup2(errors, STDERR_FILENO);
        for (int fd = 3; fd < 256; fd++)
                close(fd);
        execv(path, (char *const *)(const void *)argv);
        _exit(127);
}

void harness_stop(pid_t pid)
{
        if (pid <= 0)
                return;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

int harness_listen(uint16_t *port)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(a);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0 || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
                abort();
        *port = ntohs(a.sin_port);
        return fd;
}

/* -- in place of the Engine's attach stream ---------------------------------------------------------------------------------- */

static bool put(int fd, const void *data, size_t n)
{
        const char *p = data;

        while (n > 0) {
                ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
                if (k <= 0)
                        return false;
                p += k;
                n -= (size_t)k;
        }
        return true;
}

static bool put_frames(int fd, int stream, const char *data, size_t n, size_t split)
{
        while (n > 0) {
                size_t part = split ? MIN(n, split) : n;
                unsigned char header[8] = {(unsigned char)stream, 0, 0, 0, 0, 0, (unsigned char)(part >> 8), (unsigned char)part};
                header[5] = (unsigned char)(part >> 16);
                if (!put(fd, header, 8) || !put(fd, data, part))
                        return false;
                data += part;
                n -= part;
        }
        return true;
}

/* false: that end is closed. */
static bool relay(struct pollfd *p, int stream, int fd, size_t split)
{
        char bytes[32768];
        ssize_t n;

        if (!p->revents)
                return true;
        n = read(p->fd, bytes, sizeof(bytes));
        if (n <= 0 || !put_frames(fd, stream, bytes, (size_t)n, split)) {
                p->fd = -1;
                return n <= 0;
        }
        return true;
}

_noreturn_ static void attach_loop(int fd, int in, int out, int errors, size_t split)
{
        struct pollfd p[3] = {{.fd = fd, .events = POLLIN}, {.fd = out, .events = POLLIN}, {.fd = errors, .events = POLLIN}};
        char bytes[4096];

        while (p[1].fd >= 0 || p[2].fd >= 0) {
                if (poll(p, 3, -1) < 0)
                        break;
                if (p[0].revents) {
                        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
                        if (n <= 0)
                                break;
                        if (write(in, bytes, (size_t)n) < 0)
                                p[0].fd = -1;
                }
                if (!relay(&p[1], 1, fd, split) || !relay(&p[2], 2, fd, split))
                        break;
        }
        _exit(0);
}

static pid_t start_attached(const struct harness *h, int fd)
{
        pid_t pid = fork();

        if (pid != 0)
                return pid;
        int in[2], out[2], errors[2];
        if (pipe(in) < 0 || pipe(out) < 0 || pipe(errors) < 0)
                _exit(1);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGPIPE, SIG_IGN);
        harness_start(h->server, in[0], out[1], errors[1]);
        close(in[0]);
        close(out[1]);
        close(errors[1]);
        fcntl(in[1], F_SETFL, O_NONBLOCK);
        attach_loop(fd, in[1], out[0], errors[0], h->split);
}

/* -- in place of the parent that connects ------------------------------------------------------------------------------------ */

static void hand_over(int fd, int c)
{
        char reply = c < 0 ? TALK_REFUSED : TALK_CONNECTED;
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {.iov_base = &reply, .iov_len = 1};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

        if (c >= 0) {
                m.msg_control = control.bytes;
                m.msg_controllen = sizeof(control.bytes);
                CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
                CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
                CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &c, sizeof(int));
        }
        (void)!sendmsg(fd, &m, MSG_NOSIGNAL);
}

static pid_t start_connector(const struct harness *h, int fd)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(h->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        pid_t pid = fork();
        char ask;

        if (pid != 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (unsigned given = 0; recv(fd, &ask, 1, 0) == 1;) {
                int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (given++ == TALK_MAX_CONNECTIONS) {
                        ask = TALK_EXHAUSTED;
                        (void)!send(fd, &ask, 1, MSG_NOSIGNAL);
                        continue;
                }
                if (connect(c, (struct sockaddr *)&a, sizeof(a)) < 0) {
                        poll(NULL, 0, 50);
                        hand_over(fd, -1);
                        given--;
                } else {
                        hand_over(fd, c);
                }
                close(c);
        }
        _exit(0);
}

/* -- the helper ---------------------------------------------------------------------------------------------------------------- */

static char *request_text(const struct harness *h)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        json_object *call = NULL, *headers = NULL;

        json_add_str(o, "transport", h->transport);
        json_add_int(o, "timeout_ms", h->timeout_ms ? h->timeout_ms : 10000);
        json_add_int(o, "probe_ms", h->probe_ms ? h->probe_ms : 2000);
        json_add_int(o, "settle_ms", 50);
        json_add_int(o, "max_bytes", h->max_bytes ? h->max_bytes : 4 << 20);
        if (h->port) {
                json_add_str(o, "address", "127.0.0.1");
                json_add_int(o, "port", h->port);
                json_add_str(o, "path", "/mcp");
        }
        if (h->call && json_parse(&call, h->call, strlen(h->call), "call", NULL, NULL) == 0)
                json_add(o, "call", call);
        if (h->headers && json_parse(&headers, h->headers, strlen(h->headers), "headers", NULL, NULL) == 0)
                json_add(o, "headers", headers);
        return json_canonical(o);
}

static json_object *run_helper(const struct harness *h, int fd)
{
        _cleanup_free_ char *helper = built("bulkhead-smoke-talk"), *request = request_text(h);
        const char *argv[] = {helper, NULL};
        const struct json_limits limits = {.max_bytes = 64 << 20};
        struct spawn_options o = {.argv = argv,
                                  .input = request,
                                  .input_len = strlen(request),
                                  .max_output = 64 << 20,
                                  .timeout_ms = 60000,
                                  .pass_fds = &fd,
                                  .n_pass_fds = 1,
                                  .drop_caps = true,
                                  .max_address_space = h->address_space};
        struct spawn_result r = {0};
        _cleanup_err_ struct err *err = NULL;
        json_object *ret = NULL;

        if (spawn_run(&r, &o, &err) < 0 || spawn_result_check(&r, "helper", &err) < 0 ||
            json_parse(&ret, r.out.data, r.out.len, "answer", &limits, &err) < 0) {
                if (!h->may_die)
                        fprintf(stderr, "helper: %s\n", err_msg(err));
        }
        spawn_result_deinit(&r);
        return ret;
}

json_object *harness_run(const struct harness *h, uint64_t *took_ms)
{
        bool stdio = str_eq(h->transport, "stdio");
        uint64_t begin = talk_now_ms();
        int pair[2];
        pid_t server = -1, other;
        json_object *ret;

        if (socketpair(AF_UNIX, (stdio ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0, pair) < 0)
                return NULL;
        if (!stdio && h->server)
                server = harness_start(h->server, -1, -1, -1);
        other = stdio ? start_attached(h, pair[1]) : start_connector(h, pair[1]);
        close(pair[1]);
        ret = run_helper(h, pair[0]);
        close(pair[0]);
        harness_stop(other);
        harness_stop(server);
        if (took_ms)
                *took_ms = talk_now_ms() - begin;
        return ret;
}
