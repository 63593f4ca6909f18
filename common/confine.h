/*
 * What a process gives up for the rest of its life, and for what it starts. Each program says in a file of its own what it keeps
 * (broker/confine.c, common/forge/confine.c, common/smoke/talk_confine.c). Used by the broker and by the helpers that parse foreign bytes.
 *
 * Source: seccomp(2), landlock(7), prctl(2).
 */
#pragma once

#include <seccomp.h>

#include "common/err.h"

/* No new privileges. */
_must_check_ int confine_privileges(struct err **err);

/* Adds rules of a program's own: 0, or a negative errno as libseccomp gives it. */
typedef int (*confine_rules_fn)(scmp_filter_ctx filter);
/*
 * A list of what is allowed: n system calls, what `more` (may be NULL) adds, and what every program needs: its memory, though never memory
 * to run, time, signals of its own, what is open already. Everything else fails with EPERM; not by death, because libraries try harmless
 * things and live well without an answer.
 */
_must_check_ int confine_only(const int *allowed, size_t n, confine_rules_fn more, struct err **err);
/* A list of what is refused, with `errnum`: for programs whose libraries change with every release. */
_must_check_ int confine_all_but(const int *refused, size_t n, int errnum, struct err **err);

/*
 * No file can be opened, made or removed but for reading in `readable`, and for all but links and devices in `writable` (directories,
 * NULL-terminated, each may be NULL); what is open stays usable. 1: this kernel has no Landlock, nothing changed.
 */
_must_check_ int confine_files(const char *const *readable, const char *const *writable, struct err **err);
