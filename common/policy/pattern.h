/*
 * Regular expressions whose matching takes time linear in the text, whoever wrote expression and text: RE2 behind a C interface
 * (pattern.cc, the only C++ here). Bounded memory; an expression that would need more is refused when it is compiled. No backreferences
 * and no look-around, because they cannot be had at that price. Syntax: RE2's; UTF-8. Used by the loader and by broker/policy.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macro.h"

#ifdef __cplusplus
extern "C" {
#endif

struct err;
struct pattern;
struct pattern_set;

#define PATTERN_MAX_BYTES 4096U
#define PATTERN_SET_MAX   64U

enum pattern_flags { PATTERN_FOLD = 1 /* upper and lower case are the same */ };

/* *ret is owned. */
_must_check_ int pattern_new(struct pattern **ret, const char *expression, unsigned flags, struct err **err);
struct pattern *pattern_free(struct pattern *p);
/* Does it match anywhere in text[0..n)? text is UTF-8. */
bool pattern_search(const struct pattern *p, const char *text, size_t n);

/* Many expressions in one pass over the text; all with PATTERN_FOLD. */
_must_check_ int pattern_set_new(struct pattern_set **ret, const char *const *expressions, size_t n, struct err **err);
struct pattern_set *pattern_set_free(struct pattern_set *s);
/* *hits: one bit for each expression that matches. -1: the memory was not enough to tell; refuse the text. */
_must_check_ int pattern_set_search(const struct pattern_set *s, const char *text, size_t n, uint64_t *hits);

DEFINE_FREEP(struct pattern *, pattern_free)
DEFINE_FREEP(struct pattern_set *, pattern_set_free)

#ifdef __cplusplus
}
#endif
