/*
 * What was decided, one JSON object a line: decisions.jsonl in the broker's state directory, and as many older files as the policy keeps.
 * Who cannot write it, decides nothing: callers refuse what could not be logged. Used by the door.
 */
#pragma once

#include "common/err.h"
#include "common/mem.h"

struct decision_log;

_must_check_ int decision_log_open(struct decision_log **ret, const char *dir, struct err **err);
struct decision_log *decision_log_free(struct decision_log *l);
DEFINE_FREEP(struct decision_log *, decision_log_free)
/* From now on: bytes of one file, and how many files in all (at least 1). */
void decision_log_bound(struct decision_log *l, uint64_t max_bytes, unsigned files);
/* line: with its newline; whole in the file or not at all, behind what waits. */
_must_check_ int decision_log_write(struct decision_log *l, const char *line, size_t n, struct err **err);
/*
 * A line on which nothing depends: it goes out with the next one, or by decision_log_flush(), which the caller sees to. A kill before that
 * loses it. -1: lines were lost, because the file cannot be written.
 */
_must_check_ int decision_log_later(struct decision_log *l, const char *line, size_t n, struct err **err);
_must_check_ int decision_log_flush(struct decision_log *l, struct err **err);
