#include <sodium.h>

#include "common/smoke/talk.h"

#define MAX_LEVELS  8U
#define MAX_HEADERS 32U

/*
 * Arguments that a tool's schema wants to see as HTTP headers. Source: MCP specification 2026-07-28, transports/streamable-http, "Custom
 * Headers from Tool Parameters" and "Value Encoding".
 */

static bool is_token(const char *name)
{
        return *name && strlen(name) <= 64 &&
               str_in_charset(name, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
}

static bool is_plain(const char *value)
{
        size_t n = strlen(value);

        for (const char *p = value; *p; p++)
                if ((*p < 0x20 && *p != '\t') || *p > 0x7e)
                        return false;
        if (n > 0 && (strchr(" \t", value[0]) || strchr(" \t", value[n - 1])))
                return false;
        return !(str_has_prefix(value, "=?base64?") && str_has_suffix(value, "?="));
}

/* "Mcp-Param-NAME: value", owned. */
static char *make_header(const char *name, const char *value)
{
        _cleanup_free_ char *encoded = NULL;
        size_t n = strlen(value), size = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);

        if (is_plain(value))
                return mem_printf("Mcp-Param-%s: %s", name, value);
        encoded = mem_alloc(size);
        sodium_bin2base64(encoded, size, (const unsigned char *)value, n, sodium_base64_VARIANT_ORIGINAL);
        return mem_printf("Mcp-Param-%s: =?base64?%s?=", name, encoded);
}

static void collect(char ***headers, json_object *schema, json_object *arguments, unsigned level)
{
        json_object *properties = json_get(schema, "properties");

        if (level == MAX_LEVELS || !json_object_is_type(properties, json_type_object) || !json_object_is_type(arguments, json_type_object))
                return;
        json_object_object_foreach (properties, key, property) {
                json_object *value = json_get(arguments, key);
                const char *name = json_str(property, "x-mcp-header");
                _cleanup_free_ char *header = NULL;

                if (json_object_is_type(value, json_type_object)) {
                        collect(headers, property, value, level + 1);
                        continue;
                }
                if (!name || !is_token(name) || strv_len(*headers) >= MAX_HEADERS ||
                    !(json_object_is_type(value, json_type_string) || json_object_is_type(value, json_type_int) ||
                      json_object_is_type(value, json_type_boolean)))
                        continue;
                header = make_header(name, json_object_get_string(value));
                *headers = strv_append(*headers, header);
        }
}

char **talk_param_headers(json_object *schema, json_object *arguments)
{
        char **headers = NULL;

        collect(&headers, schema, arguments, 0);
        return headers;
}
