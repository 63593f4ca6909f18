#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file.h"
#include "common/link/address.h"
#include "common/link/line.h"
#include "common/link/link.h"
#include "common/log.h"

#define READ_SIZE       (64U << 10)
#define MAX_OUTSTANDING (64U << 10) /* progress waits for a peer that has this much unread */

struct link_conn {
        struct link_server *server; /* NULL once the server is gone */
        struct link_conn *prev, *next;
        unsigned refs; /* the server's list, a request that waits for its answer, a running callback */
        int fd;        /* -1: the peer left or was dropped */
        bool busy;     /* a request waits for its answer */
        bool eof;      /* the peer will send nothing more */
        bool closing;  /* close when the output is written */
        struct link_peer peer;
        struct buf in, out;
        size_t scanned; /* bytes of in known to have no newline */
        sd_event_source *io, *timer;
};

struct link_server {
        sd_event *loop;
        sd_event_source *io;
        int fd;
        char *path; /* bound by us; NULL when the descriptor was handed in */
        link_request_fn request;
        void *user;
        uint64_t deadline_ms;
        struct link_conn *conns;
        size_t n_conns;
};

static void conn_unref(struct link_conn *c)
{
        if (--c->refs > 0)
                return;
        free(c->peer.groups);
        buf_deinit(&c->in);
        buf_deinit(&c->out);
        free(c);
}

/* Ends the connection; the struct lives on while a request waits for its answer. */
static void conn_drop(struct link_conn *c)
{
        if (c->fd < 0)
                return;
        c->io = sd_event_source_disable_unref(c->io);
        c->timer = sd_event_source_disable_unref(c->timer);
        close(TAKE_FD(c->fd));
        if (c->server) {
                if (c->prev)
                        c->prev->next = c->next;
                else
                        c->server->conns = c->next;
                if (c->next)
                        c->next->prev = c->prev;
                c->server->n_conns--;
                c->server = NULL;
        }
        conn_unref(c);
}

static int on_deadline(_unused_ sd_event_source *s, _unused_ uint64_t now, void *user)
{
        conn_drop(user);
        return 0;
}

/* What to wait for next follows from the state alone. */
static void conn_arm(struct link_conn *c)
{
        uint32_t events = 0;

        if (c->fd < 0)
                return;
        if (c->out.len)
                events |= EPOLLOUT;
        else if (!c->busy && !c->eof)
                events |= EPOLLIN;
        /* With no event asked for, epoll still tells a hang-up: that is how a peer that left during a long request is noticed. */
        if (sd_event_source_set_io_events(c->io, events) < 0)
                conn_drop(c);
}

/* Starts the clock for the peer's next duty (a whole request, or reading what we sent), or stops it. */
static void conn_deadline(struct link_conn *c, bool on)
{
        int r;

        if (c->fd < 0)
                return;
        if (!on) {
                r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
        } else {
                r = sd_event_source_set_time_relative(c->timer, c->server->deadline_ms * 1000);
                if (r >= 0)
                        r = sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
        }
        if (r < 0)
                conn_drop(c);
}

static void conn_send(struct link_conn *c, struct buf *line, bool close_after)
{
        if (c->fd < 0)
                return;
        if (c->out.len == 0)
                conn_deadline(c, true);
        buf_add(&c->out, line->data, line->len);
        c->closing |= close_after;
        conn_arm(c);
}

static void conn_refuse(struct link_conn *c, int exit_code, const char *message)
{
        _cleanup_buf_ struct buf line = {0};

        line_append_failure(&line, exit_code, message);
        conn_send(c, &line, true);
}

/* Takes one whole line out of the input, if there is one and nothing is in the way. */
static void conn_process(struct link_conn *c)
{
        _cleanup_json_ json_object *request = NULL;
        _cleanup_err_ struct err *err = NULL;
        char *end;

        if (c->fd < 0 || c->busy || c->closing || c->out.len || c->in.len == 0)
                return;
        end = memchr(c->in.data + c->scanned, '\n', c->in.len - c->scanned);
        if (!end) {
                c->scanned = c->in.len;
                if (c->in.len > LINK_MAX_REQUEST)
                        conn_refuse(c, 64, "the request is longer than 256 KiB");
                return;
        }
        size_t n = (size_t)(end - c->in.data);
        int r = n > LINK_MAX_REQUEST ? err_set(&err, ERR_LIMIT, "the request is longer than 256 KiB")
                                     : line_parse_request(&request, c->in.data, n, &err);
        buf_drop(&c->in, n + 1);
        c->scanned = 0;
        if (r < 0) {
                conn_refuse(c, 64, err_msg(err));
                return;
        }
        c->busy = true;
        c->refs++;
        conn_deadline(c, false);
        if (c->fd >= 0)
                conn_arm(c);
        if (c->fd >= 0)
                c->server->request(c, &c->peer, request, c->server->user);
        else
                conn_unref(c);
}

static void conn_read(struct link_conn *c)
{
        char chunk[READ_SIZE];
        ssize_t n = recv(c->fd, chunk, sizeof(chunk), MSG_DONTWAIT);

        if (n > 0) {
                buf_add(&c->in, chunk, (size_t)n);
        } else if (n == 0) {
                c->eof = true;
        } else if (errno != EAGAIN && errno != EINTR) {
                conn_drop(c);
        }
}

static void conn_write(struct link_conn *c)
{
        ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0) {
                if (errno != EAGAIN && errno != EINTR)
                        conn_drop(c);
                return;
        }
        buf_drop(&c->out, (size_t)n);
        if (c->out.len)
                return;
        buf_deinit(&c->out); /* a large answer's memory is not kept */
        if (c->closing)
                conn_drop(c);
        else
                conn_deadline(c, !c->busy);
}

static int on_io(_unused_ sd_event_source *s, _unused_ int fd, uint32_t revents, void *user)
{
        struct link_conn *c = user;

        c->refs++;
        if (revents & EPOLLOUT && c->out.len)
                conn_write(c);
        if (c->fd >= 0 && revents & EPOLLIN && !c->busy && !c->eof)
                conn_read(c);
        conn_process(c);
        /* Nothing left to say to a peer that hung up, nor to hear from one that ended its side. */
        if (c->fd >= 0 && (revents & (EPOLLHUP | EPOLLERR) || (c->eof && !c->busy && c->out.len == 0)))
                conn_drop(c);
        conn_arm(c);
        conn_unref(c);
        return 0;
}

static int peer_read(struct link_peer *peer, int fd)
{
        struct ucred cred;
        socklen_t len = sizeof(cred);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
                return -1;
        *peer = (struct link_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
        len = 64 * sizeof(gid_t);
        for (;;) {
                peer->groups = mem_realloc(peer->groups, len + sizeof(gid_t), 1);
                if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &len) == 0) {
                        peer->n_groups = len / sizeof(gid_t);
                        return 0;
                }
                /* The kernel has put the needed length into len. */
                if (errno != ERANGE)
                        return -1;
        }
}

bool link_peer_in_group(const struct link_peer *peer, gid_t gid)
{
        for (size_t i = 0; i < peer->n_groups; i++)
                if (peer->groups[i] == gid)
                        return true;
        return peer->gid == gid;
}

static bool server_full(const struct link_server *s, uid_t uid)
{
        size_t same = 0;

        if (s->n_conns >= LINK_MAX_CONNS)
                return true;
        if (uid == 0 || uid == geteuid())
                return false;
        for (const struct link_conn *c = s->conns; c; c = c->next)
                same += c->peer.uid == uid;
        return same >= LINK_MAX_CONNS_USER;
}

static void tell_busy(int fd)
{
        _cleanup_buf_ struct buf line = {0};

        line_append_failure(&line, 69, "too many connections at once: try again");
        (void)!send(fd, line.data, line.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int conn_new(struct link_server *s, int fd, struct link_peer *peer)
{
        struct link_conn *c = NEW(struct link_conn);

        *c = (struct link_conn){.server = s, .refs = 1, .fd = fd, .peer = *peer, .next = s->conns};
        *peer = (struct link_peer){0};
        if (s->conns)
                s->conns->prev = c;
        s->conns = c;
        s->n_conns++;
        if (sd_event_add_io(s->loop, &c->io, fd, EPOLLIN, on_io, c) < 0 ||
            sd_event_add_time_relative(s->loop, &c->timer, CLOCK_MONOTONIC, s->deadline_ms * 1000, 0, on_deadline, c) < 0) {
                conn_drop(c);
                return -1;
        }
        return 0;
}

static int on_accept(_unused_ sd_event_source *source, int listen_fd, _unused_ uint32_t revents, void *user)
{
        struct link_server *s = user;
        _cleanup_fd_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct link_peer peer = {0};

        if (fd < 0) {
                if (errno == EMFILE || errno == ENFILE)
                        log_warning("no descriptor left for a control connection", "error", strerror(errno));
                return 0;
        }
        if (peer_read(&peer, fd) < 0 || server_full(s, peer.uid)) {
                tell_busy(fd);
                free(peer.groups);
                return 0;
        }
        (void)conn_new(s, TAKE_FD(fd), &peer);
        return 0;
}

int link_server_new(struct link_server **ret, sd_event *loop, const char *path, int listen_fd, link_request_fn request, void *user,
                    struct err **err)
{
        _cleanup_(link_server_freep) struct link_server *s = NEW(struct link_server);
        int r;

        *s = (struct link_server){
                .loop = sd_event_ref(loop), .fd = listen_fd, .request = request, .user = user, .deadline_ms = LINK_DEADLINE_MS};
        if (listen_fd < 0) {
                if (address_bind(&s->fd, path, SOCK_STREAM, err) < 0)
                        return -1;
                s->path = mem_strdup(path);
        }
        r = sd_event_add_io(loop, &s->io, s->fd, EPOLLIN, on_accept, s);
        if (r < 0)
                return err_sys(err, r, "watching the control socket");
        *ret = TAKE_PTR(s);
        return 0;
}

struct link_server *link_server_free(struct link_server *s)
{
        if (!s)
                return NULL;
        while (s->conns)
                conn_drop(s->conns);
        sd_event_source_disable_unref(s->io);
        if (s->fd >= 0)
                close(s->fd);
        if (s->path)
                unlink(s->path);
        free(s->path);
        sd_event_unref(s->loop);
        free(s);
        return NULL;
}

void link_server_set_deadline(struct link_server *s, uint64_t ms)
{
        s->deadline_ms = ms;
}

size_t link_server_connections(const struct link_server *s)
{
        return s->n_conns;
}

void link_progress(struct link_conn *c, json_object *progress)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        _cleanup_buf_ struct buf line = {0};

        json_add(o, "progress", progress);
        if (c->fd < 0 || c->out.len > MAX_OUTSTANDING)
                return;
        line_append(&line, o);
        conn_send(c, &line, false);
}

/* The request is done: gives its reference back. */
static void conn_finish(struct link_conn *c, struct buf *line)
{
        c->busy = false;
        conn_send(c, line, c->eof);
        conn_unref(c);
}

void link_answer(struct link_conn *c, json_object *result)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        _cleanup_buf_ struct buf line = {0};

        json_add_bool(o, "ok", true);
        json_add(o, "result", result);
        line_append(&line, o);
        if (line.len > LINK_MAX_LINE) {
                buf_deinit(&line);
                line_append_failure(&line, 1, "the answer is longer than 8 MiB: ask for one server");
        }
        conn_finish(c, &line);
}

void link_fail(struct link_conn *c, int exit_code, const char *message)
{
        _cleanup_buf_ struct buf line = {0};

        line_append_failure(&line, exit_code, message);
        conn_finish(c, &line);
}

bool link_alive(const struct link_conn *c)
{
        return c->fd >= 0;
}
