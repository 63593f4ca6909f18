#include "broker/policy/window.h"

#include <string.h>

static uint64_t slice_ms(const struct window *w)
{
        return (w->window_ms + WINDOW_SLICES - 2) / (WINDOW_SLICES - 1);
}

void window_advance(struct window *w, uint64_t now_ms)
{
        uint64_t slice = now_ms / slice_ms(w);

        if (slice <= w->newest)
                return;
        if (slice - w->newest >= WINDOW_SLICES || w->total == 0) {
                memset(w->counts, 0, sizeof(w->counts));
                w->total = 0;
        } else {
                for (uint64_t s = w->newest + 1; s <= slice; s++) {
                        w->total -= w->counts[s % WINDOW_SLICES];
                        w->counts[s % WINDOW_SLICES] = 0;
                }
        }
        w->newest = slice;
}

void window_add(struct window *w)
{
        w->counts[w->newest % WINDOW_SLICES]++;
        w->total++;
}

uint64_t window_retry_after(const struct window *w, uint64_t now_ms, uint32_t max)
{
        uint32_t left = w->total;

        if (left < max || max == 0)
                return 0;
        for (uint64_t i = 1; i <= WINDOW_SLICES; i++) { /* the oldest first */
                left -= w->counts[(w->newest + i) % WINDOW_SLICES];
                if (left < max)
                        return (w->newest + i) * slice_ms(w) - now_ms;
        }
        return 0;
}
