/*
 * Any bytes on a connection of the HTTP front, whatever answers them, however they are cut. The first byte says how: the lowest two bits
 * choose the answer (at once, later, a stream, never), the others how many bytes are sent at a time (0: all). Host is "h".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sodium.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/http/front.h"
#include "common/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum answer { AT_ONCE, LATER, STREAM, NEVER };

static struct {
        sd_event *loop;
        struct front *front;
        enum answer answer;
        struct exchange *held;
} rig;

static void echo(struct exchange *x)
{
        struct buf b = {0};
        size_t n;
        const char *body = exchange_body(x, &n);

        buf_addf(&b, "%s %s %s", exchange_method(x), exchange_path(x), exchange_header(x, "mcp-session-id") ? "s" : "");
        buf_add(&b, body, n);
        exchange_answer(x, 200, "text/plain", &b);
}

static void on_left(_unused_ struct exchange *x, _unused_ void *user)
{
        rig.held = NULL;
}

static void on_request(struct exchange *x, _unused_ void *user)
{
        if (rig.held)
                abort(); /* one at a time on one connection */
        if (rig.answer == AT_ONCE) {
                echo(x);
                return;
        }
        rig.held = x;
        exchange_on_left(x, on_left, NULL);
        if (rig.answer == STREAM)
                exchange_stream(x);
}

static void answer_held(void)
{
        struct exchange *x = rig.held;
        struct buf event = {0};

        if (!x || rig.answer == NEVER)
                return;
        rig.held = NULL;
        if (!exchange_is_stream(x)) {
                echo(x);
                return;
        }
        buf_adds(&event, "data: x\n\n");
        exchange_send(x, &event);
        exchange_end(x);
}

static void set_up(void)
{
        char host[] = "h";
        char *const hosts[] = {host, NULL};
        const struct front_config config = {.name = "fuzz",
                                            .address = "127.0.0.1",
                                            .listen_fd = -1,
                                            .allowed_hosts = hosts,
                                            .limits = {.max_body = 4096,
                                                       .max_header = 2048,
                                                       .max_connections = 100,
                                                       .max_per_address = 100,
                                                       .header_timeout_ms = 60000,
                                                       .idle_timeout_ms = 60000,
                                                       .heartbeat_ms = 60000,
                                                       .max_queued = 4096}};

        if (sodium_init() < 0 || sd_event_new(&rig.loop) < 0 || front_new(&rig.front, rig.loop, &config, on_request, NULL, NULL) < 0)
                abort();
}

/* Lets the front do all it can do now; takes what it says. False when the connection is over. */
static bool settle(int fd)
{
        char said[16384];
        ssize_t n;

        while (sd_event_run(rig.loop, 0) > 0)
                ;
        answer_held();
        while (sd_event_run(rig.loop, 0) > 0)
                ;
        do
                n = recv(fd, said, sizeof(said), MSG_DONTWAIT);
        while (n > 0);
        return n < 0 && errno == EAGAIN;
}

static void talk(int fd, const uint8_t *data, size_t size, size_t step)
{
        while (size > 0) {
                size_t n = step ? MIN(step, size) : size;
                ssize_t sent = send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (sent > 0) {
                        data += sent;
                        size -= (size_t)sent;
                }
                if (!settle(fd) || (sent < 0 && errno != EAGAIN))
                        return;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct front_counts counts;

        if (size == 0)
                return 0;
        if (!rig.front)
                set_up();
        rig.answer = data[0] & 3;
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(front_port(rig.front)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
                abort();
        talk(fd, data + 1, size - 1, data[0] >> 2);
        close(fd);
        for (unsigned i = 0; i < 1000; i++) {
                (void)sd_event_run(rig.loop, 1000);
                front_counts(rig.front, &counts);
                if (counts.open_connections == 0 && counts.open_streams == 0)
                        break;
        }
        if (counts.open_connections || counts.open_streams || counts.open_exchanges || rig.held)
                abort();
        return 0;
}
