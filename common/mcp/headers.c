#include "common/mcp/headers.h"

#include <math.h>
#include <sodium.h>

#include "common/mcp/scan.h"
#include "common/text.h"

#define PREFIX "=?base64?"
#define SUFFIX "?="

static char *decode_base64(const char *text, size_t n)
{
        _cleanup_free_ char *out = mem_alloc(n + 1);
        size_t len = 0;

        if (sodium_base642bin((unsigned char *)out, n, text, n, NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
            !text_is_utf8(out, len))
                return NULL;
        out[len] = '\0';
        return TAKE_PTR(out);
}

static bool is_blank(char c)
{
        return c == ' ' || c == '\t';
}

char *mcp_header_decode(const char *value)
{
        size_t n;

        while (is_blank(*value))
                value++;
        n = strlen(value);
        while (n > 0 && is_blank(value[n - 1]))
                n--;
        for (size_t i = 0; i < n; i++)
                if ((value[i] < ' ' || value[i] > '~') && value[i] != '\t')
                        return NULL;
        if (!str_has_prefix(value, PREFIX) || memcmp(value + n - 2, SUFFIX, 2) != 0)
                return mem_strndup(value, n);
        /* The two may share their "?": some would decode that, others would not. */
        if (n < strlen(PREFIX SUFFIX))
                return NULL;
        return decode_base64(value + strlen(PREFIX), n - strlen(PREFIX SUFFIX));
}

static bool needs_encoding(const char *value, size_t n)
{
        if (n == 0 || value[0] == ' ' || value[n - 1] == ' ')
                return true;
        for (size_t i = 0; i < n; i++)
                if (value[i] < ' ' || value[i] > '~')
                        return true;
        return n > strlen(PREFIX) && memcmp(value, PREFIX, strlen(PREFIX)) == 0 && memcmp(value + n - 2, SUFFIX, 2) == 0;
}

char *mcp_header_encode(const char *value, size_t n)
{
        size_t room = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);
        _cleanup_free_ char *text = NULL;

        if (!needs_encoding(value, n))
                return mem_strndup(value, n);
        text = mem_alloc(room);
        sodium_bin2base64(text, room, (const unsigned char *)value, n, sodium_base64_VARIANT_ORIGINAL);
        return mem_printf(PREFIX "%s" SUFFIX, text);
}

static struct mcp_slice value_at(const struct mcp_param *p, struct mcp_slice arguments)
{
        struct mcp_slice value = arguments;

        for (char **name = p->path; *name && mcp_has(value); name++)
                value = mcp_object_get(value, *name);
        if (mcp_is(value, "null") || mcp_is_object(value) || mcp_is_array(value))
                return (struct mcp_slice){0};
        return value;
}

static bool is_number(struct mcp_slice s)
{
        return s.n > 0 && (s.at[0] == '-' || (s.at[0] >= '0' && s.at[0] <= '9'));
}

/* 42 also when it is written as 42.0 or 4.2e1. */
static char *number_text(struct mcp_slice number)
{
        double d = number_value(number);

        if (fabs(d) <= 9007199254740992.0 && d == trunc(d))
                return mem_printf("%lld", (long long)d);
        return mem_strndup(number.at, number.n);
}

char *mcp_param_value(const struct mcp_param *p, struct mcp_slice arguments)
{
        struct mcp_slice value = value_at(p, arguments);
        _cleanup_free_ char *text = NULL;

        if (!mcp_has(value))
                return NULL;
        text = mcp_is_string(value) ? mcp_string(value) : is_number(value) ? number_text(value) : mem_strndup(value.at, value.n);
        return mcp_header_encode(text, strlen(text));
}

bool mcp_param_matches(const struct mcp_param *p, struct mcp_slice arguments, const char *header)
{
        struct mcp_slice value = value_at(p, arguments), said;
        _cleanup_free_ char *text = NULL, *want = NULL;

        if (!header || !mcp_has(value))
                return !header && !mcp_has(value);
        text = mcp_header_decode(header);
        if (!text)
                return false;
        said = mcp_slice_of(text);
        if (is_number(value))
                return is_number(said) && mcp_value_check(said.at, said.n, NULL) == 0 && number_value(said) == number_value(value);
        if (!mcp_is_string(value))
                return mcp_same(said, value);
        want = mcp_string(value);
        return str_eq(want, text);
}

void mcp_params_deinit(struct mcp_params *p)
{
        for (size_t i = 0; i < p->n; i++) {
                free(p->items[i].header);
                strv_free(p->items[i].path);
        }
        free(p->items);
        *p = (struct mcp_params){0};
}
