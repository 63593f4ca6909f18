/*
 * What every unit test includes: cmocka with its prerequisites, and assertions on struct err.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/mem.h"

/* The call succeeded; prints the error when not. */
#define assert_ok(expr)                                                                                                                    \
        do {                                                                                                                               \
                int _r = (expr);                                                                                                           \
                if (_r < 0)                                                                                                                \
                        print_error("%s: %s\n", #expr, err_msg(err));                                                                      \
                assert_true(_r >= 0);                                                                                                      \
        } while (0)

/* The call failed, and `part` stands in its message. Clears err. */
#define assert_fails(expr, part)                                                                                                           \
        do {                                                                                                                               \
                assert_int_equal((expr), -1);                                                                                              \
                assert_non_null(err);                                                                                                      \
                if (!strstr(err_msg(err), (part)))                                                                                         \
                        print_error("expected \"%s\" in: %s\n", (part), err_msg(err));                                                     \
                assert_non_null(strstr(err_msg(err), (part)));                                                                             \
                err = err_free(err);                                                                                                       \
        } while (0)
