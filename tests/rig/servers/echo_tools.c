#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/rig/servers/echo.h"

#define MAX_FILE (64U << 10)

extern char **environ;

static void add_file(struct buf *b, const char *path)
{
        char bytes[4096];
        ssize_t n;
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0) {
                buf_addf(b, "%s: %s\n", path, strerror(errno));
                return;
        }
        while (b->len < MAX_FILE && (n = read(fd, bytes, sizeof(bytes))) > 0)
                for (ssize_t i = 0; i < n; i++)
                        buf_addc(b, bytes[i] && (unsigned char)bytes[i] < 0x80 ? bytes[i] : '?');
        close(fd);
}

static char *run_echo(json_object *a, bool *failed)
{
        const char *text = json_str(a, "text");

        *failed = !text;
        return mem_strdup(text ? text : "no \"text\"");
}

static char *run_env(_unused_ json_object *a, _unused_ bool *failed)
{
        struct buf b = {0};

        for (char **e = environ; *e; e++)
                buf_addf(&b, "%s\n", *e);
        return buf_take(&b);
}

static char *run_read(json_object *a, bool *failed)
{
        const char *path = json_str(a, "path");
        struct buf b = {0};

        if (!path || access(path, R_OK) < 0) {
                *failed = true;
                return mem_printf("%s: %s", path ? path : "no \"path\"", strerror(errno));
        }
        add_file(&b, path);
        return buf_take(&b);
}

static char *run_write(json_object *a, bool *failed)
{
        const char *path = json_str(a, "path"), *text = json_str(a, "text");
        int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700) : -1;

        *failed = fd < 0 || write(fd, text ? text : "x", text ? strlen(text) : 1) < 0;
        if (fd >= 0)
                close(fd);
        return mem_strdup(*failed ? strerror(errno) : "written");
}

static char *run_exec(json_object *a, bool *failed)
{
        const char *path = json_str(a, "path");
        char *const argv[] = {mem_strdup(path ? path : ""), NULL}, *const env[] = {NULL};
        int status = 0;
        pid_t pid = fork();

        if (pid == 0) {
                execve(argv[0], argv, env);
                _exit(errno & 0x7f);
        }
        free(argv[0]);
        *failed = pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0;
        return mem_printf("%s", pid < 0                                    ? strerror(errno)
                                : WIFEXITED(status) && WEXITSTATUS(status) ? strerror(WEXITSTATUS(status))
                                                                           : "executed");
}

/* Each section begins with "== path". */
static char *run_status(_unused_ json_object *a, _unused_ bool *failed)
{
        static const char *const files[] = {
                "/proc/self/status",
                "/proc/self/mounts",
                "/proc/self/limits",
                "/proc/self/cgroup",
                "/proc/net/route",
                "/proc/net/if_inet6",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/pids.max",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/cpu.max",
                "/sys/fs/cgroup/pids/pids.max",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                "/etc/resolv.conf",
        };
        struct buf b = {0};

        buf_addf(&b, "uid %u gid %u pid %d\n", getuid(), getgid(), getpid());
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                buf_addf(&b, "== %s\n", files[i]);
                add_file(&b, files[i]);
        }
        return buf_take(&b);
}

static char *run_sleep(json_object *a, _unused_ bool *failed)
{
        int64_t ms = json_int(a, "ms", 0);

        poll(NULL, 0, ms > 0 && ms < 600000 ? (int)ms : 0);
        return mem_strdup("slept");
}

/* -- connect --------------------------------------------------------------------------------------------------------------- */

struct target {
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        } to;
        socklen_t len;
        int timeout;
};

static bool take_target(struct target *t, const char *host, unsigned port)
{
        *t = (struct target){0};
        if (host && inet_pton(AF_INET, host, &t->to.v4.sin_addr) == 1) {
                t->to.v4.sin_family = AF_INET;
                t->to.v4.sin_port = htons((uint16_t)port);
                t->len = sizeof(t->to.v4);
        } else if (host && inet_pton(AF_INET6, host, &t->to.v6.sin6_addr) == 1) {
                t->to.v6.sin6_family = AF_INET6;
                t->to.v6.sin6_port = htons((uint16_t)port);
                t->len = sizeof(t->to.v6);
        }
        return t->len > 0;
}

static const char *try_stream(const struct target *t, int protocol)
{
        int fd = socket(t->to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol), e = 0;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        socklen_t len = sizeof(e);

        if (fd < 0)
                return strerror(errno);
        if (connect(fd, &t->to.any, t->len) < 0 && errno != EINPROGRESS)
                e = errno;
        else if (poll(&p, 1, t->timeout) <= 0)
                e = ETIMEDOUT;
        else
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
        close(fd);
        return e ? strerror(e) : NULL;
}

/* Sends and waits for any answer: a datagram that nobody answers may still have arrived, so tests count on the far side. */
static const char *try_datagram(const struct target *t, int type, int protocol, const void *data, size_t n)
{
        int fd = socket(t->to.any.sa_family, type | SOCK_CLOEXEC, protocol), e = 0;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char answer[512];

        if (fd < 0)
                return strerror(errno);
        if (connect(fd, &t->to.any, t->len) < 0 || send(fd, data, n, 0) < 0)
                e = errno;
        else if (poll(&p, 1, t->timeout) <= 0)
                e = ETIMEDOUT;
        else if (recv(fd, answer, sizeof(answer), 0) < 0)
                e = errno;
        close(fd);
        return e ? strerror(e) : NULL;
}

static const char *try_packet(void)
{
        int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));

        if (fd < 0)
                return strerror(errno);
        close(fd);
        return NULL;
}

static const char *try_icmp(const struct target *t, int type)
{
        struct icmphdr echo = {.type = t->to.any.sa_family == AF_INET6 ? 128 : ICMP_ECHO};

        return try_datagram(t, type, t->to.any.sa_family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, &echo, sizeof(echo));
}

static const char *try_one(const struct target *t, const char *proto)
{
        if (str_eq(proto, "udp"))
                return try_datagram(t, SOCK_DGRAM, 0, "bulkhead", 8);
        if (str_eq(proto, "icmp"))
                return try_icmp(t, SOCK_DGRAM);
        if (str_eq(proto, "icmp-raw"))
                return try_icmp(t, SOCK_RAW);
        if (str_eq(proto, "sctp"))
                return try_stream(t, IPPROTO_SCTP);
        if (str_eq(proto, "gre"))
                return try_datagram(t, SOCK_RAW, IPPROTO_GRE, "bulkhead", 8);
        if (str_eq(proto, "packet"))
                return try_packet();
        return try_stream(t, 0);
}

static char *run_connect(json_object *a, bool *failed)
{
        int64_t port = json_int(a, "port", 1), timeout = json_int(a, "timeout_ms", 1500);
        const char *proto = json_str(a, "proto"), *why;
        struct target t;

        if (!take_target(&t, json_str(a, "host"), (unsigned)(port & 0xffff))) {
                *failed = true;
                return mem_strdup("\"host\" is not an address");
        }
        t.timeout = timeout > 0 && timeout < 60000 ? (int)timeout : 1500;
        why = try_one(&t, proto);
        return mem_printf("%s", why ? why : "connected");
}

void echo_probe_start(const char *host, unsigned port, unsigned ms)
{
        struct target t;
        struct timespec begin, now;

        if (!take_target(&t, host, port) || fork() != 0)
                return;
        t.timeout = 1;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        do {
                try_stream(&t, 0);
                try_datagram(&t, SOCK_DGRAM, 0, "bulkhead", 8);
                try_icmp(&t, SOCK_DGRAM);
                clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < (long)ms);
        _exit(0);
}

#define STRING  "{\"type\":\"string\"}"
#define INTEGER "{\"type\":\"integer\"}"

/* Whatever could be answered was, in echo_answer.c. */
static char *run_fill(_unused_ json_object *a, bool *failed)
{
        *failed = true;
        return mem_strdup("no \"bytes\", or too many");
}

const struct echo_tool echo_tools[] = {
        {"echo", "Gives the text back", "{\"text\":" STRING "}", run_echo},
        {"env", "Shows the environment", "{}", run_env},
        {"status", "Shows /proc/self/status, mounts, limits, control groups and routes", "{}", run_status},
        {"read_file", "Reads up to 64 KiB of a file", "{\"path\":" STRING "}", run_read},
        {"write_file", "Writes a file", "{\"path\":" STRING ",\"text\":" STRING "}", run_write},
        {"exec", "Runs a file", "{\"path\":" STRING "}", run_exec},
        {"fill", "Gives so many bytes of text", "{\"bytes\":" INTEGER "}", run_fill},
        {"sleep", "Answers later", "{\"ms\":" INTEGER "}", run_sleep},
        {"connect", "Tries to reach an address over tcp, udp, icmp, icmp-raw, sctp, gre or packet: \"connected\" or why not",
         "{\"host\":" STRING ",\"port\":" INTEGER ",\"proto\":" STRING ",\"timeout_ms\":" INTEGER "}", run_connect},
};
const size_t echo_n_tools = ELEMENTSOF(echo_tools);
