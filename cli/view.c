#include "cli/view.h"

#include <inttypes.h>
#include <time.h>

#include "common/text.h"

#define SOON_S (24 * 3600)

/* A time stands as RFC 3339 text or as seconds. Returns 0 when there is none. */
static time_t get_time(json_object *o, const char *key)
{
        const char *s = json_str(o, key);
        time_t t = 0;

        if (s)
                return text_parse_time(&t, s, NULL) == 0 ? t : 0;
        return (time_t)json_int(o, key, 0);
}

static const char *span(char out[32], time_t from, time_t to)
{
        return text_format_span(out, from && to > from ? (uint64_t)(to - from) : 0);
}

bool view_expires_soon(json_object *server, time_t now)
{
        time_t t = get_time(server, "expires_at");

        return t && t - now <= SOON_S;
}

static enum style state_style(const char *state)
{
        static const struct {
                const char *state;
                enum style style;
        } styles[] = {
                {"running", STYLE_GREEN},   {"starting", STYLE_YELLOW}, {"waiting", STYLE_YELLOW},
                {"stopped", STYLE_DIM},     {"disabled", STYLE_DIM},    {"refused", STYLE_RED},
                {"quarantined", STYLE_RED}, {"blocked", STYLE_RED},     {"error", STYLE_RED},
        };

        for (size_t i = 0; i < ELEMENTSOF(styles); i++)
                if (str_eq(styles[i].state, state))
                        return styles[i].style;
        return STYLE_PLAIN;
}

static void alarm_line(struct out *o, const char *what, const char *why)
{
        _cleanup_free_ char *safe = out_escape_again(why);

        out_line(o, STYLE_RED, "! %s%s%s", what, *safe ? ": " : "", safe);
}

void view_gateway_alarm(struct out *o, json_object *gateway)
{
        const char *listen = json_str(gateway, "listen");
        _cleanup_free_ char *why = mem_printf("whoever reaches %s can call every tool; for development only", listen ? listen : "its port");

        json_object *troubles = json_get(json_get(gateway, "broker"), "troubles");

        if (str_eq(json_str(gateway, "auth"), "none"))
                alarm_line(o, "THE GATEWAY ASKS FOR NO TOKEN (gateway.auth: none)", why);
        for (size_t i = 0; json_object_is_type(troubles, json_type_array) && i < json_object_array_length(troubles); i++)
                alarm_line(o, "the broker says", json_object_get_string(json_object_array_get_idx(troubles, i)));
}

void view_gateway(struct out *o, json_object *gateway)
{
        json_object *broker = json_get(gateway, "broker");
        const char *error = json_str(broker, "error"), *listen = json_str(gateway, "listen");

        if (!gateway)
                return;
        if (json_flag(broker, "linked", false)) {
                _cleanup_free_ char *text = mem_printf("%s, the broker is linked", listen ? listen : "?");
                out_field(o, STYLE_PLAIN, "Gateway", text);
        } else {
                _cleanup_free_ char *text =
                        mem_printf("no broker is linked, nobody can call the servers%s%s", error ? ": " : "", error ? error : "");
                out_field_again(o, STYLE_YELLOW, "Gateway", text);
        }
}

/* Servers that offer something else than what was approved of them. */
static void withheld_alarms(struct out *o, json_object *servers)
{
        for (size_t i = 0; json_object_is_type(servers, json_type_array) && i < json_object_array_length(servers); i++) {
                json_object *s = json_object_array_get_idx(servers, i);
                _cleanup_strv_ char **what = NULL;

                if (!json_get(s, "withheld") || !json_to_strv(&what, json_get(s, "withheld")) || !what || !*what)
                        continue;
                _cleanup_free_ char *list = strv_join(what, ", ");
                _cleanup_free_ char *text =
                        mem_printf("%s of server %s. The broker's log says what it is now; if it is meant so: propose, smoke, "
                                   "approve and promote this version",
                                   list, json_str(s, "name"));
                alarm_line(o, "withheld, since it differs from what was approved", text);
        }
}

void view_alarms(struct out *o, json_object *status)
{
        json_object *engine = json_get(status, "engine"), *registry = json_get(status, "registry");
        json_object *approvals = json_get(status, "approvals"), *egress = json_get(status, "egress");
        const char *error;

        if (str_eq(json_str(status, "signatures"), "none"))
                alarm_line(o, "SIGNATURES ARE OFF (approvals.signatures: none)",
                           "whoever can commit a record can run code; for development only");
        view_gateway_alarm(o, json_get(status, "gateway"));
        if (engine && !json_flag(engine, "up", true)) {
                error = json_str(engine, "error");
                alarm_line(o, "Engine does not answer", error ? error : "");
        }
        if ((error = json_str(registry, "error")))
                alarm_line(o, "registry not loaded, the last good one stays in force", error);
        if ((error = json_str(approvals, "error")))
                alarm_line(o, "approvals not read", error);
        if ((error = json_str(approvals, "refused")))
                alarm_line(o, "the newest commit of the approvals is refused", error);
        json_object *refused = json_get(approvals, "refused_records");
        for (size_t i = 0; json_object_is_type(refused, json_type_array) && i < json_object_array_length(refused); i++) {
                json_object *r = json_object_array_get_idx(refused, i);
                _cleanup_free_ char *text = mem_printf("%s: %s", json_str(r, "path") ? json_str(r, "path") : "?",
                                                       json_str(r, "why") ? json_str(r, "why") : "?");
                alarm_line(o, "a record does not count", text);
        }
        if (egress && !json_flag(egress, "ok", true)) {
                error = json_str(egress, "error");
                alarm_line(o, "network rules are not in force", error ? error : "they are still being loaded");
        }
        withheld_alarms(o, json_get(status, "servers"));
}

static const char *retry_text(char out[64], json_object *server)
{
        int64_t ms = json_int(server, "retry_in_ms", 0);
        char s[32];

        if (ms <= 0)
                return NULL;
        snprintf(out, 64, "next try in %s", text_format_span(s, (uint64_t)(ms + 999) / 1000));
        return out;
}

/* Of a server that has one for every session: it never runs itself. */
static size_t count_instances(json_object *server)
{
        json_object *list = json_get(server, "instances");

        return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

static const char *state_text(json_object *server)
{
        if (json_flag(server, "asleep", false) && count_instances(server))
                return "running";
        return json_flag(server, "asleep", false) ? "asleep" : json_str(server, "state");
}

/* Why a server is not as it should be: verdict, reason, next try. */
static char *why_text(json_object *server)
{
        const char *why = json_str(server, "why"), *verdict = json_str(server, "verdict");
        /* The verdict says why something may not run; of what may, it says nothing new. */
        bool told = verdict && str_eq(json_str(server, "state"), "refused");
        char retry[64];
        size_t n = count_instances(server);
        _cleanup_free_ char *instances = n ? mem_printf("%zu instance%s, one for every session", n, n == 1 ? "" : "s") : NULL;
        const char *parts[3] = {told ? verdict : NULL, instances ? instances : why, retry_text(retry, server)};
        struct buf b = {0};

        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                if (!parts[i] || !*parts[i])
                        continue;
                if (b.len)
                        buf_adds(&b, i == 2 ? "; " : ": ");
                buf_adds(&b, parts[i]);
        }
        return buf_take(&b);
}

static void expiry_text(char out[64], json_object *server, time_t now)
{
        time_t t = get_time(server, "expires_at");
        char s[32];

        if (!t)
                strcpy(out, "");
        else if (t <= now)
                snprintf(out, 64, "expired");
        else
                snprintf(out, 64, "in %s", span(s, now, t));
}

void view_servers(struct out *o, json_object *servers, time_t now)
{
        static const char *const headers[] = {"SERVER", "STATE", "APPROVAL", "EXPIRES", "FOR", "RESTARTS", "WHY"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));
        size_t n = json_object_is_type(servers, json_type_array) ? json_object_array_length(servers) : 0;

        for (size_t i = 0; i < n; i++) {
                json_object *s = json_object_array_get_idx(servers, i);
                char expires[64], since[32], restarts[24];
                time_t at = get_time(s, "since");
                _cleanup_free_ char *why = why_text(s);

                expiry_text(expires, s, now);
                snprintf(restarts, sizeof(restarts), "%" PRId64, json_int(s, "restarts", 0));
                table_cell(t, STYLE_BOLD, json_str(s, "name"));
                table_cell(t, state_style(json_str(s, "state")), state_text(s));
                table_cell(t, STYLE_PLAIN, json_str(s, "approval"));
                table_cell(t, view_expires_soon(s, now) ? STYLE_RED : STYLE_PLAIN, expires);
                table_cell(t, STYLE_PLAIN, at ? span(since, at, now) : NULL);
                table_cell(t, STYLE_PLAIN, restarts);
                table_cell(t, STYLE_PLAIN, why);
        }
        if (n)
                table_print(t, o);
        else
                out_line(o, STYLE_DIM, "no servers are declared");
}

static void view_instances(struct out *o, json_object *server, time_t now)
{
        for (size_t i = 0; i < count_instances(server); i++) {
                json_object *s = json_object_array_get_idx(json_get(server, "instances"), i);
                const char *container = json_str(s, "container"), *why = json_str(s, "why");
                time_t at = get_time(s, "since");
                char since[32];
                _cleanup_free_ char *text = mem_printf("%" PRId64 ": %s%s%s%s%s%s%s", json_int(s, "instance", 0), json_str(s, "state"),
                                                       at ? " for " : "", at ? span(since, at, now) : "", container ? ", " : "",
                                                       container ? container : "", why ? ": " : "", why ? why : "");

                out_field_again(o, state_style(json_str(s, "state")), "Instance", text);
        }
}

void view_server(struct out *o, json_object *s, time_t now)
{
        char expires[64], since[32];
        const char *expires_at = json_str(s, "expires_at");
        time_t at = get_time(s, "since");
        json_object *drift = json_get(s, "drift"), *withheld = json_get(s, "withheld");
        _cleanup_free_ char *why = why_text(s);
        _cleanup_free_ char *restarts = mem_printf("%" PRId64, json_int(s, "restarts", 0));

        out_text(o, STYLE_BOLD, json_str(s, "name"));
        fputc('\n', o->f);
        out_field(o, state_style(json_str(s, "state")), "State", state_text(s));
        out_field_again(o, STYLE_PLAIN, "Why", why);
        out_field(o, STYLE_PLAIN, "For", at ? span(since, at, now) : NULL);
        out_field(o, STYLE_PLAIN, "Restarts", restarts);
        out_field(o, STYLE_PLAIN, "Approval", json_str(s, "approval"));
        out_field(o, STYLE_PLAIN, "Approved by", json_str(s, "approved_by"));
        expiry_text(expires, s, now);
        _cleanup_free_ char *both = mem_printf("%s%s%s", expires, expires_at ? ", " : "", expires_at ? expires_at : "");
        if (*expires)
                out_field(o, view_expires_soon(s, now) ? STYLE_RED : STYLE_PLAIN, "Expires", both);
        out_field(o, STYLE_PLAIN, "Digest", json_str(s, "digest"));
        out_field(o, STYLE_PLAIN, "URL", json_str(s, "url"));
        out_field(o, STYLE_PLAIN, "Spec", json_str(s, "spec"));
        out_field(o, STYLE_PLAIN, "Container", json_str(s, "container"));
        out_field(o, STYLE_PLAIN, "Address", json_str(s, "address"));
        out_field(o, STYLE_PLAIN, "Transport", json_str(s, "transport"));
        out_field(o, STYLE_PLAIN, "Lifecycle", json_str(s, "lifecycle"));
        view_instances(o, s, now);
        for (size_t i = 0; drift && json_object_is_type(drift, json_type_array) && i < json_object_array_length(drift); i++)
                out_field_again(o, STYLE_RED, "Drift", json_object_get_string(json_object_array_get_idx(drift, i)));
        for (size_t i = 0; json_object_is_type(withheld, json_type_array) && i < json_object_array_length(withheld); i++)
                out_field_again(o, STYLE_RED, "Withheld", json_object_get_string(json_object_array_get_idx(withheld, i)));
}

void view_actions(struct out *o, json_object *actions)
{
        static const char *const headers[] = {"SERVER", "ACTION", "OBJECT", "REASON"};
        _cleanup_table_ struct table *t = table_new(headers, ELEMENTSOF(headers));

        for (size_t i = 0; i < json_object_array_length(actions); i++) {
                json_object *a = json_object_array_get_idx(actions, i);
                const char *action = json_str(a, "action");
                bool removes = action && (strstr(action, "remove") || strstr(action, "stop"));

                table_cell(t, STYLE_BOLD, json_str(a, "server"));
                table_cell(t, removes ? STYLE_RED : STYLE_GREEN, action);
                table_cell(t, STYLE_PLAIN, json_str(a, "object"));
                table_cell(t, STYLE_PLAIN, json_str(a, "reason"));
        }
        table_print(t, o);
}
