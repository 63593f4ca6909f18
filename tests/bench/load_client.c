/*
 * load_client: calls a tool again and again and says how long that took, as one line of JSON. Every answer is held against its question:
 * one lost, crossed, duplicated or changed ends it with an error. See usage().
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/attach.h"
#include "tests/bench/load.h"
#include "tests/rig/link_server.h"

#define PATIENCE_MS 60000
#define READ_SIZE   (256U << 10)

static _noreturn_ void usage(void)
{
        fputs("usage: load_client [OPTIONS] http ADDRESS:PORT/PATH     a connection and a session for each call in flight\n"
              "       load_client [OPTIONS] stdio COMMAND…             spawns the server; all calls over its standard input and output\n"
              "       load_client [OPTIONS] tcp PORT | unix PATH       the same over a stream\n"
              "       load_client [OPTIONS] attach SOCKET CONTAINER    the same over the stream that the Engine gives\n"
              "  --in-flight N   calls at once (1)\n"
              "  --calls M       for each of them (1000)\n"
              "  --warmup W      before, not counted (50)\n"
              "  --payload BYTES of text that each call sends and gets back (64)\n"
              "  --result BYTES  instead: the tool gets {\"bytes\":BYTES} and gives so much text\n"
              "  --tool NAME     (echo)\n"
              "  --argument NAME of the text (text)\n"
              "  --modern        requests of 2026-07-28; else a session of 2025-11-25\n"
              "  --framed        over a stream like the Engine's attach; what comes back is framed\n"
              "  --header LINE   one more header\n",
              stderr);
        exit(64);
}

uint64_t load_now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

void load_die(const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        fputs("load_client: ", stderr);
        vfprintf(stderr, fmt, ap);
        fputc('\n', stderr);
        va_end(ap);
        exit(1);
}

static void watch(struct stream *s, bool writing)
{
        struct epoll_event in = {.events = EPOLLIN, .data.ptr = s}, out = {.events = EPOLLOUT, .data.ptr = s};

        if (s->in == s->out)
                in.events |= writing ? (uint32_t)EPOLLOUT : 0U;
        else if (epoll_ctl(s->load->epoll, writing ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, s->out, &out) < 0 && errno != ENOENT)
                load_die("epoll: %s", strerror(errno));
        if (epoll_ctl(s->load->epoll, EPOLL_CTL_MOD, s->in, &in) < 0)
                load_die("epoll: %s", strerror(errno));
}

static size_t write_some(struct stream *s, const char *data, size_t n)
{
        size_t done = 0;

        while (done < n) {
                ssize_t k = write(s->out, data + done, n - done);
                if (k < 0 && errno == EAGAIN)
                        break;
                if (k < 0)
                        load_die("writing: %s", strerror(errno));
                done += (size_t)k;
        }
        return done;
}

void stream_write(struct stream *s, const void *data, size_t n)
{
        size_t done = s->rest.len ? 0 : write_some(s, data, n);

        if (done == n)
                return;
        buf_add(&s->rest, (const char *)data + done, n - done);
        if (!s->blocked)
                watch(s, true);
        s->blocked = true;
}

static void write_rest(struct stream *s)
{
        buf_drop(&s->rest, write_some(s, s->rest.data, s->rest.len));
        if (s->rest.len == 0) {
                s->blocked = false;
                watch(s, false);
        }
}

static void read_some(struct stream *s)
{
        ssize_t n;

        buf_reserve(&s->got, READ_SIZE);
        n = read(s->in, s->got.data + s->got.len, s->got.cap - s->got.len - 1);
        if (n < 0 && errno == EAGAIN)
                return;
        if (n <= 0)
                load_die("the other side closed the stream%s%s", n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
        s->got.len += (size_t)n;
        if (load_is_http(&s->load->o))
                http_take(s);
        else
                line_take(s);
}

static int connect_to(const struct load_options *o)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->port)};
        struct sockaddr_un u = {.sun_family = AF_UNIX};
        bool local = !o->host;
        int one = 1, fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (local)
                snprintf(u.sun_path, sizeof(u.sun_path), "%s", o->path);
        else if (inet_pton(AF_INET, o->host, &a.sin_addr) != 1)
                load_die("%s is not an IPv4 address", o->host);
        if (fd < 0 || connect(fd, local ? (struct sockaddr *)&u : (struct sockaddr *)&a, local ? sizeof(u) : sizeof(a)) < 0)
                load_die("connecting: %s", strerror(errno));
        if (!local)
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        return fd;
}

static int attach(const struct load_options *o)
{
        _cleanup_err_ struct err *err = NULL;
        int fd = attach_to(o->path, o->container, &err);

        if (fd < 0)
                load_die("%s", err_msg(err));
        return fd;
}

static void spawn(struct stream *s)
{
        int to[2], from[2];
        _cleanup_err_ struct err *err = NULL;
        pid_t pid;

        if (s->load->o.framed) {
                if (link_server_start(&pid, &s->in, s->load->o.command, &err) < 0)
                        load_die("%s", err_msg(err));
                s->out = s->in;
                return;
        }
        if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
                load_die("pipe: %s", strerror(errno));
        pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (dup2(to[0], 0) == 0 && dup2(from[1], 1) == 1)
                        execvp(s->load->o.command[0], s->load->o.command);
                perror(s->load->o.command[0]);
                _exit(127);
        }
        if (pid < 0)
                load_die("fork: %s", strerror(errno));
        close(to[0]);
        close(from[1]);
        s->in = from[0];
        s->out = to[1];
}

static void open_streams(struct load *l)
{
        bool http = load_is_http(&l->o);

        l->n_streams = http ? l->o.slots : 1;
        l->streams = mem_alloc(l->n_streams * sizeof(*l->streams));
        for (size_t i = 0; i < l->n_streams; i++) {
                struct stream *s = &l->streams[i];
                struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};

                *s = (struct stream){.load = l, .first_slot = (unsigned)i, .n_slots = http ? 1 : l->o.slots};
                if (l->o.command)
                        spawn(s);
                else
                        s->in = s->out = l->o.container ? attach(&l->o) : connect_to(&l->o);
                fcntl(s->in, F_SETFL, O_NONBLOCK);
                fcntl(s->out, F_SETFL, O_NONBLOCK);
                if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->in, &e) < 0)
                        load_die("epoll: %s", strerror(errno));
        }
        for (size_t i = 0; i < l->n_streams; i++)
                load_begin(&l->streams[i]);
}

static void run(struct load *l)
{
        while (!l->over) {
                struct epoll_event events[64];
                int n = epoll_wait(l->epoll, events, ELEMENTSOF(events), PATIENCE_MS);

                if (n == 0)
                        load_die("nothing came for %d s: an answer is lost", PATIENCE_MS / 1000);
                for (int i = 0; i < n && !l->over; i++) {
                        struct stream *s = events[i].data.ptr;
                        if ((events[i].events & EPOLLOUT) && s->blocked)
                                write_rest(s);
                        if (events[i].events & ~(uint32_t)EPOLLOUT)
                                read_some(s);
                }
        }
}

static int compare(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

static void report(struct load *l)
{
        struct rusage r;
        double seconds = (double)(l->end_ns - l->begin_ns) / 1e9, sum = 0;
        size_t n = l->n_took;

        if (n != (size_t)l->o.slots * l->o.calls)
                load_die("%zu answers to %u calls", n, l->o.slots * l->o.calls);
        for (size_t i = 0; i < n; i++)
                sum += l->took[i];
        qsort(l->took, n, sizeof(*l->took), compare);
        getrusage(RUSAGE_THREAD, &r);
        printf("{\"calls\":%zu,\"seconds\":%.4f,\"per_second\":%.1f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"mean_us\":%.2f,\"max_us\":%.2f,"
               "\"client_cpu_us\":%.2f}\n",
               n, seconds, (double)n / seconds, (double)l->took[n / 2] / 1e3, l->took[(size_t)((double)n * 0.99)] / 1e3,
               sum / (double)n / 1e3, l->took[n - 1] / 1e3,
               ((double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec)) /
                       ((double)l->o.slots * (l->o.calls + l->o.warmup)));
}

static void take_target(struct load_options *o, char **argv, int n)
{
        if (n < 2)
                usage();
        if (strcmp(argv[0], "stdio") == 0) {
                o->command = argv + 1;
        } else if (n == 2 && strcmp(argv[0], "unix") == 0) {
                o->path = argv[1];
        } else if (n == 3 && strcmp(argv[0], "attach") == 0) {
                o->path = argv[1];
                o->container = argv[2];
                o->framed = true;
        } else if (n == 2 && strcmp(argv[0], "tcp") == 0) {
                o->host = "127.0.0.1";
                o->port = (unsigned)strtoul(argv[1], NULL, 10);
        } else if (n == 2 && strcmp(argv[0], "http") == 0) {
                char *slash = strchr(argv[1], '/'), *colon = strchr(argv[1], ':');
                if (!slash || !colon || colon > slash)
                        usage();
                o->path = mem_strdup(slash);
                o->host = mem_strndup(argv[1], (size_t)(colon - argv[1]));
                o->port = (unsigned)strtoul(colon + 1, NULL, 10);
        } else {
                usage();
        }
}

static void take_options(struct load_options *o, int argc, char **argv)
{
        static const struct option names[] = {{"in-flight", 1, NULL, 'n'},
                                              {"calls", 1, NULL, 'm'},
                                              {"warmup", 1, NULL, 'w'},
                                              {"payload", 1, NULL, 'p'},
                                              {"result", 1, NULL, 'r'},
                                              {"tool", 1, NULL, 't'},
                                              {"argument", 1, NULL, 'a'},
                                              {"modern", 0, NULL, 'M'},
                                              {"framed", 0, NULL, 'f'},
                                              {"header", 1, NULL, 'H'},
                                              {0}};
        int c;

        while ((c = getopt_long(argc, argv, "+", names, NULL)) != -1) {
                switch (c) {
                case 'n':
                        o->slots = (unsigned)strtoul(optarg, NULL, 10);
                        break;
                case 'm':
                        o->calls = (unsigned)strtoul(optarg, NULL, 10);
                        break;
                case 'w':
                        o->warmup = (unsigned)strtoul(optarg, NULL, 10);
                        break;
                case 'p':
                        o->payload = strtoul(optarg, NULL, 10);
                        break;
                case 'r':
                        o->result = strtoul(optarg, NULL, 10);
                        break;
                case 't':
                        o->tool = optarg;
                        break;
                case 'a':
                        o->argument = optarg;
                        break;
                case 'M':
                        o->modern = true;
                        break;
                case 'f':
                        o->framed = true;
                        break;
                case 'H':
                        o->header = optarg;
                        break;
                default:
                        usage();
                }
        }
        if (!o->slots || !o->calls)
                usage();
        take_target(o, argv + optind, argc - optind);
}

int main(int argc, char **argv)
{
        struct load l = {.o = {.slots = 1, .calls = 1000, .warmup = 50, .payload = 64, .tool = "echo", .argument = "text"}};

        signal(SIGPIPE, SIG_IGN);
        take_options(&l.o, argc, argv);
        for (size_t i = 0; i < l.o.payload + 64; i++)
                buf_addc(&l.filler, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[i % 64]);
        l.slots = mem_alloc(l.o.slots * sizeof(*l.slots));
        l.took = mem_alloc((size_t)l.o.slots * l.o.calls * sizeof(*l.took));
        l.counting = l.o.warmup == 0;
        l.epoll = epoll_create1(EPOLL_CLOEXEC);
        open_streams(&l);
        run(&l);
        for (size_t i = 0; load_is_http(&l.o) && i < l.n_streams; i++)
                http_goodbye(&l.streams[i]);
        report(&l);
        return 0;
}
