/* How the two ends of the link find each other, and know that it is them. */
#include "common/link/channel.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "common/file.h"
#include "common/link/address.h"
#include "common/log.h"

#define REFUSED_LOG_S 60 /* who knocks in a loop does not fill the log */

struct channel_listener {
        int fd;
        char *path; /* bound by us; NULL when the descriptor was handed in */
        uid_t peer;
        sd_event_source *io;
        void (*accepted)(int fd, void *user);
        void *user;
        time_t logged_at; /* CLOCK_MONOTONIC */
        uint64_t refused; /* since then */
};

static int peer_uid(uid_t *ret, int fd)
{
        struct ucred cred;
        socklen_t len = sizeof(cred);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
                return -1;
        *ret = cred.uid;
        return 0;
}

static void log_refused(struct channel_listener *l, uid_t uid)
{
        struct timespec now;
        char who[16], others[24];

        clock_gettime(CLOCK_MONOTONIC, &now);
        if (l->logged_at && now.tv_sec - l->logged_at < REFUSED_LOG_S) {
                l->refused++;
                return;
        }
        snprintf(who, sizeof(who), "%u", (unsigned)uid);
        snprintf(others, sizeof(others), "%" PRIu64, l->refused);
        log_warning("refused at the link: only the broker's user may come in", "uid", who, "others_before", others);
        l->logged_at = now.tv_sec;
        l->refused = 0;
}

static int on_accept(_unused_ sd_event_source *source, int listen_fd, _unused_ uint32_t revents, void *user)
{
        struct channel_listener *l = user;
        _cleanup_fd_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        uid_t uid = 0;

        if (fd < 0) {
                if (errno == EMFILE || errno == ENFILE)
                        log_warning("no descriptor left for a connection to the link", "error", strerror(errno));
                return 0;
        }
        if (peer_uid(&uid, fd) < 0)
                return 0;
        if (uid != l->peer) {
                log_refused(l, uid);
                return 0;
        }
        l->accepted(TAKE_FD(fd), l->user);
        return 0;
}

int channel_listen(struct channel_listener **ret, sd_event *loop, const char *path, int listen_fd, uid_t peer,
                   void (*accepted)(int fd, void *user), void *user, struct err **err)
{
        _cleanup_(channel_listener_freep) struct channel_listener *l = NEW(struct channel_listener);

        *l = (struct channel_listener){.fd = listen_fd, .peer = peer, .accepted = accepted, .user = user};
        if (listen_fd < 0) {
                if (address_bind(&l->fd, path, SOCK_SEQPACKET, err) < 0)
                        return -1;
                l->path = mem_strdup(path);
        }
        int r = sd_event_add_io(loop, &l->io, l->fd, EPOLLIN, on_accept, l);
        if (r < 0)
                return err_sys(err, r, "watching the link socket");
        *ret = TAKE_PTR(l);
        return 0;
}

struct channel_listener *channel_listener_free(struct channel_listener *l)
{
        if (!l)
                return NULL;
        sd_event_source_disable_unref(l->io);
        if (l->fd >= 0)
                close(l->fd);
        if (l->path)
                unlink(l->path);
        free(l->path);
        free(l);
        return NULL;
}

int channel_connect(int *ret_fd, const char *path, uid_t peer, struct err **err)
{
        _cleanup_fd_ int fd = -1;
        struct sockaddr_un sa;
        uid_t uid = 0;

        if (address_init(&sa, path, err) < 0)
                return -1;
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return err_sys(err, errno, "making a unix socket");
        if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
                return err_set(err, ERR_UNAVAILABLE, "connecting to the controller at %s: %s (is bulkhead-controller running?)", path,
                               strerror(errno));
        if (peer_uid(&uid, fd) < 0)
                return err_sys(err, errno, "asking who listens at %s", path);
        if (uid != peer && uid != 0)
                return err_set(err, ERR_DENIED, "who listens at %s is uid %u, neither the controller's user (%u) nor root", path,
                               (unsigned)uid, (unsigned)peer);
        *ret_fd = TAKE_FD(fd);
        return 0;
}
