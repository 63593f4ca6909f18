#include "common/link/address.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

int address_init(struct sockaddr_un *ret, const char *path, struct err **err)
{
        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        if (strlen(path) >= sizeof(ret->sun_path))
                return err_set(err, ERR_INVALID, "socket path %s is longer than %zu bytes", path, sizeof(ret->sun_path) - 1);
        memcpy(ret->sun_path, path, strlen(path) + 1);
        return 0;
}

/* Is somebody listening at the address? A stale file answers ECONNREFUSED. */
static bool somebody_listens(const struct sockaddr_un *sa, int type)
{
        _cleanup_fd_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        return fd >= 0 && (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno == EAGAIN || errno == EPROTOTYPE);
}

int address_bind(int *ret, const char *path, int type, struct err **err)
{
        _cleanup_fd_ int fd = -1;
        struct sockaddr_un sa;
        struct stat st;

        if (address_init(&sa, path, err) < 0)
                return -1;
        if (lstat(path, &st) == 0) {
                if (!S_ISSOCK(st.st_mode))
                        return err_set(err, ERR_CONFLICT, "%s exists and is not a socket: remove it", path);
                if (somebody_listens(&sa, type))
                        return err_set(err, ERR_CONFLICT, "%s: another process is listening there", path);
                if (unlink(path) < 0)
                        return err_sys(err, errno, "removing the old socket %s", path);
        }
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return err_sys(err, errno, "making a unix socket");
        if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
                return err_sys(err, errno, "binding %s", path);
        if (chmod(path, 0666) < 0 || listen(fd, SOMAXCONN) < 0) {
                int saved = errno;
                unlink(path);
                return err_sys(err, saved, "listening on %s", path);
        }
        *ret = TAKE_FD(fd);
        return 0;
}
