/*
 * A sliding window of calls in constant memory: counts in 33 slices of the window's 32nd part. A call counts from its own slice until the
 * 32 slices behind it are over, so for at least the window and at most a 32nd part longer: no window of that length ever holds more calls
 * than are allowed. Pure; used by the ledger.
 */
#pragma once

#include <stdint.h>

#define WINDOW_SLICES 33U

struct window {
        uint64_t key;
        uint64_t window_ms;
        uint64_t newest; /* number of the newest slice: time / its length */
        uint32_t total;
        uint32_t counts[WINDOW_SLICES]; /* slice n is at n % WINDOW_SLICES */
};

/* Forgets what is over. now_ms never goes back. */
void window_advance(struct window *w, uint64_t now_ms);
/* Counts one call; after window_advance(). */
void window_add(struct window *w);
/* In how many ms fewer than max calls will be counted; 0: now, or (max 0) never. After window_advance(). */
uint64_t window_retry_after(const struct window *w, uint64_t now_ms, uint32_t max);
