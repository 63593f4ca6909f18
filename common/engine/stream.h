/*
 * Pure parsers for the Engine's endless answers: lines out of pieces split anywhere, and what the lines of a pull say. Used by images.c and
 * events.c, and fuzzed.
 */
#pragma once

#include "common/engine/internal.h"

/* Lines ("\n", "\r\n") of at most `max` bytes. A longer one is thrown away and reported as NULL once it is over. Empty ones are skipped. */
struct lines {
        struct buf part;
        size_t max;
        bool too_long;
};
/* line: NUL-terminated, n bytes, borrowed; NULL = it was too long. -1 ends the feeding. */
typedef int (*lines_fn)(const char *line, size_t n, void *user, struct err **err);
_must_check_ int lines_feed(struct lines *l, const char *data, size_t n, lines_fn line, void *user, struct err **err);
/* The stream is over: a last line without an end is one all the same. */
_must_check_ int lines_end(struct lines *l, lines_fn line, void *user, struct err **err);
void lines_deinit(struct lines *l);

#define PULL_LAYERS_MAX 512

/* What a pull's stream has told so far. */
struct pull_progress {
        struct pull_layer {
                char id[20];
                uint64_t current, total; /* bytes of the compressed layer; total 0 = not known yet */
        } * layers;
        size_t n_layers;
        uint64_t current, total; /* sums */
        char status[160];        /* the last status text; foreign, cut, not escaped */
        char *error;             /* the pull failed, says the Engine; foreign text */
        bool denied;             /* … for want of a login */
        bool missing;            /* … because there is no such thing */
        unsigned n_garbage;      /* lines that were no messages */
};
/* One line. Never fails: what it does not know it counts. line NULL = one that was too long. */
void pull_progress_line(struct pull_progress *p, const char *line, size_t n);
void pull_progress_deinit(struct pull_progress *p);
