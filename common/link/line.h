/*
 * The lines of the control protocol, checked: what is a request, what is an answer. Pure functions of text; used by both ends in
 * common/link and by the fuzz target.
 */
#pragma once

#include "common/json.h"
#include "common/link/link.h"

/* A request is an object with a member "verb": 1 to 32 of [a-z-]. */
_must_check_ int line_parse_request(json_object **ret, const char *line, size_t n, struct err **err);

enum line_kind { LINE_PROGRESS, LINE_RESULT, LINE_FAILURE };
struct line_answer {
        enum line_kind kind;
        json_object *value; /* owned; progress or result; NULL for a null result and for failures */
        char *error;        /* owned; LINE_FAILURE */
        int exit_code;      /* LINE_FAILURE: 1..255 */
};
/* Anything that is not exactly one of the three forms of link.h is an error. */
_must_check_ int line_parse_answer(struct line_answer *ret, const char *line, size_t n, struct err **err);
void line_answer_deinit(struct line_answer *a);
#define _cleanup_line_answer_ _cleanup_(line_answer_deinit)

/* JSON text of o and a newline, appended. */
void line_append(struct buf *b, json_object *o);
/* {"ok": false, "error": message, "exit": exit_code} */
void line_append_failure(struct buf *b, int exit_code, const char *message);
