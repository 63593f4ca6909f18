/*
 * What `bulkhead` prints: aligned tables, values in full, colours on terminals only, progress of things that take their time.
 * Every string that reaches a terminal through here is escaped here (text_escape): callers hand over what they got.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/json.h"

enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_DIM, STYLE_RED, STYLE_GREEN, STYLE_YELLOW };

struct out {
        FILE *f;    /* borrowed */
        bool color; /* escape sequences may be written */
};
/* Colour when f is a terminal, TERM is not "dumb", NO_COLOR is unset or empty (https://no-color.org) and never is false. */
void out_init(struct out *o, FILE *f, bool never);

/* Our own words: fmt is trusted, so foreign strings go in through out_text() or out_field(). */
void out_line(struct out *o, enum style style, const char *fmt, ...) _printf_(3, 4);
/* Escaped text without a newline. NULL prints "-". */
void out_text(struct out *o, enum style style, const char *text);
/* "  Label        value" with the value escaped; NULL or "" prints nothing. */
void out_field(struct out *o, enum style style, const char *label, const char *value);
/*
 * Text that its sender may have escaped already (reasons, errors, the end of a server's output): a copy that is safe on a terminal, without
 * doubling the backslashes of text that is safe as it stands. What people sign is shown by out_text(), where a backslash is always one of
 * the text's own.
 */
char *out_escape_again(const char *s);
void out_field_again(struct out *o, enum style style, const char *label, const char *value);
/* A JSON value in full for people: nested, one member a line, strings escaped, their newlines kept as indented lines. */
void out_value(struct out *o, unsigned indent, json_object *value);
/* JSON for programs: indented, one newline at the end. */
void out_json(struct out *o, json_object *value);

/* A table. Cells are copied, and escaped as by out_escape_again(); NULL or "" prints "-". */
struct table;
struct table *table_new(const char *const *headers, size_t n);
void table_cell(struct table *t, enum style style, const char *text);
size_t table_rows(const struct table *t);
void table_print(const struct table *t, struct out *o);
struct table *table_free(struct table *t);
DEFINE_FREEP(struct table *, table_free)
#define _cleanup_table_ _cleanup_(table_freep)

/* One redrawn line on standard error, from the third second on, when that is a terminal. */
struct progress {
        struct out *o; /* of standard error */
        bool terminal;
        uint64_t began_ms;
        bool shown;
};
void progress_init(struct progress *p, struct out *o);
/* total 0 = unknown. */
void progress_show(struct progress *p, const char *what, uint64_t current, uint64_t total);
/* Takes the line away. */
void progress_end(struct progress *p);

/* "1.4 GB" into a caller's buffer. */
const char *out_bytes(char buf[32], uint64_t bytes);
