#include "common/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

struct err {
        enum err_code code;
        char *msg;
};

static _printf_(1, 0) char *format(const char *fmt, va_list ap)
{
        char *s = NULL;

        if (vasprintf(&s, fmt, ap) < 0)
                abort();
        return s;
}

static void store(struct err **err, enum err_code code, char *msg)
{
        if (!err || *err) {
                free(msg);
                return;
        }
        *err = NEW(struct err);
        (*err)->code = code;
        (*err)->msg = msg;
}

int err_set(struct err **err, enum err_code code, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        store(err, code, format(fmt, ap));
        va_end(ap);
        return -1;
}

int err_sys(struct err **err, int errnum, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        _cleanup_free_ char *what = format(fmt, ap);
        va_end(ap);
        errnum = abs(errnum);
        enum err_code code = errnum == EACCES || errnum == EPERM ? ERR_DENIED
                             : errnum == ENOENT                  ? ERR_NOT_FOUND
                             : errnum == ETIMEDOUT               ? ERR_TIMEOUT
                                                                 : ERR_SYSTEM;
        store(err, code, mem_printf("%s: %s", what, strerror(errnum)));
        return -1;
}

int err_wrap(struct err **err, const char *fmt, ...)
{
        va_list ap;

        if (!err || !*err)
                return -1;
        va_start(ap, fmt);
        _cleanup_free_ char *context = format(fmt, ap);
        va_end(ap);
        mem_replace(&(*err)->msg, mem_printf("%s: %s", context, (*err)->msg));
        return -1;
}

int err_move(struct err **dst, struct err *src)
{
        if (dst && !*dst)
                *dst = src;
        else
                err_free(src);
        return -1;
}

enum err_code err_code(const struct err *err)
{
        return err ? err->code : ERR_INTERNAL;
}

const char *err_msg(const struct err *err)
{
        return err ? err->msg : "unknown error";
}

struct err *err_free(struct err *err)
{
        if (err) {
                free(err->msg);
                free(err);
        }
        return NULL;
}

struct err *err_dup(const struct err *err)
{
        struct err *copy = NULL;

        if (err)
                store(&copy, err->code, mem_strdup(err->msg));
        return copy;
}
