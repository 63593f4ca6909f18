#include "common/metrics.h"

#include <inttypes.h>
#include <stdio.h>

#define MILLION UINT64_C(1000000)

static const uint64_t bounds_us[HISTOGRAM_BOUNDS] = {1000,    5000,    10000,    50000,    100000,   500000,
                                                     1000000, 5000000, 10000000, 30000000, 60000000, 300000000};

void metric_head(struct buf *out, const char *name, const char *type, const char *help)
{
        buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_name(struct buf *out, const char *name, const char *labels)
{
        buf_adds(out, name);
        if (labels)
                buf_addf(out, "{%s}", labels);
}

void metric_add(struct buf *out, const char *name, const char *labels, uint64_t value)
{
        add_name(out, name, labels);
        buf_addf(out, " %" PRIu64 "\n", value);
}

void metric_add_millionths(struct buf *out, const char *name, const char *labels, uint64_t value)
{
        add_name(out, name, labels);
        buf_addf(out, " %" PRIu64 ".%06" PRIu64 "\n", value / MILLION, value % MILLION);
}

void metric_one(struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
        metric_head(out, name, type, help);
        metric_add(out, name, NULL, value);
}

void histogram_add(struct histogram *h, uint64_t us)
{
        size_t i = 0;

        while (i < HISTOGRAM_BOUNDS && us > bounds_us[i])
                i++;
        h->counts[i]++;
        h->sum_us += us;
}

void histogram_write(struct buf *out, const char *name, const char *help, const struct histogram *h)
{
        _cleanup_free_ char *bucket = mem_printf("%s_bucket", name), *sum = mem_printf("%s_sum", name),
                            *count = mem_printf("%s_count", name);
        uint64_t n = 0;
        char le[48];

        metric_head(out, name, "histogram", help);
        for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
                n += h->counts[i]; /* a bucket holds all that is no longer than its bound */
                snprintf(le, sizeof(le), "le=\"%g\"", (double)bounds_us[i] / (double)MILLION);
                metric_add(out, bucket, le, n);
        }
        n += h->counts[HISTOGRAM_BOUNDS];
        metric_add(out, bucket, "le=\"+Inf\"", n);
        metric_add_millionths(out, sum, NULL, h->sum_us);
        metric_add(out, count, NULL, n);
}
