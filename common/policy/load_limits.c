#include <math.h>

#include "common/policy/rules.h"

#define MICRO 1000000.0 /* of a dollar */

char *rule_text(const struct reader *r, const struct place *at)
{
        _cleanup_free_ char *place = reader_place_text(at);
        unsigned line = reader_line(r, at);

        return line ? mem_printf("%s (line %u)", place, line) : mem_printf("%s (built in)", place);
}

int read_selector_item(const struct reader *r, const struct place *at, const char *text, struct selector *s, struct err **err)
{
        size_t before = s->n_globs;

        if (selector_add(s, text, err) < 0)
                return reader_wrap(r, at, err);
        if (s->n_globs > before)
                reader_spot(r, at, &s->globs[before].line, &s->globs[before].column);
        return 0;
}

int parse_selector(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct selector *selector = dst;
        size_t n = 0;

        if (read_array(r, at, value, SELECTOR_MAX_ITEMS, &n, err) < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                const char *s = NULL;

                if (read_string(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), SELECTOR_MAX_GLOB, &s, err) < 0)
                        return -1;
                if (read_selector_item(r, PLACE_ITEM(at, i), s, selector, err) < 0)
                        return -1;
        }
        return 0;
}

/* -- rate limits --------------------------------------------------------------------------------------------------------------- */
static int parse_limit_tools(const struct reader *r, const struct place *at, json_object *value, void *limit, struct err **err)
{
        return parse_selector(r, at, value, &((struct rate_limit *)limit)->tools, err);
}

static int parse_max_calls(const struct reader *r, const struct place *at, json_object *value, void *limit, struct err **err)
{
        int64_t n = 0;

        if (read_integer(r, at, value, 0, 1000000000, &n, err) < 0)
                return -1;
        ((struct rate_limit *)limit)->max_calls = (uint32_t)n;
        return 0;
}

static int parse_window(const struct reader *r, const struct place *at, json_object *value, void *limit, struct err **err)
{
        int64_t n = 0;

        if (read_integer(r, at, value, 1, POLICY_MAX_WINDOW_S, &n, err) < 0)
                return -1;
        ((struct rate_limit *)limit)->window_ms = (uint64_t)n * 1000;
        return 0;
}

static const struct key limit_keys[] = {
        {.name = "tools", .parse = parse_limit_tools, .required = true},
        {.name = "max_calls", .parse = parse_max_calls, .required = true},
        {.name = "window_seconds", .parse = parse_window, .required = true},
};

/* What is counted, as 64 bits: the same tools in the same window are the same counter, wherever the rule stands. */
static uint64_t limit_key(json_object *tools, uint64_t window_ms)
{
        _cleanup_json_ json_object *what = json_object_new_object();
        char hex[SHA256_HEX];

        json_add(what, "tools", json_object_get(tools));
        json_add_int(what, "window_ms", (int64_t)window_ms);
        json_sha256(hex, what);
        hex[16] = '\0';
        return strtoull(hex, NULL, 16);
}

int read_rate_limits(const struct reader *r, const struct place *at, json_object *value, struct rate_limit **limits, size_t *n_limits,
                     struct err **err)
{
        size_t n = 0;

        if (read_array(r, at, value, POLICY_MAX_LIMITS, &n, err) < 0)
                return -1;
        *limits = mem_alloc(n * sizeof(**limits) + 1);
        for (size_t i = 0; i < n; i++) {
                json_object *item = json_object_array_get_idx(value, i);
                struct rate_limit *l = &(*limits)[i];

                *n_limits = i + 1;
                if (READ_OBJECT(r, PLACE_ITEM(at, i), item, limit_keys, l, err) < 0)
                        return -1;
                l->rule = rule_text(r, PLACE_ITEM(at, i));
                l->key = limit_key(json_get(item, "tools"), l->window_ms);
        }
        return 0;
}

int parse_rate_limits(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        struct policy *p = dst;

        return read_rate_limits(r, at, value, &p->limits, &p->n_limits, err);
}

void rate_limit_deinit(struct rate_limit *l)
{
        free(l->rule);
        selector_deinit(&l->tools);
}

/* -- budgets and prices -------------------------------------------------------------------------------------------------------- */
/* 0 .. 1,000,000 dollars, to the millionth. */
static int read_dollars(const struct reader *r, const struct place *at, json_object *value, uint64_t *ret, struct err **err)
{
        double dollars = json_object_get_double(value);

        if (!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int))
                return reader_fail(r, at, err, "is not a number; write an amount in US dollars, such as 2.5");
        if (!(dollars >= 0 && dollars <= 1e6))
                return reader_fail(r, at, err, "is out of range; write an amount from 0 to 1000000");
        if (fabs(dollars * MICRO - round(dollars * MICRO)) > 1e-3)
                return reader_fail(r, at, err, "is finer than a millionth of a dollar; write at most six decimals");
        *ret = (uint64_t)llround(dollars * MICRO);
        return 0;
}

static int parse_period(const struct reader *r, const struct place *at, json_object *value, void *budget, struct err **err)
{
        static const char *const words[] = {"hour", "day", "month", "forever", NULL};
        unsigned i = 0;

        if (read_word(r, at, value, words, &i, err) < 0)
                return -1;
        ((struct budget *)budget)->period = (enum budget_period)i;
        return 0;
}

static int read_count(const struct reader *r, const struct place *at, json_object *value, uint64_t *ret, struct err **err)
{
        int64_t n = 0;

        if (read_integer(r, at, value, 0, INT64_C(1) << 53, &n, err) < 0)
                return -1;
        *ret = (uint64_t)n;
        return 0;
}

static int parse_max_tokens(const struct reader *r, const struct place *at, json_object *value, void *budget, struct err **err)
{
        return read_count(r, at, value, &((struct budget *)budget)->max_tokens, err);
}

static int parse_max_api_calls(const struct reader *r, const struct place *at, json_object *value, void *budget, struct err **err)
{
        return read_count(r, at, value, &((struct budget *)budget)->max_calls, err);
}

static int parse_max_cost(const struct reader *r, const struct place *at, json_object *value, void *budget, struct err **err)
{
        return read_dollars(r, at, value, &((struct budget *)budget)->max_cost, err);
}

static int parse_reserve(const struct reader *r, const struct place *at, json_object *value, void *budget, struct err **err)
{
        int64_t n = 0;

        if (read_integer(r, at, value, 0, 10000000, &n, err) < 0)
                return -1;
        ((struct budget *)budget)->reserve_tokens = (uint32_t)n;
        return 0;
}

int parse_budgets(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        static const struct key keys[] = {
                {.name = "period", .parse = parse_period},
                {.name = "max_tokens", .parse = parse_max_tokens},
                {.name = "max_api_calls", .parse = parse_max_api_calls},
                {.name = "max_cost_usd", .parse = parse_max_cost},
                {.name = "reserve_tokens", .parse = parse_reserve},
        };
        struct budget *b = dst;

        free(b->rule);
        *b = (struct budget){rule_text(r, at), PERIOD_DAY, POLICY_UNLIMITED, POLICY_UNLIMITED, POLICY_UNLIMITED, 1000};
        return READ_OBJECT(r, at, value, keys, b, err);
}

static int parse_price_tools(const struct reader *r, const struct place *at, json_object *value, void *price, struct err **err)
{
        return parse_selector(r, at, value, &((struct price *)price)->tools, err);
}

static int parse_per_call(const struct reader *r, const struct place *at, json_object *value, void *price, struct err **err)
{
        return read_dollars(r, at, value, &((struct price *)price)->per_call, err);
}

static int parse_per_tokens(const struct reader *r, const struct place *at, json_object *value, void *price, struct err **err)
{
        return read_dollars(r, at, value, &((struct price *)price)->per_1000_tokens, err);
}

int parse_prices(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        static const struct key keys[] = {
                {.name = "tools", .parse = parse_price_tools, .required = true},
                {.name = "usd_per_call", .parse = parse_per_call},
                {.name = "usd_per_1000_tokens", .parse = parse_per_tokens},
        };
        struct policy *p = dst;
        size_t n = 0;

        if (read_array(r, at, value, POLICY_MAX_RULES, &n, err) < 0)
                return -1;
        p->prices = mem_alloc(n * sizeof(*p->prices) + 1);
        for (size_t i = 0; i < n; i++) {
                p->n_prices = i + 1;
                if (READ_OBJECT(r, PLACE_ITEM(at, i), json_object_array_get_idx(value, i), keys, &p->prices[i], err) < 0)
                        return -1;
                p->prices[i].rule = rule_text(r, PLACE_ITEM(at, i));
        }
        return 0;
}
