/* What the controller knows, as text for Prometheus: it has no port of its own, so a timer puts this where an exporter finds it. */
#include <time.h>

#include "cli/view.h"
#include "common/metrics.h"
#include "common/text.h"

static const char *const states[] = {"running", "starting", "waiting", "stopped", "disabled", "refused", "quarantined", "blocked", "error"};

struct sums {
        uint64_t in_state[ELEMENTSOF(states)], drifting, restarts;
        time_t first_end; /* of an approval; 0: there is none */
};

static void add_server(struct sums *s, json_object *server)
{
        const char *state = json_str(server, "state"), *expires = json_str(server, "expires_at");
        json_object *drift = json_get(server, "drift");
        time_t end = 0;

        for (size_t i = 0; i < ELEMENTSOF(states); i++)
                s->in_state[i] += str_eq(states[i], state);
        s->drifting += json_object_is_type(drift, json_type_array) && json_object_array_length(drift) > 0;
        s->restarts += (uint64_t)json_int(server, "restarts", 0);
        if (expires && text_parse_time(&end, expires, NULL) == 0 && (!s->first_end || end < s->first_end))
                s->first_end = end;
}

static void add_servers(struct buf *out, json_object *servers)
{
        size_t n = json_object_is_type(servers, json_type_array) ? json_object_array_length(servers) : 0;
        struct sums s = {0};

        for (size_t i = 0; i < n; i++)
                add_server(&s, json_object_array_get_idx(servers, i));
        metric_head(out, "bulkhead_controller_servers", "gauge", "Declared servers, by state.");
        for (size_t i = 0; i < ELEMENTSOF(states); i++) {
                _cleanup_free_ char *label = mem_printf("state=\"%s\"", states[i]);

                metric_add(out, "bulkhead_controller_servers", label, s.in_state[i]);
        }
        metric_one(out, "bulkhead_controller_drifting", "gauge", "Servers that are not what was approved, and are being repaired.",
                   s.drifting);
        metric_one(out, "bulkhead_controller_restarts", "gauge", "Restarts that are not forgotten yet, of all servers.", s.restarts);
        metric_one(out, "bulkhead_controller_approval_end_timestamp_seconds", "gauge", "When the first approval ends; 0: none does.",
                   (uint64_t)s.first_end);
}

static bool is_good(json_object *part)
{
        return part && !json_str(part, "error") && !json_str(part, "refused");
}

static void add_parts(struct buf *out, json_object *status)
{
        json_object *refused = json_path(status, "approvals", "refused_records", NULL);
        const struct {
                const char *label;
                bool good;
        } parts[] = {
                {"part=\"engine\"", json_flag(json_get(status, "engine"), "up", false)},
                {"part=\"registry\"", is_good(json_get(status, "registry"))},
                {"part=\"approvals\"", is_good(json_get(status, "approvals"))},
                {"part=\"egress\"", json_flag(json_get(status, "egress"), "ok", false)},
                {"part=\"broker\"", json_flag(json_path(status, "gateway", "broker", NULL), "linked", false)},
                {"part=\"signatures\"", str_eq(json_str(status, "signatures"), "required")},
                {"part=\"gateway_auth\"", str_eq(json_str(json_get(status, "gateway"), "auth"), "token")},
        };

        metric_head(out, "bulkhead_controller_ok", "gauge", "What must be so for servers to run safely, and is.");
        for (size_t i = 0; i < ELEMENTSOF(parts); i++)
                metric_add(out, "bulkhead_controller_ok", parts[i].label, parts[i].good);
        metric_one(out, "bulkhead_controller_refused_records", "gauge", "Records that do not count.",
                   json_object_is_type(refused, json_type_array) ? json_object_array_length(refused) : 0);
}

static void add_use(struct buf *out, json_object *status)
{
        json_object *gateway = json_get(status, "gateway");

        metric_one(out, "bulkhead_controller_instances", "gauge", "On-demand servers that run or are to.",
                   (uint64_t)json_int(gateway, "instances", 0));
        metric_one(out, "bulkhead_controller_instances_max", "gauge", "How many of them may.",
                   (uint64_t)json_int(gateway, "max_instances", 0));
        metric_one(out, "bulkhead_controller_memory_bytes", "gauge", "What the limits of all servers come to.",
                   (uint64_t)json_int(gateway, "memory", 0));
        metric_one(out, "bulkhead_controller_memory_max_bytes", "gauge", "What they may come to.",
                   (uint64_t)json_int(gateway, "max_memory", 0));
        metric_one(out, "bulkhead_controller_passes_total", "counter", "Looks at what is and what should be.",
                   (uint64_t)json_int(status, "passes", 0));
        metric_one(out, "bulkhead_controller_mutations_total", "counter", "Changes that were made.",
                   (uint64_t)json_int(status, "mutations", 0));
        metric_head(out, "bulkhead_controller_last_pass_seconds", "gauge", "How long the last look took.");
        metric_add_millionths(out, "bulkhead_controller_last_pass_seconds", NULL, (uint64_t)json_int(status, "last_pass_us", 0));
}

void view_metrics(struct out *o, json_object *status)
{
        _cleanup_buf_ struct buf out = {0};

        add_parts(&out, status);
        add_servers(&out, json_get(status, "servers"));
        add_use(&out, status);
        fputs(out.data, o->f);
}
