/*
 * Running a program without a shell: exec by absolute path, empty or given environment, no inherited descriptors,
 * bounded output, a deadline. nft, ipset, iptables-restore, ssh-keygen and our own helpers run this way.
 * spawn_start() belongs in a daemon's loop; spawn_run() waits and is for the CLI and for helpers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/err.h"
#include "common/mem.h"

struct spawn_options {
        const char *const *argv; /* argv[0] absolute; NULL-terminated */
        const char *const *env;  /* NULL-terminated "K=V"; NULL = empty environment plus PATH and LC_ALL=C.UTF-8 */
        const void *input;       /* copied, written to standard input, then closed; NULL = /dev/null */
        size_t input_len;
        size_t max_output;   /* bytes of standard output kept; more is ERR_LIMIT and kills. 0 = 1 MiB. stderr is always bounded to 16 KiB */
        uint64_t timeout_ms; /* 0 = 30 s; then SIGKILL to its process group and ERR_TIMEOUT */
        const int *pass_fds; /* become descriptors 3, 4, … in the child */
        size_t n_pass_fds;
        bool drop_caps;             /* ambient and inheritable capabilities are cleared and no_new_privs set */
        uint64_t max_address_space; /* RLIMIT_AS, 0 = unlimited */
        uint64_t max_cpu_seconds;   /* RLIMIT_CPU, 0 = unlimited */
};

struct spawn_result {
        int status; /* as waitpid() gives it; only meaningful when err is NULL */
        struct buf out;
        struct buf errors; /* standard error, cut at its bound */
};
void spawn_result_deinit(struct spawn_result *r);
/* 0 when the program exited 0; else -1 with its name, exit code or signal and the first line of its standard error. */
_must_check_ int spawn_result_check(const struct spawn_result *r, const char *what, struct err **err);

/* Waits. 0: it ran to its end (look at status); -1: it could not start, timed out or wrote too much. */
_must_check_ int spawn_run(struct spawn_result *ret, const struct spawn_options *options, struct err **err);

struct spawn;
/* Called once from the loop. result and err are borrowed; err is NULL when the program ran to its end. The spawn is freed after it returns.
 */
typedef void (*spawn_done_fn)(struct spawn_result *result, struct err *err, void *user);
_must_check_ int spawn_start(struct spawn **ret, sd_event *loop, const struct spawn_options *options, spawn_done_fn done, void *user,
                             struct err **err);
/* Kills its process group and forgets it; done is not called. NULL is fine. */
struct spawn *spawn_cancel(struct spawn *s);
