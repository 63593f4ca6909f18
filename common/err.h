/*
 * Errors: what failed, on what, why, what to do.
 *
 * Used by every program. The contract, written once:
 *   - a function that can fail takes `struct err **err` as its last parameter and returns
 *     0 (done), -1 (failed, *err is set) or a positive, documented outcome;
 *   - the caller owns *err and frees it with err_free(); passing NULL says "I do not care";
 *   - err_wrap() puts context in front ("reading registry: line 3:7: ...");
 *   - running out of memory aborts the program (mem.h); bad input never does.
 * A failure is logged or printed once, where it is handled.
 */
#pragma once

#include <stdarg.h>

#include "common/macro.h"

enum err_code {
        ERR_INTERNAL = 1, /* a bug or an impossible answer */
        ERR_INVALID,      /* input that breaks its format */
        ERR_DENIED,       /* refused by policy, ownership or signature */
        ERR_NOT_FOUND,
        ERR_CONFLICT,    /* somebody else changed or holds it */
        ERR_UNAVAILABLE, /* a peer does not answer: try again later */
        ERR_TIMEOUT,
        ERR_LIMIT,  /* a bound of ours was reached */
        ERR_SYSTEM, /* a system call failed */
};

struct err;

/* Sets *err (if err is not NULL and *err is unset) and returns -1, so that `return err_set(...)` reads well. */
int err_set(struct err **err, enum err_code code, const char *fmt, ...) _printf_(3, 4);
/* Like err_set with ERR_SYSTEM and ": strerror(errnum)" appended. A negative errnum is negated (sd-event style). */
int err_sys(struct err **err, int errnum, const char *fmt, ...) _printf_(3, 4);
/* Puts "context: " in front of the message of *err. Returns -1. Does nothing to an unset error. */
int err_wrap(struct err **err, const char *fmt, ...) _printf_(2, 3);
/* Hands src over to *dst (freed when dst is NULL or taken). Returns -1. */
int err_move(struct err **dst, struct err *src);

enum err_code err_code(const struct err *err);
/* Borrowed until err_free(); "unknown error" for NULL. Not escaped: use text_escape() before a terminal. */
const char *err_msg(const struct err *err);
struct err *err_free(struct err *err);
struct err *err_dup(const struct err *err);

DEFINE_FREEP(struct err *, err_free)
#define _cleanup_err_ _cleanup_(err_freep)
