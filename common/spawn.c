#include "common/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "common/file.h"

#define MAX_ERRORS   (16U << 10)
#define MAX_PASS_FDS 8

/* The parent's view of a running child. */
struct child {
        pid_t pid;
        int in, out, errors;                         /* our ends; -1 when done */
        sd_event_source *on_in, *on_out, *on_errors; /* watching them, in a loop */
        const char *input;                           /* what is left to write */
        size_t input_left;
        size_t max_output;
        char *name;
        struct spawn_result result;
};

/*
 * The source goes before the descriptor: a program that is just being forked may hold a copy for a moment, and then epoll would go on to
 * tell of a closed one.
 */
static void close_end(int *fd, sd_event_source **source)
{
        *source = sd_event_source_disable_unref(*source);
        fd_closep(fd);
        *fd = -1;
}

static void child_close(struct child *c)
{
        close_end(&c->in, &c->on_in);
        close_end(&c->out, &c->on_out);
        close_end(&c->errors, &c->on_errors);
}

static void set_limit(int which, uint64_t value)
{
        struct rlimit limit = {.rlim_cur = value, .rlim_max = value};

        if (value && setrlimit((__rlimit_resource_t)which, &limit) < 0)
                _exit(126);
}

static void drop_privileges(void)
{
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                _exit(126);
        /* All three sets. Root keeps its uid, but an exec under no_new_privs cannot give it more than the bounding set below leaves. */
        cap_t none = cap_init();
        for (int cap = 0; cap_get_bound((cap_value_t)cap) >= 0; cap++)
                if (geteuid() == 0 && cap_drop_bound((cap_value_t)cap) < 0)
                        _exit(126);
        if (!none || cap_set_proc(none) < 0)
                _exit(126);
        cap_free(none);
}

/*
 * In the child, after fork: the wanted descriptors become 0, 1, 2, 3 …, every other one is closed. First all go above the
 * target range, so that no dup2() overwrites one that is still needed.
 */
static void arrange_descriptors(const int *fds, size_t n)
{
        int moved[3 + MAX_PASS_FDS];

        for (size_t i = 0; i < n; i++) {
                moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3 + MAX_PASS_FDS);
                if (moved[i] < 0)
                        _exit(126);
        }
        for (size_t i = 0; i < n; i++)
                if (dup2(moved[i], (int)i) < 0)
                        _exit(126);
        if (syscall(SYS_close_range, (unsigned)n, ~0U, 0) < 0)
                _exit(126);
}

static _noreturn_ void child_exec(const struct spawn_options *o, int in, int out, int errors)
{
        static const char *const bare_env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL};
        int fds[3 + MAX_PASS_FDS] = {in, out, errors};
        sigset_t none;

        for (size_t i = 0; i < o->n_pass_fds; i++)
                fds[3 + i] = o->pass_fds[i];
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        arrange_descriptors(fds, 3 + o->n_pass_fds);
        for (int s = 1; s < NSIG; s++)
                signal(s, SIG_DFL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
#ifndef __SANITIZE_ADDRESS__ /* its shadow memory needs terabytes of address space */
        set_limit(RLIMIT_AS, o->max_address_space);
#endif
        set_limit(RLIMIT_CPU, o->max_cpu_seconds);
        if (o->drop_caps)
                drop_privileges();
        execve(o->argv[0], (char *const *)o->argv, (char *const *)(o->env ? o->env : bare_env));
        _exit(errno == ENOENT ? 127 : 126);
}

static int child_start(struct child *c, const struct spawn_options *o, struct err **err)
{
        _cleanup_fd_ int null = -1;
        int in[2] = {-1, -1}, out[2] = {-1, -1}, errors[2] = {-1, -1};

        *c = (struct child){.in = -1, .out = -1, .errors = -1, .max_output = o->max_output ? o->max_output : 1U << 20};
        if (o->n_pass_fds > MAX_PASS_FDS)
                return err_set(err, ERR_INTERNAL, "too many descriptors for %s", o->argv[0]);
        if (access(o->argv[0], X_OK) < 0)
                return err_sys(err, errno, "cannot run %s", o->argv[0]);
        if (pipe2(out, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0 || (o->input && pipe2(in, O_CLOEXEC) < 0) ||
            (!o->input && (null = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)) {
                err_sys(err, errno, "no pipe for %s", o->argv[0]);
        } else if ((c->pid = fork()) < 0) {
                err_sys(err, errno, "cannot fork for %s", o->argv[0]);
        } else if (c->pid == 0) {
                child_exec(o, o->input ? in[0] : null, out[1], errors[1]);
        } else {
                setpgid(c->pid, c->pid);
                c->in = TAKE_FD(in[1]);
                c->out = TAKE_FD(out[0]);
                c->errors = TAKE_FD(errors[0]);
                c->name = mem_strdup(o->argv[0]);
                c->input = o->input ? mem_dup(o->input, o->input_len) : NULL;
                c->input_left = o->input_len;
        }
        int rest[] = {in[0], in[1], out[0], out[1], errors[0], errors[1]};
        for (size_t i = 0; i < ELEMENTSOF(rest); i++)
                if (rest[i] >= 0)
                        close(rest[i]);
        if (!c->name)
                return -1;
        fcntl(c->out, F_SETFL, O_NONBLOCK);
        fcntl(c->errors, F_SETFL, O_NONBLOCK);
        if (c->in >= 0)
                fcntl(c->in, F_SETFL, O_NONBLOCK);
        return 0;
}

/* Writes what the pipe takes; closes it at the end or when the child does not want more. */
static void child_feed(struct child *c, const char *base, size_t total)
{
        while (c->in >= 0) {
                if (c->input_left == 0) {
                        close_end(&c->in, &c->on_in);
                        return;
                }
                ssize_t n = write(c->in, base + (total - c->input_left), c->input_left);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n < 0)
                        c->input_left = 0;
                else
                        c->input_left -= (size_t)n;
        }
}

/* Reads what is there into b. 1 = end. More than max: the rest is dropped when `cut`, else ERR_LIMIT. */
static int child_drain(struct child *c, int fd, struct buf *b, size_t max, bool cut, struct err **err)
{
        char chunk[16384];

        for (;;) {
                ssize_t n = read(fd, chunk, sizeof(chunk));

                if (n == 0)
                        return 1;
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return 0;
                if (n < 0)
                        return err_sys(err, errno, "reading from %s", c->name);
                size_t room = max - MIN(max, b->len);
                if ((size_t)n > room && !cut)
                        return err_set(err, ERR_LIMIT, "%s wrote more than the %zu bytes allowed", c->name, max);
                buf_add(b, chunk, MIN((size_t)n, room));
        }
}

/* One turn over the outputs. 1 = both ended. */
static int child_read(struct child *c, struct err **err)
{
        if (c->out >= 0) {
                int r = child_drain(c, c->out, &c->result.out, c->max_output, false, err);
                if (r < 0)
                        return -1;
                if (r > 0)
                        close_end(&c->out, &c->on_out);
        }
        if (c->errors >= 0) {
                int r = child_drain(c, c->errors, &c->result.errors, MAX_ERRORS, true, err);
                if (r < 0)
                        return -1;
                if (r > 0)
                        close_end(&c->errors, &c->on_errors);
        }
        return c->out < 0 && c->errors < 0;
}

static void child_kill(struct child *c)
{
        if (c->pid > 0) {
                kill(-c->pid, SIGKILL);
                kill(c->pid, SIGKILL);
        }
}

static void child_deinit(struct child *c)
{
        child_close(c);
        free((char *)c->input);
        free(c->name);
        spawn_result_deinit(&c->result);
}

void spawn_result_deinit(struct spawn_result *r)
{
        buf_deinit(&r->out);
        buf_deinit(&r->errors);
}

int spawn_result_check(const struct spawn_result *r, const char *what, struct err **err)
{
        const char *said = r->errors.data ? r->errors.data : "";
        int n = (int)MIN(strcspn(said, "\n"), (size_t)300);

        if (WIFEXITED(r->status) && WEXITSTATUS(r->status) == 0)
                return 0;
        if (WIFEXITED(r->status))
                return err_set(err, ERR_SYSTEM, "%s failed (exit %d)%s%.*s", what, WEXITSTATUS(r->status), n ? ": " : "", n, said);
        return err_set(err, ERR_SYSTEM, "%s was ended by signal %d%s%.*s", what, WTERMSIG(r->status), n ? ": " : "", n, said);
}

static uint64_t now_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int wait_io(struct child *c, uint64_t deadline, struct err **err)
{
        const char *base = c->input;
        size_t total = c->input_left;

        for (;;) {
                uint64_t now = now_ms();
                struct pollfd fds[] = {
                        {.fd = c->in, .events = POLLOUT},
                        {.fd = c->out, .events = POLLIN},
                        {.fd = c->errors, .events = POLLIN},
                };
                if (now >= deadline)
                        return err_set(err, ERR_TIMEOUT, "%s did not finish in time and was killed", c->name);
                if (poll(fds, ELEMENTSOF(fds), (int)MIN(deadline - now, (uint64_t)60000)) < 0 && errno != EINTR)
                        return err_sys(err, errno, "waiting for %s", c->name);
                child_feed(c, base, total);
                int r = child_read(c, err);
                if (r != 0)
                        return r < 0 ? -1 : 0;
        }
}

/* The outputs are closed, but the program may go on: give it the rest of its time. */
static int wait_exit(struct child *c, uint64_t deadline, struct err **err)
{
        for (;;) {
                pid_t p = waitpid(c->pid, &c->result.status, WNOHANG);

                if (p == c->pid)
                        return 0;
                if (p < 0 && errno != EINTR)
                        return err_sys(err, errno, "waiting for %s", c->name);
                if (now_ms() >= deadline)
                        return err_set(err, ERR_TIMEOUT, "%s did not finish in time and was killed", c->name);
                poll(NULL, 0, 1);
        }
}

int spawn_run(struct spawn_result *ret, const struct spawn_options *options, struct err **err)
{
        struct child c;
        uint64_t deadline = now_ms() + (options->timeout_ms ? options->timeout_ms : 30000);
        sigset_t pipe_only, before;

        if (child_start(&c, options, err) < 0)
                return -1;
        /* A child that does not read its input must not end us. */
        sigemptyset(&pipe_only);
        sigaddset(&pipe_only, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
        int r = wait_io(&c, deadline, err);
        if (r == 0)
                r = wait_exit(&c, deadline, err);
        sigtimedwait(&pipe_only, NULL, &(struct timespec){0});
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r < 0) {
                child_kill(&c);
                waitpid(c.pid, NULL, 0);
        } else {
                *ret = c.result;
                c.result = (struct spawn_result){0};
        }
        child_deinit(&c);
        return r;
}

/* -- in a loop ------------------------------------------------------------------------------------------------------------- */

struct spawn {
        struct child child;
        size_t input_total;
        sd_event_source *exited, *timer;
        bool has_exited;
        spawn_done_fn done;
        void *user;
};

static void spawn_free(struct spawn *s)
{
        sd_event_source_disable_unref(s->exited);
        sd_event_source_disable_unref(s->timer);
        if (!s->has_exited && s->child.pid > 0) {
                child_kill(&s->child);
                waitpid(s->child.pid, NULL, 0);
        }
        child_deinit(&s->child);
        free(s);
}

struct spawn *spawn_cancel(struct spawn *s)
{
        if (s)
                spawn_free(s);
        return NULL;
}

static void spawn_finish(struct spawn *s, struct err *err)
{
        spawn_done_fn done = s->done;
        void *user = s->user;
        struct spawn_result result = s->child.result;

        s->child.result = (struct spawn_result){0};
        spawn_free(s);
        done(&result, err, user);
        spawn_result_deinit(&result);
}

static int spawn_turn(struct spawn *s)
{
        _cleanup_err_ struct err *err = NULL;
        int r;

        child_feed(&s->child, s->child.input, s->input_total);
        r = child_read(&s->child, &err);
        if (r < 0)
                spawn_finish(s, err);
        else if (s->has_exited && r == 1)
                spawn_finish(s, NULL);
        return 0;
}

static int on_io(_unused_ sd_event_source *source, _unused_ int fd, _unused_ uint32_t events, void *user)
{
        return spawn_turn(user);
}

static int on_exit_of_child(_unused_ sd_event_source *source, const siginfo_t *si, void *user)
{
        struct spawn *s = user;

        s->has_exited = true;
        s->child.result.status = si->si_code == CLD_EXITED ? W_EXITCODE(si->si_status, 0) : W_EXITCODE(0, si->si_status);
        /* Grandchildren that hold the pipes must not keep us waiting. */
        kill(-s->child.pid, SIGKILL);
        return spawn_turn(s);
}

static int on_timeout(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *user)
{
        struct spawn *s = user;
        _cleanup_err_ struct err *err = NULL;

        err_set(&err, ERR_TIMEOUT, "%s did not finish in time and was killed", s->child.name);
        spawn_finish(s, err);
        return 0;
}

static int add_sources(struct spawn *s, sd_event *loop, uint64_t timeout_ms)
{
        struct child *c = &s->child;
        int r = c->in < 0 ? 0 : sd_event_add_io(loop, &c->on_in, c->in, EPOLLOUT, on_io, s);

        if (r >= 0)
                r = sd_event_add_io(loop, &c->on_out, c->out, EPOLLIN, on_io, s);
        if (r >= 0)
                r = sd_event_add_io(loop, &c->on_errors, c->errors, EPOLLIN, on_io, s);
        if (r < 0)
                return r;
        r = sd_event_add_child(loop, &s->exited, s->child.pid, WEXITED, on_exit_of_child, s);
        if (r < 0)
                return r;
        return sd_event_add_time_relative(loop, &s->timer, CLOCK_MONOTONIC, timeout_ms * 1000, 0, on_timeout, s);
}

int spawn_start(struct spawn **ret, sd_event *loop, const struct spawn_options *options, spawn_done_fn done, void *user, struct err **err)
{
        struct spawn *s = NEW(struct spawn);

        s->done = done;
        s->user = user;
        if (child_start(&s->child, options, err) < 0) {
                child_deinit(&s->child);
                free(s);
                return -1;
        }
        s->input_total = s->child.input_left;
        int r = add_sources(s, loop, options->timeout_ms ? options->timeout_ms : 30000);
        if (r < 0) {
                err_sys(err, r, "cannot watch %s", options->argv[0]);
                spawn_free(s);
                return -1;
        }
        if (ret)
                *ret = s;
        return 0;
}
