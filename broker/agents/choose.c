/*
 * The guard: what the gateway asks about an agent, answered by the policy, counted by the ledger, written down by the decision log.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "broker/agents/internal.h"
#include "common/log.h"
#include "common/text.h"

#define LATER_US 50000 /* so long the line of a call's end may wait for the next decision */

/* Of a call that was let pass, until it is over. */
struct pass {
        struct policy_decision decision;
        uint64_t number, begun_us;
        size_t arguments;
        char *agent, *run;
};

static uint64_t clock_us(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* -- what may be seen ------------------------------------------------------------------------------------------------------------ */
const struct policy_agent *agent_rights(const struct door *d, const struct principal *who)
{
        /* A stream may be older than the end of the token it was opened with. */
        return gate_still_counts(d->gate, who) ? policy_agent_find(decider_policy(d->decider), who->agent) : NULL;
}

enum policy_access tool_access(const struct policy_agent *a, const struct tool *t)
{
        return policy_access(a, POLICY_TOOL, t->server, t->name, t->action, NULL);
}

const struct tool *tool_seen(const struct door *d, const struct principal *who, const char *name)
{
        const struct tool *t = catalogue_named(d->catalogue, name);
        enum policy_access access = policy_access(agent_rights(d, who), POLICY_TOOL, t ? t->server : "", t ? t->name : name,
                                                  t ? t->action : ACTION_UNKNOWN, NULL);

        return t && access != POLICY_NONE ? t : NULL;
}

static bool on_visible(const struct principal *who, enum policy_kind kind, const char *server, const char *name, void *user)
{
        const struct door *d = user;
        const struct policy_agent *a = agent_rights(d, who);
        const struct tool *t;

        if (!name)
                return policy_reaches(a, kind, server);
        t = kind == POLICY_TOOL ? catalogue_find(d->catalogue, server, name) : NULL;
        return policy_access(a, kind, server, name, t ? t->action : ACTION_UNKNOWN, NULL) != POLICY_NONE;
}

/* -- the log ------------------------------------------------------------------------------------------------------------------- */
static void add_key(struct buf *out, const char *key)
{
        buf_adds(out, ",\"");
        buf_adds(out, key);
        buf_adds(out, "\":");
}

static void add_member(struct buf *out, const char *key, const char *value)
{
        add_key(out, key);
        mcp_add_string(out, value, strlen(value));
}

static void add_number(struct buf *out, const char *key, uint64_t value)
{
        add_key(out, key);
        buf_addu(out, value);
}

/* Callers choose names, of things that do not exist too, and nobody may push the log's older lines out with a few long ones. */
#define MAX_NAME 512U

static void add_name(struct buf *out, const char *name)
{
        size_t n = strlen(name), cut = MIN(n, (size_t)MAX_NAME);

        while (cut < n && cut > 0 && ((unsigned char)name[cut] & 0xc0) == 0x80) /* not in the middle of a character */
                cut--;
        buf_adds(out, ",\"name\":");
        mcp_add_string(out, name, cut);
        if (cut < n)
                add_number(out, "name_bytes", n);
}

/* Two lines a call: formatters and calendars would cost more than all the rest of them. */
static void add_head(struct door *d, struct buf *out, const char *event, uint64_t number, const char *agent, const char *run)
{
        uint64_t now = clock_us(CLOCK_REALTIME);
        unsigned ms = (unsigned)(now / 1000 % 1000);
        const char millis[] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z', '"'};

        if (d->at != (time_t)(now / 1000000)) {
                d->at = (time_t)(now / 1000000);
                text_format_time(d->at_text, d->at);
        }
        buf_adds(out, "{\"at\":\"");
        buf_add(out, d->at_text, strcspn(d->at_text, "Z"));
        buf_add(out, millis, sizeof(millis));
        add_member(out, "event", event);
        add_number(out, "call", number);
        add_member(out, "agent", agent);
        add_member(out, "run", run);
}

/* What tells a decision from others. */
static void add_kind(struct buf *out, const struct gateway_question *q, const struct policy_decision *decision, const char *approval)
{
        add_member(out, "door", q->request ? "http" : "mcp");
        add_member(out, "kind", policy_kind_name(q->kind));
        add_member(out, "server", q->server);
        add_name(out, q->name);
        add_member(out, "outcome", policy_outcome_name(decision->outcome));
        add_member(out, "rule", decision->rule ? decision->rule : "");
        if (*approval)
                add_member(out, "approval", approval);
}

/* A denial that came before, or one of many: it will be in a line with a count. */
static bool was_counted(struct door *d, const struct gateway_question *q, const struct policy_decision *decision, const char *kind,
                        uint64_t number)
{
        _cleanup_buf_ struct buf together = {0};

        if (decision->outcome == POLICY_ALLOWED)
                return false;
        add_member(&together, "outcome", policy_outcome_name(decision->outcome));
        return denials_again(d->denials, q->who->agent, q->who->run, kind, together.data, number, clock_us(CLOCK_REALTIME) / 1000);
}

static int write_count(const struct denials_count *c, void *user)
{
        struct door *d = user;
        _cleanup_buf_ struct buf line = {0};
        _cleanup_err_ struct err *err = NULL;
        char since[TEXT_TIME_MAX];

        add_head(d, &line, "repeated", c->number, c->agent, c->run);
        buf_adds(&line, c->kind);
        text_format_time(since, (time_t)(c->since_ms / 1000));
        buf_addf(&line, ",\"times\":%" PRIu64 ",\"since\":\"%.19s.%03uZ\"}\n", c->times, since, (unsigned)(c->since_ms % 1000));
        if (decision_log_write(d->log, line.data, line.len, &err) == 0)
                return 0;
        log_error("a count of denials was not logged, and is tried again", "why", err_msg(err));
        return -1;
}

void door_log_denials(struct door *d)
{
        denials_flush(d->denials, write_count, d);
}

static int log_decision(struct door *d, const struct gateway_question *q, const struct policy_decision *decision, const char *approval,
                        uint64_t number, uint64_t took_us, struct err **err)
{
        _cleanup_buf_ struct buf line = {0};
        size_t kind;

        buf_reserve(&line, 512);
        add_head(d, &line, "decision", number, q->who->agent, q->who->run);
        kind = line.len;
        add_kind(&line, q, decision, approval);
        if (was_counted(d, q, decision, line.data + kind, number))
                return 0;
        if (*decision->why)
                add_member(&line, "why", decision->why);
        add_number(&line, "arguments_bytes", q->arguments.n);
        add_number(&line, "took_us", took_us);
        buf_adds(&line, "}\n");
        return decision_log_write(d->log, line.data, line.len, err);
}

static void log_end(struct door *d, const struct pass *p, size_t bytes, uint64_t tokens, bool failed, uint64_t took_us)
{
        _cleanup_buf_ struct buf line = {0};
        _cleanup_err_ struct err *err = NULL;

        buf_reserve(&line, 256);
        add_head(d, &line, "end", p->number, p->agent, p->run);
        buf_adds(&line, failed ? ",\"failed\":true" : ",\"failed\":false");
        add_number(&line, "result_bytes", bytes);
        add_number(&line, "tokens", tokens);
        add_number(&line, "took_us", took_us);
        buf_adds(&line, "}\n");
        if (decision_log_later(d->log, line.data, line.len, &err) < 0)
                log_error("ends of calls were not logged", "why", err_msg(err));
        if (sd_event_source_get_enabled(d->later, NULL) == 0 && sd_event_source_set_time_relative(d->later, LATER_US) >= 0)
                (void)sd_event_source_set_enabled(d->later, SD_EVENT_ONESHOT);
}

uint64_t door_now_ms(const struct door *d)
{
        return MAX(clock_us(CLOCK_REALTIME) / 1000, (uint64_t)gate_now(d->gate) * 1000);
}

/* -- what may be done ------------------------------------------------------------------------------------------------------------ */
/* What the agent is told of a decision against it: a JSON object. */
static void refusal_text(struct buf *out, const struct gateway_question *q, const struct policy_decision *decision,
                         const struct pending_view *asked)
{
        char at[TEXT_TIME_MAX];

        buf_addf(out, "{\"status\":\"%s\"", policy_outcome_name(decision->outcome));
        add_member(out, "server", q->server);
        add_member(out, "name", q->name);
        if (decision->outcome == POLICY_BAD_ARGUMENTS)
                add_member(out, "where", decision->where);
        if (decision->retry_after_ms)
                buf_addf(out, ",\"retry_after_ms\":%" PRIu64, decision->retry_after_ms);
        if (*asked->id) {
                add_member(out, "id", asked->id);
                add_member(out, "state", asked->state == PENDING_REJECTED ? "rejected" : "waits");
                add_member(out, "expires_at", text_format_time(at, (time_t)(asked->expires_ms / 1000)));
        }
        add_member(out, "message", decision->why);
        buf_addc(out, '}');
}

static struct pass *pass_new(const struct gateway_question *q, const struct policy_decision *decision, uint64_t number)
{
        struct pass *p = NEW(struct pass);

        *p = (struct pass){.decision = *decision,
                           .number = number,
                           .begun_us = clock_us(CLOCK_MONOTONIC),
                           .arguments = q->arguments.n,
                           .agent = mem_strdup(q->who->agent),
                           .run = mem_strdup(q->who->run)};
        return p;
}

/* What a server reports counts where it is more than what went to and fro: no server can make an agent's budget last for ever. */
static void pass_settle(struct door *d, struct pass *p, size_t bytes, uint64_t reported, bool failed)
{
        uint64_t tokens = MAX(bytes ? policy_estimate_tokens(p->arguments, bytes) : 0, reported);
        uint64_t took_us = clock_us(CLOCK_MONOTONIC) - p->begun_us;
        _cleanup_err_ struct err *err = NULL;

        if (decider_settle(d->decider, &p->decision, tokens, &err) < 0)
                log_error("what a call used could not be written: a restart counts what was reserved", "why", err_msg(err));
        count_end(d, took_us, tokens, failed);
        log_end(d, p, bytes, tokens, failed, took_us);
        free(p->agent);
        free(p->run);
        free(p);
}

static void on_settle(void *ticket, size_t bytes, uint64_t tokens, bool failed, void *user)
{
        pass_settle(user, ticket, bytes, tokens, failed);
}

static void make_decision(struct door *d, const struct gateway_question *q, bool approved, struct policy_decision *decision)
{
        const struct tool *t = q->kind == POLICY_TOOL ? catalogue_find(d->catalogue, q->server, q->name) : NULL;
        const struct policy_request r = {.agent = q->who->agent,
                                         .kind = q->kind,
                                         .server = q->server,
                                         .name = q->name,
                                         .tool = t ? t->policy : NULL,
                                         .exists = *q->server != '\0',
                                         .arguments = q->arguments,
                                         .approved = approved,
                                         .now_ms = clock_us(CLOCK_REALTIME) / 1000};

        decide(d->decider, &r, decision);
}

/* Clients hold structuredContent against the tool's outputSchema, also where the call failed: then all they would say is that it differs.
 */
static bool promises_output(const struct door *d, const struct gateway_question *q)
{
        const struct tool *t = catalogue_find(d->catalogue, q->server, q->name);

        return t && mcp_has(mcp_object_get(mcp_slice_of(t->listed), "outputSchema"));
}

static enum gateway_verdict refused(const struct door *d, const struct gateway_question *q, const struct policy_decision *decision,
                                    const struct pending_view *asked, struct buf *answer)
{
        _cleanup_buf_ struct buf text = {0};

        if (decision->outcome == POLICY_DOES_NOT_EXIST) {
                if (q->request)
                        plain_decided(q->request, decision, (struct mcp_slice){0});
                return GATEWAY_UNKNOWN;
        }
        refusal_text(&text, q, decision, asked);
        if (q->request)
                plain_decided(q->request, decision, (struct mcp_slice){text.data, text.len});
        if (q->kind == POLICY_TOOL && decision->outcome != POLICY_FAILED) {
                tool_result(answer, (struct mcp_slice){text.data, text.len}, !promises_output(d, q), true);
                return GATEWAY_RESULT;
        }
        buf_adds(answer, decision->why);
        return GATEWAY_ERROR;
}

static int arguments_hash(char hash[SHA256_HEX], struct mcp_slice arguments, struct err **err)
{
        const struct json_limits limits = {.max_bytes = PENDING_SHOWN, .max_depth = 64};
        _cleanup_json_ json_object *o = NULL;

        if (json_parse(&o, mcp_has(arguments) ? arguments.at : "{}", mcp_has(arguments) ? arguments.n : 2, "arguments", &limits, err) < 0)
                return -1;
        json_sha256(hash, o);
        return 0;
}

/* What a human has said about this very call, or is asked now. Where that lets the call pass, it is decided again as an approved one. */
static void ask_human(struct door *d, const struct gateway_question *q, struct policy_decision *decision, struct pending_view *asked)
{
        const struct tool *t = catalogue_find(d->catalogue, q->server, q->name);
        _cleanup_free_ char *text = mcp_has(q->arguments) ? mem_strndup(q->arguments.at, q->arguments.n) : mem_strdup("{}");
        _cleanup_err_ struct err *err = NULL;
        char hash[SHA256_HEX];
        const struct pending_call call = {.agent = q->who->agent,
                                          .run = q->who->run,
                                          .server = q->server,
                                          .tool = q->name,
                                          .manifest = t ? policy_tool_manifest(t->policy) : "",
                                          .arguments = text,
                                          .hash = hash};

        if (arguments_hash(hash, q->arguments, &err) < 0 ||
            (!pending_find(d->pending, &call, door_now_ms(d), asked) && pending_ask(d->pending, &call, door_now_ms(d), asked, &err) < 0)) {
                snprintf(decision->why, sizeof(decision->why), "a human has to approve this call, and cannot be asked: %s", err_msg(err));
                return;
        }
        if (asked->state == PENDING_REJECTED)
                strcpy(decision->why, "a human rejected this call");
        if (asked->state != PENDING_APPROVED)
                return;
        make_decision(d, q, true, decision);
        if (decision->outcome != POLICY_ALLOWED || pending_use(d->pending, asked->id, &err) == 0)
                return;
        log_error("an approval could not be used", "id", asked->id, "why", err_msg(err));
        if (decider_settle(d->decider, decision, 0, NULL) < 0)
                log_error("and what it reserved stays counted");
        decision->outcome = POLICY_FAILED;
        strcpy(decision->why, "the broker cannot write down that an approval was used");
}

static enum gateway_verdict on_decide(const struct gateway_question *q, void **ticket, struct buf *answer, void *user)
{
        struct door *d = user;
        struct policy_decision decision;
        struct pending_view asked = {0};
        _cleanup_err_ struct err *err = NULL;
        uint64_t begun = clock_us(CLOCK_MONOTONIC), number = ++d->calls;

        make_decision(d, q, false, &decision);
        if (decision.outcome == POLICY_APPROVAL_REQUIRED)
                ask_human(d, q, &decision, &asked);
        if (log_decision(d, q, &decision, asked.id, number, clock_us(CLOCK_MONOTONIC) - begun, &err) < 0) {
                log_error("a call was refused, because its decision cannot be logged", "why", err_msg(err));
                if (decision.outcome == POLICY_ALLOWED && decider_settle(d->decider, &decision, 0, NULL) < 0)
                        log_error("and what it reserved stays counted");
                if (decision.outcome != POLICY_DOES_NOT_EXIST) {
                        decision.outcome = POLICY_FAILED;
                        strcpy(decision.why, "the broker cannot log what it decides, and so decides nothing");
                }
        }
        count_decision(d, &decision, clock_us(CLOCK_MONOTONIC) - begun);
        if (decision.outcome != POLICY_ALLOWED)
                return refused(d, q, &decision, &asked, answer);
        *ticket = pass_new(q, &decision, number);
        if (q->request)
                plain_decided(q->request, &decision, (struct mcp_slice){0});
        return GATEWAY_PASS;
}

/* -- humans -------------------------------------------------------------------------------------------------------------------- */
void door_list_calls(void (*each)(const char *text, void *to), void *to, void *door)
{
        struct door *d = door;
        _cleanup_json_ json_object *list = pending_list(d->pending, NULL, door_now_ms(d));

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *o = json_object_array_get_idx(list, i);
                _cleanup_buf_ struct buf text = {0};

                /* DEL is fine in JSON, and in no message between programs. */
                for (const char *s = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE); *s; s++)
                        if (*s == 0x7f)
                                buf_adds(&text, "\\u007f");
                        else
                                buf_addc(&text, *s);
                each(text.data, to);
        }
}

static int log_human(struct door *d, const char *id, bool approve, uint64_t valid_ms, const char *by, struct err **err)
{
        _cleanup_buf_ struct buf line = {0};

        add_head(d, &line, approve ? "approved" : "rejected", d->calls, "", "");
        add_member(&line, "approval", id);
        add_member(&line, "by", by);
        buf_addf(&line, ",\"valid_ms\":%" PRIu64 "}\n", valid_ms);
        return decision_log_write(d->log, line.data, line.len, err);
}

int door_decide_call(const char *id, bool approve, uint64_t valid_ms, const char *by, void *door, struct err **err)
{
        struct door *d = door;

        return log_human(d, id, approve, valid_ms, by, err) < 0
                       ? -1
                       : pending_decide(d->pending, id, approve, valid_ms, by, door_now_ms(d), err);
}

/* -- tools --------------------------------------------------------------------------------------------------------------------- */
static void on_tools(const struct channel_entry *server, const char *prefix, struct mcp_slice array, void *user)
{
        struct door *d = user;

        catalogue_set(d->catalogue, server, prefix, array);
}

static void on_stale(const char *server, bool stale, void *user)
{
        struct door *d = user;

        catalogue_mark(d->catalogue, server, stale);
}

static bool is_shown(const struct policy_agent *a, char *const *loaded, const struct tool *t)
{
        _cleanup_free_ char *full = NULL;

        if (tool_access(a, t) == POLICY_NONE || policy_tool_fault(t->policy))
                return false;
        if (policy_preloads(a, t->server, t->name, t->action))
                return true;
        if (!loaded)
                return false;
        full = mem_printf("%s:%s", t->server, t->name);
        return strv_contains(loaded, full);
}

/* Clients know what a tool is when they see it; that its server is away stands where they look for more. */
static void add_listed(struct buf *out, const struct tool *t)
{
        struct mcp_slice element = {t->listed, strlen(t->listed)}, old = mcp_object_get(element, "_meta");
        _cleanup_buf_ struct buf meta = {0};

        if (!t->stale) {
                mcp_add_slice(out, element);
                return;
        }
        mcp_object_set(&meta, mcp_is_object(old) ? old : mcp_slice_of("{}"), STALE_META, mcp_slice_of("true"));
        mcp_object_set(out, element, "_meta", (struct mcp_slice){meta.data, meta.len});
}

static void on_list(const struct principal *who, const char *scope, struct buf *out, void *user)
{
        struct door *d = user;
        char *const *loaded = shown_get(d->shown, scope ? scope : who->scope);
        const struct policy_agent *a = agent_rights(d, who);
        struct catalogue_cursor at = {0};
        const struct tool *t;

        harness_list(out);
        while ((t = catalogue_next(d->catalogue, &at)))
                if (is_shown(a, loaded, t)) {
                        buf_addc(out, ',');
                        add_listed(out, t);
                }
}

static bool on_lists(const struct principal *who, const char *scope, const char *server, void *user)
{
        struct door *d = user;
        char *const *loaded = shown_get(d->shown, scope ? scope : who->scope);
        const struct policy_agent *a = agent_rights(d, who);
        size_t n = strlen(server);

        if (policy_preloads_server(a, server) && policy_reaches(a, POLICY_TOOL, server))
                return true;
        for (; loaded && *loaded; loaded++)
                if (strncmp(*loaded, server, n) == 0 && (*loaded)[n] == ':')
                        return policy_reaches(a, POLICY_TOOL, server);
        return false;
}

static enum gateway_verdict on_own(const struct gateway_question *q, const char *scope, struct buf *answer, bool *changed, void *user)
{
        struct door *d = user;
        _cleanup_buf_ struct buf out = {0};
        _cleanup_free_ char *why = NULL;
        int r;

        if (str_eq(q->name, "harness_search_tools"))
                r = harness_search(d, q->who, q->arguments, &out, &why);
        else if (str_eq(q->name, "harness_describe_tool"))
                r = harness_describe(d, q->who, q->arguments, &out, &why);
        else if (str_eq(q->name, "harness_load_tools"))
                r = harness_load(d, q->who, scope, q->arguments, &out, changed, &why);
        else
                r = 1, why = mem_printf("Unknown tool: %s", q->name);
        if (r > 0) {
                buf_adds(answer, why);
                return GATEWAY_UNKNOWN;
        }
        if (r < 0) {
                buf_adds(&out, "{\"status\":\"bad_arguments\"");
                add_member(&out, "message", why);
                buf_addc(&out, '}');
        }
        tool_result(answer, (struct mcp_slice){out.data, out.len}, true, r < 0);
        return GATEWAY_RESULT;
}

static const char *on_name(const struct principal *who)
{
        return who->agent;
}

static enum gateway_standing on_standing(const struct principal *who, void *user)
{
        const struct door *d = user;

        if (gate_has_revoked(d->gate, who) || (d->reloaded && !policy_agent_find(decider_policy(d->decider), who->agent)))
                return GATEWAY_REVOKED;
        return gate_still_counts(d->gate, who) ? GATEWAY_COUNTS : GATEWAY_EXPIRED;
}

void guard_init(struct door *d)
{
        d->guard = (struct gateway_guard){.ref = principal_ref,
                                          .unref = principal_unref,
                                          .name = on_name,
                                          .standing = on_standing,
                                          .visible = on_visible,
                                          .decide = on_decide,
                                          .settle = on_settle,
                                          .tools = on_tools,
                                          .stale = on_stale,
                                          .lists = on_lists,
                                          .list = on_list,
                                          .is_own = harness_is,
                                          .own = on_own,
                                          .user = d};
        gateway_set_guard(d->gateway, &d->guard);
}
