#include "tests/unit/test_front_harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sodium.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int count_fds(void)
{
        DIR *d = opendir("/proc/self/fd");
        int n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

uint64_t rig_now_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct front_limits rig_limits(void)
{
        return (struct front_limits){.max_body = 64 << 10,
                                     .max_header = 4096,
                                     .max_connections = 2000,
                                     .max_per_address = 2000,
                                     .header_timeout_ms = 5000,
                                     .idle_timeout_ms = 5000,
                                     .heartbeat_ms = 5000,
                                     .max_queued = 64 << 10};
}

static void on_request(struct exchange *x, void *user)
{
        struct rig *r = user;

        r->requests++;
        snprintf(r->last_path, sizeof(r->last_path), "%s", exchange_path(x));
        r->serve(r, x);
}

struct rig *rig_start(const struct front_limits *limits, const char *token, char *const *hosts)
{
        struct rig *r = NEW(struct rig);
        unsigned char hash[crypto_hash_sha256_BYTES];
        char hex[2 * sizeof(hash) + 1];
        struct err *err = NULL;

        signal(SIGPIPE, SIG_IGN);
        assert_true(sodium_init() >= 0);
        r->n_fds = count_fds();
        r->serve = serve_echo;
        if (token) {
                crypto_hash_sha256(hash, (const unsigned char *)token, strlen(token));
                hex_encode(hex, hash, sizeof(hash));
        }
        struct front_config config = {.name = "test",
                                      .address = "127.0.0.1",
                                      .listen_fd = -1,
                                      .allowed_hosts = hosts,
                                      .token_sha256 = token ? hex : NULL,
                                      .limits = limits ? *limits : rig_limits()};
        assert_true(sd_event_new(&r->loop) >= 0);
        assert_ok(front_new(&r->front, r->loop, &config, on_request, r, &err));
        r->port = front_port(r->front);
        return r;
}

struct front_counts rig_counts(const struct rig *r)
{
        struct front_counts c;

        front_counts(r->front, &c);
        return c;
}

void rig_stop(struct rig *r)
{
        assert_true(rig_until(r, rig_counts(r).open_connections + rig_counts(r).open_streams == 0));
        assert_int_equal(rig_counts(r).open_exchanges, 0);
        front_free(r->front);
        sd_event_unref(r->loop);
        assert_int_equal(count_fds(), r->n_fds);
        free(r);
}

/* -- serving ----------------------------------------------------------------------------------------------------------------- */

void serve_echo(_unused_ struct rig *r, struct exchange *x)
{
        struct buf b = {0};
        size_t n;
        const char *body = exchange_body(x, &n);

        buf_addf(&b, "%s %s ", exchange_method(x), exchange_path(x));
        buf_add(&b, body, n);
        exchange_add_header(x, "X-Test", "yes");
        exchange_answer(x, 200, "text/plain", &b);
}

static void on_left(struct exchange *x, void *user)
{
        struct rig *r = user;

        r->left++;
        for (size_t i = 0; i < r->n_held; i++)
                if (r->held[i] == x)
                        r->held[i] = NULL;
}

void serve_hold(struct rig *r, struct exchange *x)
{
        assert_true(r->n_held < ELEMENTSOF(r->held));
        r->held[r->n_held++] = x;
        exchange_on_left(x, on_left, r);
}

void serve_stream(struct rig *r, struct exchange *x)
{
        serve_hold(r, x);
        exchange_stream(x);
}

/* -- time -------------------------------------------------------------------------------------------------------------------- */

void rig_turn(struct rig *r)
{
        assert_true(sd_event_run(r->loop, 1000) >= 0);
}

void rig_run(struct rig *r, unsigned ms)
{
        uint64_t until = rig_now_ms() + ms;

        while (rig_now_ms() < until)
                rig_turn(r);
}

/* -- clients ----------------------------------------------------------------------------------------------------------------- */

int rig_dial(const struct rig *r)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(r->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

        assert_true(fd >= 0);
        /* What is said in pieces arrives in pieces, and at once. */
        assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
        return fd;
}

void rig_say_n(struct rig *r, int fd, const char *bytes, size_t n)
{
        while (n > 0) {
                ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
                if (sent < 0 && errno != EAGAIN)
                        return; /* the other side has had enough */
                if (sent > 0) {
                        bytes += sent;
                        n -= (size_t)sent;
                }
                rig_turn(r);
        }
}

void rig_say(struct rig *r, int fd, const char *text)
{
        _cleanup_buf_ struct buf b = {0};

        for (; *text; text++)
                if (*text == '@')
                        buf_addf(&b, "127.0.0.1:%u", (unsigned)r->port);
                else
                        buf_addc(&b, *text);
        rig_say_n(r, fd, b.data, b.len);
}

/* Looks for its headers in the head only: an answer of many megabytes is asked about often. */
static bool is_whole(const struct buf *b)
{
        static const char length[] = "Content-Length: ", chunked[] = "Transfer-Encoding: chunked";
        const char *end = b->data ? memmem(b->data, MIN(b->len, 8192U), "\r\n\r\n", 4) : NULL;

        if (!end || str_has_prefix(b->data, "HTTP/1.1 100"))
                return false;
        size_t head = (size_t)(end + 4 - b->data);
        if (memmem(b->data, head, chunked, strlen(chunked)))
                return b->len >= 7 && memcmp(b->data + b->len - 7, "\r\n0\r\n\r\n", 7) == 0;
        const char *n = memmem(b->data, head, length, strlen(length));
        return n && b->len >= head + strtoul(n + strlen(length), NULL, 10);
}

char *rig_hear(struct rig *r, int fd, unsigned ms)
{
        uint64_t until = rig_now_ms() + ms;
        struct buf b = {0};
        char part[4096];

        while (rig_now_ms() < until && !is_whole(&b)) {
                ssize_t n = recv(fd, part, sizeof(part), 0);
                if (n > 0)
                        buf_add(&b, part, (size_t)n);
                else if (n == 0 || errno != EAGAIN)
                        break;
                else
                        rig_turn(r);
        }
        return buf_take(&b);
}

bool rig_is_closed(struct rig *r, int fd, unsigned ms)
{
        uint64_t until = rig_now_ms() + ms;
        char part[4096];

        while (rig_now_ms() < until) {
                ssize_t n = recv(fd, part, sizeof(part), 0);
                if (n == 0 || (n < 0 && errno != EAGAIN))
                        return true;
                rig_turn(r);
        }
        return false;
}

char *rig_ask(struct rig *r, const char *text)
{
        int fd = rig_dial(r);

        rig_say(r, fd, text);
        char *answer = rig_hear(r, fd, 1000);
        close(fd);
        return answer;
}

unsigned status_of(const char *answer)
{
        return str_has_prefix(answer, "HTTP/1.1 ") ? (unsigned)strtoul(answer + 9, NULL, 10) : 0;
}
