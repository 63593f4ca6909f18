/*
 * NFKC with case folding, without controls and what nobody sees: the Unicode part of normal forms. libunistring does the work, but takes up
 * to a microsecond for a character; so what folding leaves alone, which is nearly all of any honest text, is copied, and only the
 * characters around the others go through it. Pure. Used by common/policy/normal.c.
 */
#pragma once

#include <stdbool.h>

#include "common/mem.h"

/* Bytes that may come out of libunistring while one call's arguments are looked at: about 50 ms. */
#define FOLD_BUDGET (512U << 10)

/*
 * text is UTF-8; work is scratch. Also lower-cases ASCII. *budget counts down; false: it is used up, and text is not folded.
 */
_must_check_ bool fold_text(struct buf *text, struct buf *work, size_t *budget);
