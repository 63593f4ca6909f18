#include "common/daemon.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "common/conf.h"
#include "common/log.h"
#include "config.h"

#define EXIT_USAGE 64
#define FIRST_FLAG 256 /* above every letter */

static int ended(int code)
{
        return code + 1;
}

static int wrong(const struct daemon_options *o)
{
        fputs(o->usage, stderr);
        return ended(EXIT_USAGE);
}

/* 0: go on. */
static int take(struct daemon_options *o, int option)
{
        switch (option) {
        case 'c':
                o->config = optarg;
                return 0;
        case 'd':
                log_set_level(LOG_LEVEL_DEBUG);
                return 0;
        case 'h':
                fputs(o->usage, stdout);
                return ended(0);
        case 'V':
                puts(PACKAGE_STRING);
                return ended(0);
        default:
                if (option < FIRST_FLAG)
                        return wrong(o);
                *o->flags[option - FIRST_FLAG].set = true;
                return 0;
        }
}

int daemon_parse(struct daemon_options *o, int argc, char **argv)
{
        static const struct option common[] = {
                {"config", required_argument, NULL, 'c'},
                {"debug", no_argument, NULL, 'd'},
                {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, 'V'},
        };
        _cleanup_free_ struct option *longs = mem_alloc((ELEMENTSOF(common) + o->n_flags + 1) * sizeof(*longs)); /* the last is empty */
        int option, r = 0;

        memcpy(longs, common, sizeof(common));
        for (size_t i = 0; i < o->n_flags; i++)
                longs[ELEMENTSOF(common) + i] = (struct option){o->flags[i].name, no_argument, NULL, FIRST_FLAG + (int)i};
        o->config = CONF_DEFAULT_PATH;
        while (r == 0 && (option = getopt_long(argc, argv, "c:dh", longs, NULL)) >= 0)
                r = take(o, option);
        return r == 0 && optind < argc ? wrong(o) : r;
}

int daemon_loop(sd_event **loop, sd_event_signal_handler_t on_end, sd_event_signal_handler_t on_hangup, void *user, struct err **err)
{
        const int signals[] = {SIGTERM, SIGINT, SIGHUP};
        sigset_t blocked;

        signal(SIGPIPE, SIG_IGN);
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGCHLD);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                sigaddset(&blocked, signals[i]);
        if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
                return err_sys(err, errno, "cannot block signals");
        int r = sd_event_default(loop);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(signals); i++)
                r = sd_event_add_signal(*loop, NULL, signals[i], signals[i] == SIGHUP ? on_hangup : on_end, user);
        if (r >= 0)
                r = sd_event_set_watchdog(*loop, true);
        return r < 0 ? err_sys(err, r, "cannot set up the event loop") : 0;
}

int daemon_run(sd_event *loop, struct busy_poll *poll, struct err **err)
{
        int r = 0;

        sd_notify(0, "READY=1");
        while (r >= 0 && sd_event_get_state(loop) != SD_EVENT_FINISHED)
                r = poll && poll->max_us > 0 ? busy_poll_run(poll, loop) : sd_event_run(loop, UINT64_MAX);
        if (r < 0)
                err_sys(err, r, "the event loop failed");
        sd_notify(0, "STOPPING=1");
        return r < 0 ? -1 : 0;
}
