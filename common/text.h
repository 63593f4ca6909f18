/*
 * Text for people and small values in text form: escaping of foreign strings, sizes, durations, times.
 * Pure functions. Used by every program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/err.h"

/*
 * A copy of s that is safe on a terminal: C0, DEL, C1, bidirectional controls, zero-width and other format
 * characters, line separators and invalid UTF-8 become \xNN or \u{NNNN}; a backslash is doubled. Newlines are escaped too.
 */
char *text_escape(const char *s);
/* Is s valid UTF-8 (RFC 3629: no surrogates, no overlong forms) without NUL, n bytes long? */
bool text_is_utf8(const char *s, size_t n);
/* Terminal columns of s (wide and combining characters as wcwidth() has them; bytes where it cannot tell). */
size_t text_width(const char *s);

/* "256m" -> 268435456; suffixes k m g (1024 based), none = bytes; 1 .. 2^53. */
_must_check_ int text_parse_size(uint64_t *ret, const char *s, struct err **err);
/* "250ms", "10s", "5m", "2h", "7d" -> milliseconds; 0 .. 10 years. */
_must_check_ int text_parse_duration(uint64_t *ret_ms, const char *s, struct err **err);
/* RFC 3339, UTC only: "2026-11-20T10:00:00Z". */
_must_check_ int text_parse_time(time_t *ret, const char *s, struct err **err);
/* The same back, into a caller's buffer. */
#define TEXT_TIME_MAX 24
const char *text_format_time(char out[TEXT_TIME_MAX], time_t t);
/* "3m 12s", "4h 5m", "2d 3h" for people; into a caller's buffer. */
const char *text_format_span(char out[32], uint64_t seconds);
