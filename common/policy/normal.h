/*
 * The normal forms of a string: what a tool could make of it when it decodes, folds and resolves as tools do. Patterns and path rules look
 * at every one of them. Pure; used by the loader and by broker/policy. security_policy.json(5) says the same to operators.
 *
 *   raw    as the agent sent it (JSON escapes decoded)
 *   plain  until nothing changes any more: percent-decoded (%2e, %u002e; overlong UTF-8 is read as what it stands for), NFKC and case
 *          folding, without controls (but tab and line ends) and what Unicode calls ignorable; then backslashes are slashes
 *   path   the same without tabs and line ends, slashes single (but two after a colon stay), "." and ".." resolved
 *   plain and path once more, with \u002e and \x2e decoded, where such a thing is written
 *   number its value in shortest form, where the whole is a number, also 0x2e
 *
 * Not decoded: base64, HTML entities, compression. Any word can be read as base64; what a tool has to decode on purpose is for its own
 * schema and for the kernel's rules of egress to bound.
 */
#pragma once

#include "common/err.h"
#include "common/mem.h"

#define NORMAL_ROUNDS 5 /* of decoding; what is still encoded then is refused */
#define NORMAL_FORMS  7U

enum normal_kind { NORMAL_RAW = 1, NORMAL_PLAIN = 2, NORMAL_PATH = 4, NORMAL_NUMBER = 8 };

struct normal_form {
        const char *s;
        size_t n;
        unsigned kinds; /* which of the forms this text is */
};

/* Zero-initialised; memory is kept from call to call. */
struct normal {
        struct normal_form forms[NORMAL_FORMS]; /* borrowed until the next call; no two are the same */
        size_t n_forms;
        struct buf plain[2], path[2], work, before;
        char number[32];
        size_t budget; /* see fold.h */
};

/* Before the strings of one call. */
void normal_begin(struct normal *out);
/* s[0..n) is UTF-8. -1: it must be refused, and *why (static) says why. Linear in n. */
_must_check_ int normal_forms(struct normal *out, const char *s, size_t n, const char **why);
void normal_deinit(struct normal *out);
/* A path with slashes single, and "." and ".." resolved; no decoding. Owned. */
char *normal_path(const char *s);
/* The path form, or NULL when it must be refused. Owned. */
char *normal_path_folded(const char *s);
/* Appends s with backslashes as slashes, slashes single, "." and ".." resolved. A slash at the end stays. */
void normal_resolve(struct buf *out, const char *s, size_t n);
