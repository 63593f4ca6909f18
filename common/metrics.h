/*
 * Counts as text for Prometheus, version 0.0.4 ("Exposition formats" in its documentation): a head, then a line for each series. Pure.
 * Used by the broker (/metrics) and by bulkhead status --metrics.
 */
#pragma once

#include <stdint.h>

#include "common/mem.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* type: "counter", "gauge", "histogram". help: one line of ours. */
void metric_head(struct buf *out, const char *name, const char *type, const char *help);
/* labels: "state=\"up\"", of our own words or of names that need no escape; NULL: none. */
void metric_add(struct buf *out, const char *name, const char *labels, uint64_t value);
/* The same for a value in millionths: microseconds as seconds, or cost as dollars. */
void metric_add_millionths(struct buf *out, const char *name, const char *labels, uint64_t value);
/* Both, for a metric of one series. */
void metric_one(struct buf *out, const char *name, const char *type, const char *help, uint64_t value);

/* Durations, from a millisecond to five minutes. Zero-initialised. */
#define HISTOGRAM_BOUNDS 12U
struct histogram {
        uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* the last one: longer than every bound */
        uint64_t sum_us;
};
void histogram_add(struct histogram *h, uint64_t us);
/* In seconds, with its head. */
void histogram_write(struct buf *out, const char *name, const char *help, const struct histogram *h);
