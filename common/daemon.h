/*
 * What our daemons do alike before and around their loop: command line, signals, readiness. Used by the mains of controller and broker.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "common/busy_poll.h"
#include "common/err.h"

/* Beside --config FILE, --debug, --help and --version, which every daemon has. */
struct daemon_flag {
        const char *name; /* "init-state" */
        bool *set;
};
struct daemon_options {
        const char *usage; /* whole lines */
        const struct daemon_flag *flags;
        size_t n_flags;
        const char *config; /* out: borrowed from argv, or the default */
};
/* --debug is obeyed at once. 0: go on. Else the process is over, with the exit code plus one: help was asked for, or the line is wrong
 * (64). */
_must_check_ int daemon_parse(struct daemon_options *o, int argc, char **argv);

/*
 * The default loop, with SIGTERM and SIGINT for on_end, SIGHUP for on_hangup, without SIGPIPE, fed to systemd's watchdog. All of them are
 * blocked, as children must know. *loop is owned.
 */
_must_check_ int daemon_loop(sd_event **loop, sd_event_signal_handler_t on_end, sd_event_signal_handler_t on_hangup, void *user,
                             struct err **err);
/* Tells systemd that we are up, and runs until sd_event_exit(). poll, unless NULL, says how long it looks for events before it sleeps. */
_must_check_ int daemon_run(sd_event *loop, struct busy_poll *poll, struct err **err);
