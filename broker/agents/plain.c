/*
 * /v1: the same tools for those who speak HTTP and no MCP: scripts, and agents that may run one program. One POST, one JSON object back.
 * The gateway, and so the guard, see no difference.
 */
#include "broker/agents/internal.h"

#define JSON_TYPE "application/json"

struct verb;

struct plain {
        struct list in_door;
        struct door *door;
        struct exchange *x; /* NULL: answered, or its client left */
        struct principal *who;
        const struct verb *verb;
        struct buf body;
        struct mcp_slice object; /* of body */
        struct call *call;       /* what is under way at the gateway */
        bool decided;
        enum policy_outcome outcome;
        uint64_t retry_after_ms;
        struct buf refusal;
};

struct verb {
        const char *path;
        void (*start)(struct plain *p);
};

/* -- answers ------------------------------------------------------------------------------------------------------------------- */
static void plain_free(struct plain *p)
{
        list_del(&p->in_door);
        principal_unref(p->who);
        buf_deinit(&p->body);
        buf_deinit(&p->refusal);
        free(p);
}

static void respond(struct plain *p, unsigned status, struct buf *body)
{
        struct exchange *x = TAKE_PTR(p->x);

        exchange_on_left(x, NULL, NULL);
        if (p->retry_after_ms) {
                _cleanup_free_ char *seconds = mem_printf("%llu", (unsigned long long)(p->retry_after_ms + 999) / 1000);

                exchange_add_header(x, "Retry-After", seconds);
        }
        exchange_add_header(x, "Cache-Control", "no-store");
        exchange_answer(x, status, JSON_TYPE, body);
        plain_free(p);
}

static void error_text(struct buf *out, const char *status, const char *message)
{
        buf_addf(out, "{\"status\":\"%s\",\"message\":", status);
        mcp_add_string(out, message, strlen(message));
        buf_addc(out, '}');
}

static void fail(struct plain *p, unsigned http, const char *status, const char *message)
{
        struct buf b = {0};

        error_text(&b, status, message);
        respond(p, http, &b);
}

static void refuse(struct exchange *x, unsigned http, const char *status, const char *message)
{
        struct buf b = {0};

        error_text(&b, status, message);
        exchange_answer(x, http, JSON_TYPE, &b);
}

static void on_left(_unused_ struct exchange *x, void *user)
{
        struct plain *p = user;

        if (p->call)
                gateway_call_cancel(p->call);
        plain_free(p);
}

/* -- looking ------------------------------------------------------------------------------------------------------------------- */
static void answer_object(struct plain *p, int r, struct buf *out, const char *why)
{
        if (r == 0)
                respond(p, 200, out);
        else
                fail(p, r > 0 ? 404 : 400, r > 0 ? "unknown" : "bad_arguments", why);
}

static void search_now(void *user)
{
        struct plain *p = user;
        _cleanup_free_ char *why = NULL;
        struct buf out = {0};
        int r;

        p->call = NULL;
        r = harness_search(p->door, p->who, p->object, &out, &why);
        answer_object(p, r, &out, why);
}

static void describe_now(void *user)
{
        struct plain *p = user;
        _cleanup_free_ char *why = NULL;
        struct buf out = {0};
        int r;

        p->call = NULL;
        r = harness_describe(p->door, p->who, p->object, &out, &why);
        answer_object(p, r, &out, why);
}

static void load_now(void *user)
{
        struct plain *p = user;
        _cleanup_free_ char *why = NULL;
        struct buf out = {0};
        bool changed = false;
        int r;

        p->call = NULL;
        r = harness_load(p->door, p->who, NULL, p->object, &out, &changed, &why);
        answer_object(p, r, &out, why);
}

static void learn_first(struct plain *p, void (*then)(void *user))
{
        struct call *c = gateway_learn(p->door->gateway, p->who, then, p);

        /* NULL: it was answered, and p is gone. */
        if (c)
                p->call = c;
}

static void start_search(struct plain *p)
{
        learn_first(p, search_now);
}

static void start_describe(struct plain *p)
{
        learn_first(p, describe_now);
}

static void start_load(struct plain *p)
{
        learn_first(p, load_now);
}

/* -- calling ------------------------------------------------------------------------------------------------------------------- */
void plain_decided(struct plain *p, const struct policy_decision *decision, struct mcp_slice text)
{
        p->decided = true;
        p->outcome = decision->outcome;
        p->retry_after_ms = decision->retry_after_ms;
        mcp_add_slice(&p->refusal, text);
}

static unsigned status_of(enum policy_outcome outcome)
{
        switch (outcome) {
        case POLICY_ALLOWED:
                return 200;
        case POLICY_DOES_NOT_EXIST:
                return 404;
        case POLICY_APPROVAL_REQUIRED:
                return 202;
        case POLICY_RATE_LIMITED:
        case POLICY_BUDGET_EXHAUSTED:
                return 429;
        case POLICY_BAD_ARGUMENTS:
                return 400;
        case POLICY_FAILED:
                break;
        }
        return 503;
}

/* There is no way back for answers here: whoever calls learns what it would have been asked, and that nothing was done. */
static void input_required(struct plain *p, struct mcp_slice requests)
{
        struct buf out = {0};

        buf_adds(&out, "{\"status\":\"input_required\",\"message\":\"the tool asks its caller something first: call it over MCP\"");
        if (mcp_is_object(requests)) {
                buf_adds(&out, ",\"requests\":");
                mcp_add_slice(&out, requests);
        }
        buf_addc(&out, '}');
        respond(p, 409, &out);
}

static void call_done(void *user, struct mcp_slice result, int64_t code, const char *message)
{
        struct plain *p = user;
        struct buf out = {0};

        p->call = NULL;
        if (!p->decided) {
                fail(p, code || !message ? 502 : 503, "failed", message ? message : "no decision");
        } else if (p->refusal.len) {
                out = p->refusal;
                p->refusal = (struct buf){0};
                respond(p, status_of(p->outcome), &out);
        } else if (p->outcome != POLICY_ALLOWED) {
                fail(p, status_of(p->outcome), p->outcome == POLICY_DOES_NOT_EXIST ? "unknown" : "failed", message ? message : "refused");
        } else if (!mcp_has(result)) {
                fail(p, 502, "failed", message ? message : "the server's answer is none");
        } else if (mcp_is(mcp_object_get(result, "resultType"), "\"input_required\"")) {
                input_required(p, mcp_object_get(result, "inputRequests"));
        } else {
                buf_reserve(&out, result.n + 32);
                buf_adds(&out, "{\"status\":\"ok\",\"result\":");
                mcp_add_slice(&out, result);
                buf_addc(&out, '}');
                respond(p, 200, &out);
        }
}

static void start_call(struct plain *p)
{
        struct mcp_slice name = mcp_object_get(p->object, "name"), arguments = mcp_object_get(p->object, "arguments");
        struct gateway_request request = {.who = p->who, .name = name, .arguments = arguments, .done = call_done, .user = p};
        struct call *c;

        if (!mcp_is_string(name) || (mcp_has(arguments) && !mcp_is_object(arguments))) {
                fail(p, 400, "bad_arguments", "name is needed, a text; arguments is an object");
                return;
        }
        c = gateway_call(p->door->gateway, &request);
        if (c)
                p->call = c;
}

/* Its own, and no others. */
static void start_pending(struct plain *p)
{
        _cleanup_json_ json_object *o = json_object_new_object();
        struct buf out = {0};

        json_add(o, "pending", pending_list(p->door->pending, p->who->agent, door_now_ms(p->door)));
        buf_adds(&out, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
        respond(p, 200, &out);
}

/* -- requests ------------------------------------------------------------------------------------------------------------------ */
static const struct verb verbs[] = {
        {"/v1/search", start_search}, {"/v1/describe", start_describe}, {"/v1/load", start_load},
        {"/v1/call", start_call},     {"/v1/pending", start_pending},
};

static bool is_json(const char *type)
{
        size_t n = strlen(JSON_TYPE);

        return type && strncasecmp(type, JSON_TYPE, n) == 0 && (type[n] == '\0' || type[n] == ';' || type[n] == ' ');
}

static void begin(struct door *d, struct exchange *x, const struct verb *verb)
{
        struct plain *p = NEW(struct plain);
        _cleanup_err_ struct err *why = NULL;
        struct mcp_slice body;
        size_t n;

        *p = (struct plain){.door = d, .x = x, .who = principal_ref(exchange_identity(x)), .verb = verb};
        list_add(&d->plain, &p->in_door);
        exchange_on_left(x, on_left, p);
        (void)exchange_body(x, &n);
        if (!gateway_has_room(d->gateway, n)) {
                p->retry_after_ms = 1000;
                fail(p, 503, "failed", "too many large requests are under way: try again");
                return;
        }
        exchange_take_body(x, &p->body);
        body = (struct mcp_slice){p->body.data ? p->body.data : "", p->body.len};
        while (body.n && strchr(" \t\r\n", *body.at))
                body.at++, body.n--;
        if (mcp_value_check(body.at, body.n, &why)) {
                fail(p, 400, "bad_arguments", err_msg(why));
        } else if (!mcp_is_object(body)) {
                fail(p, 400, "bad_arguments", "the body is no JSON object");
        } else {
                p->object = body;
                verb->start(p);
        }
}

bool plain_exchange(struct door *d, struct exchange *x)
{
        const struct verb *verb = NULL;

        if (!str_has_prefix(exchange_path(x), "/v1/"))
                return false;
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                if (str_eq(exchange_path(x), verbs[i].path))
                        verb = &verbs[i];
        if (!verb) {
                refuse(x, 404, "unknown", "no such path");
        } else if (!str_eq(exchange_method(x), "POST")) {
                exchange_add_header(x, "Allow", "POST");
                refuse(x, 405, "failed", "send a POST");
        } else if (!is_json(exchange_header(x, "Content-Type"))) {
                refuse(x, 415, "bad_arguments", "Content-Type must be application/json");
        } else {
                begin(d, x, verb);
        }
        return true;
}

void plain_stop(struct door *d)
{
        while (!list_empty(&d->plain)) {
                struct plain *p = list_first(&d->plain, struct plain, in_door);

                if (p->call)
                        gateway_call_cancel(TAKE_PTR(p->call));
                fail(p, 503, "failed", "the broker ends: try again");
        }
}
