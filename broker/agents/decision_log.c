#include "broker/agents/decision_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/log.h"

#define NAME          "decisions.jsonl"
#define DEFAULT_BYTES (64U << 20)
#define DEFAULT_FILES 16U
#define MAX_WAITING   (64U << 10) /* bytes */

struct decision_log {
        char *path;
        int fd;
        uint64_t size, max_bytes;
        unsigned files;
        struct buf waiting; /* whole lines */
};

/* What a crash left without its newline would spoil the next line. */
static int end_line(struct decision_log *l, struct err **err)
{
        char last = '\n';

        if (l->size > 0 && pread(l->fd, &last, 1, (off_t)l->size - 1) != 1)
                return err_sys(err, errno, "reading the end of %s", l->path);
        if (last == '\n')
                return 0;
        if (pwrite(l->fd, "\n", 1, (off_t)l->size) != 1)
                return err_sys(err, errno, "cannot write %s", l->path);
        l->size++;
        return 0;
}

static int open_file(struct decision_log *l, struct err **err)
{
        struct stat st;
        _cleanup_fd_ int fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);

        if (fd < 0 || fstat(fd, &st) < 0)
                return err_sys(err, errno, "cannot open %s", l->path);
        if (l->fd >= 0)
                close(l->fd);
        l->fd = TAKE_FD(fd);
        l->size = (uint64_t)st.st_size;
        return end_line(l, err);
}

int decision_log_open(struct decision_log **ret, const char *dir, struct err **err)
{
        _cleanup_(decision_log_freep) struct decision_log *l = NEW(struct decision_log);

        *l = (struct decision_log){.path = mem_printf("%s/" NAME, dir), .fd = -1, .max_bytes = DEFAULT_BYTES, .files = DEFAULT_FILES};
        if (open_file(l, err) < 0)
                return -1;
        *ret = TAKE_PTR(l);
        return 0;
}

struct decision_log *decision_log_free(struct decision_log *l)
{
        _cleanup_err_ struct err *err = NULL;

        if (!l)
                return NULL;
        if (decision_log_flush(l, &err) < 0)
                log_error("ends of calls were not logged", "why", err_msg(err));
        if (l->fd >= 0)
                close(l->fd);
        buf_deinit(&l->waiting);
        free(l->path);
        free(l);
        return NULL;
}

void decision_log_bound(struct decision_log *l, uint64_t max_bytes, unsigned files)
{
        l->max_bytes = max_bytes;
        l->files = MAX(files, 1U);
}

/* The oldest goes; the others move up by one. */
static int rotate(struct decision_log *l, struct err **err)
{
        if (fdatasync(l->fd) < 0)
                return err_sys(err, errno, "cannot write %s", l->path);
        for (unsigned i = l->files - 1; i > 0; i--) {
                _cleanup_free_ char *from = i > 1 ? mem_printf("%s.%u", l->path, i - 1) : mem_strdup(l->path);
                _cleanup_free_ char *to = mem_printf("%s.%u", l->path, i);

                if (rename(from, to) < 0 && errno != ENOENT)
                        return err_sys(err, errno, "cannot move %s", from);
        }
        if (l->files == 1 && unlink(l->path) < 0 && errno != ENOENT)
                return err_sys(err, errno, "cannot remove %s", l->path);
        return open_file(l, err);
}

/* Whole lines. */
static int put(struct decision_log *l, const char *line, size_t n, struct err **err)
{
        ssize_t r;

        if (l->size > 0 && l->size + n > l->max_bytes && rotate(l, err) < 0)
                return -1;
        r = pwrite(l->fd, line, n, (off_t)l->size);
        if (r != (ssize_t)n) {
                int e = r < 0 ? errno : ENOSPC;

                /* Half a line is overwritten by the next one; behind that one nothing may be left of it. */
                if (r > 0 && ftruncate(l->fd, (off_t)l->size) < 0)
                        l->size += (uint64_t)r;
                return err_sys(err, e, "the decision log %s cannot be written, and what cannot be logged is refused", l->path);
        }
        l->size += n;
        return 0;
}

int decision_log_write(struct decision_log *l, const char *line, size_t n, struct err **err)
{
        size_t before = l->waiting.len;

        if (before == 0)
                return put(l, line, n, err);
        buf_add(&l->waiting, line, n);
        int r = put(l, l->waiting.data, l->waiting.len, err);
        l->waiting.len = r < 0 ? before : 0;
        return r;
}

int decision_log_later(struct decision_log *l, const char *line, size_t n, struct err **err)
{
        int r = 0;

        if (l->waiting.len > 0 && n > MAX_WAITING - MIN(l->waiting.len, (size_t)MAX_WAITING)) {
                r = decision_log_flush(l, err);
                l->waiting.len = 0;
        }
        buf_add(&l->waiting, line, n);
        return r;
}

int decision_log_flush(struct decision_log *l, struct err **err)
{
        if (l->waiting.len == 0)
                return 0;
        int r = put(l, l->waiting.data, l->waiting.len, err);
        if (r == 0)
                l->waiting.len = 0;
        return r;
}
