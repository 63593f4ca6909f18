#include "broker/health.h"

#include "common/metrics.h"
#include "config.h"

static void add_front(struct buf *b, const struct front *front)
{
        struct front_counts c;

        front_counts(front, &c);
        metric_one(b, "bulkhead_http_connections_total", "counter", "Connections of callers.", c.connections);
        metric_one(b, "bulkhead_http_requests_total", "counter", "Requests of callers.", c.requests);
        metric_one(b, "bulkhead_http_refused_total", "counter", "Connections and requests that were refused.", c.refused);
        metric_one(b, "bulkhead_http_slow_total", "counter", "Callers that were dropped because they were too slow.", c.dropped_slow);
        metric_one(b, "bulkhead_http_connections", "gauge", "Connections now, without streams.", c.open_connections);
        metric_one(b, "bulkhead_http_exchanges", "gauge", "Requests that are not answered yet.", c.open_exchanges);
        metric_one(b, "bulkhead_http_streams", "gauge", "Event streams now.", c.open_streams);
}

static void add_gateway(struct buf *b, const struct gateway *gateway)
{
        struct gateway_counts c;

        gateway_counts(gateway, &c);
        metric_one(b, "bulkhead_calls_total", "counter", "Requests of callers to servers.", c.calls);
        metric_one(b, "bulkhead_calls_failed_total", "counter", "Requests that got no answer.", c.failed);
        metric_one(b, "bulkhead_call_timeouts_total", "counter", "Requests that took too long.", c.timeouts);
        metric_one(b, "bulkhead_starts_total", "counter", "Starts asked of the controller.", c.starts);
        metric_one(b, "bulkhead_servers", "gauge", "Servers that may be called.", c.servers);
        metric_one(b, "bulkhead_servers_up", "gauge", "Servers with a session that is ready.", c.servers_up);
        metric_one(b, "bulkhead_calls_in_flight", "gauge", "Requests that no server has answered yet.", c.calls_in_flight);
        metric_one(b, "bulkhead_upstreams", "gauge", "Sessions with servers.", c.upstreams);
        gateway_metrics(gateway, b);
}

static void answer_metrics(const struct health *h, struct exchange *x)
{
        struct buf b = {0};

        buf_addf(&b, "# HELP bulkhead_broker_info The broker's version.\n# TYPE bulkhead_broker_info gauge\n"
                     "bulkhead_broker_info{version=\"" PACKAGE_VERSION "\"} 1\n");
        metric_one(&b, "bulkhead_controller_connected", "gauge", "The link to the controller is up.", uplink_is_up(h->uplink));
        add_front(&b, h->front);
        add_gateway(&b, h->gateway);
        if (h->door)
                door_metrics(h->door, &b);
        exchange_answer(x, 200, METRICS_TYPE, &b);
}

static void answer_text(struct exchange *x, unsigned status, const char *text)
{
        struct buf b = {0};

        buf_adds(&b, text);
        exchange_answer(x, status, "application/json", &b);
}

static void answer_readiness(const struct health *h, struct exchange *x)
{
        if (uplink_is_up(h->uplink))
                answer_text(x, 200, "{\"status\":\"ready\",\"controller\":\"connected\"}\n");
        else if (uplink_was_synced(h->uplink))
                answer_text(x, 200, "{\"status\":\"ready\",\"controller\":\"away\"}\n");
        else
                answer_text(x, 503, "{\"status\":\"waiting\",\"controller\":\"away\"}\n");
}

bool health_exchange(const struct health *h, struct exchange *x)
{
        const char *path = exchange_path(x), *method = exchange_method(x);
        bool metrics = str_eq(path, "/metrics"), ready = str_eq(path, "/readyz");

        if (!metrics && !ready && !str_eq(path, "/healthz"))
                return false;
        if (!str_eq(method, "GET") && !str_eq(method, "HEAD")) {
                exchange_add_header(x, "Allow", "GET, HEAD");
                answer_text(x, 405, "{\"error\":\"only GET and HEAD\"}\n");
        } else if (metrics) {
                answer_metrics(h, x);
        } else if (ready) {
                answer_readiness(h, x);
        } else {
                answer_text(x, 200, "{\"status\":\"ok\"}\n");
        }
        return true;
}
