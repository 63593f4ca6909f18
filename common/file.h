/*
 * Files: bounded reads with ownership checks, atomic durable writes, descriptors. Used by every program.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#include "common/err.h"
#include "common/mem.h"

static inline void fd_closep(int *fd)
{
        if (*fd >= 0)
                close(*fd);
}
#define _cleanup_fd_ _cleanup_(fd_closep)

enum file_trust {
        FILE_ANY,     /* any owner, any mode */
        FILE_TRUSTED, /* regular file owned by root or by us, not writable by group or others, and so is its directory
                         (a sticky directory is accepted): what others may write is refused */
};

/* Reads a regular file of at most max bytes. *ret is NUL-terminated, owned. Refuses symlinks in the last component when trust is
 * FILE_TRUSTED. */
_must_check_ int file_read(char **ret, size_t *ret_len, const char *path, size_t max, enum file_trust trust, struct err **err);
/* Reads a descriptor to its end, at most max bytes (more is ERR_LIMIT). */
_must_check_ int fd_read_all(char **ret, size_t *ret_len, int fd, size_t max, struct err **err);
/* tmp + fsync + rename + fsync of the directory: after a crash the file is the old or the new one. */
_must_check_ int file_write_atomic(const char *path, const void *data, size_t n, mode_t mode, struct err **err);
/* mkdir -p; existing directories are left as they are. */
_must_check_ int dir_make(const char *path, mode_t mode, struct err **err);
/* Writes all n bytes or fails. */
_must_check_ int fd_write_all(int fd, const void *data, size_t n, struct err **err);
