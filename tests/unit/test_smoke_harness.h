/*
 * Runs the real helper against real (fixture) servers without an Engine: a child process stands in for the Engine's attach stream or for
 * the parent that makes connections. Shared by the test_smoke programs.
 */
#pragma once

#include <sys/types.h>

#include "common/json.h"

struct harness {
        const char *transport;     /* "stdio", "streamable-http", "sse" */
        const char *const *server; /* argv of the server, path relative to the build directory; NULL: it listens already on `port` */
        uint16_t port;
        const char *call;                         /* JSON or NULL */
        const char *headers;                      /* JSON or NULL */
        unsigned timeout_ms, probe_ms, max_bytes; /* 0 = 10 s, 2 s, 4 MiB */
        size_t address_space;                     /* of the helper; 0 = unlimited */
        bool may_die;                             /* nothing is printed when the helper does */
        size_t split;                             /* frames of at most this many bytes; 0 = as they come */
};
/* What the helper printed (owned); NULL when it did not exit with 0 and JSON. *took_ms may be NULL. */
json_object *harness_run(const struct harness *h, uint64_t *took_ms);
/* Starts a program of the build directory; the caller ends it with harness_stop(). */
pid_t harness_start(const char *const *argv, int in, int out, int errors);
void harness_stop(pid_t pid);
/* A loopback listener; its port. */
int harness_listen(uint16_t *port);
