/*
 * Any bytes from a stdio server into a session. The first byte chooses: bit 0 frames or raw, bit 1 legacy only, bits 2-3 how far the
 * handshake is before the bytes come (none, legacy, 2025-03-26, modern); 0xff in the rest separates reads.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/upstream_owner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void turn(sd_event *loop)
{
        while (sd_event_run(loop, 0) > 0)
                ;
}

static void put(int fd, bool raw, const void *data, size_t n)
{
        unsigned char h[8] = {1, 0, 0, 0, 0, 0, (unsigned char)(n >> 8), (unsigned char)n};

        if (!raw)
                (void)!send(fd, h, sizeof(h), MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)!send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void greet(sd_event *loop, int fd, bool raw, unsigned how)
{
        static const char *const lines[] = {
                "",
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{}}}\n",
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-03-26\",\"capabilities\":{}}}\n",
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{}}}\n",
        };

        if (*lines[how])
                put(fd, raw, lines[how], strlen(lines[how]));
        turn(loop);
}

static void feed(sd_event *loop, int fd, const uint8_t *data, size_t size, const bool *ended)
{
        char drop[4096];

        while (size > 0 && !*ended) {
                const uint8_t *end = memchr(data, 0xff, size);
                size_t n = end ? (size_t)(end - data) : size;

                (void)!send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
                turn(loop);
                while (recv(fd, drop, sizeof(drop), MSG_DONTWAIT) > 0)
                        ;
                data += n + (end != NULL);
                size -= n + (end != NULL);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct upstream_config config = {
                .name = "f",
                .limits = OWNER_LIMITS,
        };
        struct upstream *u = NULL;
        sd_event *loop = NULL;
        bool ended = false;
        int fds[2];

        if (size < 1 || sd_event_new(&loop) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return 0;
        config.fd = fds[0];
        config.raw = data[0] & 1;
        config.legacy_only = (data[0] & 12) == 0 ? data[0] & 2 : (data[0] >> 2 & 3) < 3;
        if (upstream_stdio_new(&u, loop, &config, &owner_events, &ended, NULL) < 0)
                abort();
        greet(loop, fds[1], config.raw, data[0] >> 2 & 3);
        feed(loop, fds[1], data + 1, size - 1, &ended);
        close(fds[1]);
        turn(loop);
        upstream_free(u);
        sd_event_unref(loop);
        return 0;
}
