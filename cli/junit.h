/*
 * JUnit XML of smoke tests, as CI systems read it. Pure.
 */
#pragma once

#include "common/mem.h"

struct junit_case {
        const char *server;
        uint64_t duration_ms;
        const char *failure; /* why the test failed; NULL = passed, or see error */
        const char *error;   /* why the test could not be made */
        const char *output;  /* the server's standard error, may be NULL */
};
/* Owned XML text; every string is escaped for terminals and for XML. */
char *junit_write(const struct junit_case *cases, size_t n);
