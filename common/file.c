#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static bool owner_is_trusted(const struct stat *st)
{
        return st->st_uid == 0 || st->st_uid == geteuid();
}

/* The directory that holds path must not let others swap the file: not writable by others, or sticky. */
static int check_directory(const char *path, struct err **err)
{
        const char *slash = strrchr(path, '/');
        _cleanup_free_ char *dir = slash ? mem_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : mem_strdup(".");
        struct stat st;

        if (stat(dir, &st) < 0)
                return err_sys(err, errno, "cannot look at directory %s", dir);
        if (!owner_is_trusted(&st))
                return err_set(err, ERR_DENIED, "%s belongs to uid %u: make root or the service user its owner", dir, (unsigned)st.st_uid);
        if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX))
                return err_set(err, ERR_DENIED, "%s may be written by others (mode %04o): run chmod go-w on it", dir, st.st_mode & 07777U);
        return 0;
}

static int check_trust(int fd, const char *path, struct err **err)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return err_sys(err, errno, "cannot look at %s", path);
        if (!owner_is_trusted(&st))
                return err_set(err, ERR_DENIED, "%s belongs to uid %u: make root or the service user its owner", path, (unsigned)st.st_uid);
        if (st.st_mode & (S_IWGRP | S_IWOTH))
                return err_set(err, ERR_DENIED, "%s may be written by others (mode %04o): run chmod go-w on it", path, st.st_mode & 07777U);
        return check_directory(path, err);
}

int file_read(char **ret, size_t *ret_len, const char *path, size_t max, enum file_trust trust, struct err **err)
{
        /* O_NONBLOCK: a fifo in the place of a file must not hang us; it is refused below. */
        int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (trust == FILE_TRUSTED ? O_NOFOLLOW : 0);
        _cleanup_fd_ int fd = open(path, flags);
        struct stat st;

        if (fd < 0 && errno == ELOOP)
                return err_set(err, ERR_DENIED, "%s is a symbolic link: name the file itself", path);
        if (fd < 0)
                return err_sys(err, errno, "cannot open %s", path);
        if (fstat(fd, &st) < 0)
                return err_sys(err, errno, "cannot look at %s", path);
        if (!S_ISREG(st.st_mode))
                return err_set(err, ERR_INVALID, "%s is not a regular file", path);
        if (trust == FILE_TRUSTED && check_trust(fd, path, err) < 0)
                return -1;
        if (st.st_size > 0 && (uintmax_t)st.st_size > max)
                return err_set(err, ERR_LIMIT, "%s has %jd bytes, more than the %zu allowed", path, (intmax_t)st.st_size, max);
        if (fd_read_all(ret, ret_len, fd, max, err) < 0)
                return err_wrap(err, "reading %s", path);
        return 0;
}

int fd_read_all(char **ret, size_t *ret_len, int fd, size_t max, struct err **err)
{
        _cleanup_buf_ struct buf b = {0};
        char chunk[16384];

        for (;;) {
                ssize_t n = read(fd, chunk, sizeof(chunk));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_sys(err, errno, "cannot read");
                if (n == 0)
                        break;
                if ((size_t)n > max - b.len)
                        return err_set(err, ERR_LIMIT, "more than the %zu bytes allowed", max);
                buf_add(&b, chunk, (size_t)n);
        }
        if (ret_len)
                *ret_len = b.len;
        *ret = buf_take(&b);
        return 0;
}

int fd_write_all(int fd, const void *data, size_t n, struct err **err)
{
        const char *p = data;

        while (n) {
                ssize_t w = write(fd, p, n);

                if (w < 0 && errno == EINTR)
                        continue;
                if (w < 0)
                        return err_sys(err, errno, "cannot write");
                p += w;
                n -= (size_t)w;
        }
        return 0;
}

static int write_synced(int fd, const char *tmp, const void *data, size_t n, mode_t mode, struct err **err)
{
        if (fchmod(fd, mode) < 0)
                return err_sys(err, errno, "cannot set the mode of %s", tmp);
        if (fd_write_all(fd, data, n, err) < 0)
                return err_wrap(err, "writing %s", tmp);
        if (fsync(fd) < 0)
                return err_sys(err, errno, "cannot sync %s", tmp);
        return 0;
}

static int sync_directory(const char *path, struct err **err)
{
        const char *slash = strrchr(path, '/');
        _cleanup_free_ char *dir = slash ? mem_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : mem_strdup(".");
        _cleanup_fd_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0 || fsync(fd) < 0)
                return err_sys(err, errno, "cannot sync directory %s", dir);
        return 0;
}

int file_write_atomic(const char *path, const void *data, size_t n, mode_t mode, struct err **err)
{
        _cleanup_free_ char *tmp = mem_printf("%s.XXXXXX", path);
        _cleanup_fd_ int fd = mkostemp(tmp, O_CLOEXEC);

        if (fd < 0)
                return err_sys(err, errno, "cannot create a file beside %s", path);
        if (write_synced(fd, tmp, data, n, mode, err) < 0) {
                unlink(tmp);
                return -1;
        }
        if (rename(tmp, path) < 0) {
                err_sys(err, errno, "cannot put %s in place", path);
                unlink(tmp);
                return -1;
        }
        return sync_directory(path, err);
}

int dir_make(const char *path, mode_t mode, struct err **err)
{
        _cleanup_free_ char *copy = mem_strdup(path);

        for (char *p = copy + 1;; p++) {
                char c = *p;

                if (c != '/' && c != '\0')
                        continue;
                *p = '\0';
                if (mkdir(copy, mode) < 0 && errno != EEXIST)
                        return err_sys(err, errno, "cannot make directory %s", copy);
                *p = c;
                if (c == '\0')
                        return 0;
        }
}
