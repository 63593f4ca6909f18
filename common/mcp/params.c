/* Annotations in a tool's inputSchema. Source: MCP 2026-07-28, basic/transports/streamable-http, "Schema Extension". */
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "common/mcp/headers.h"
#include "common/mcp/scan.h"
#include "common/text.h"

#define ANNOTATION "x-mcp-header"
#define MAX_SCHEMA (1U << 20) /* bytes of one that has annotations */

/* A property on the way from the root of the schema. */
struct step {
        struct mcp_slice name;
        const struct step *up;
};

struct walk {
        struct mcp_params *found;
        struct err **err;
};

/* Where a schema stands. */
struct site {
        const struct step *step; /* NULL: the root */
        bool reachable;          /* through "properties" only */
};

static int walk_schema(struct walk *w, struct mcp_slice schema, struct site site);

static _printf_(3, 4) int refuse(struct walk *w, const struct step *step, const char *fmt, ...)
{
        _cleanup_free_ char *start = NULL, *safe = NULL, *why = NULL;
        va_list ap;

        va_start(ap, fmt);
        if (vasprintf(&why, fmt, ap) < 0)
                abort();
        va_end(ap);
        start = step ? mem_strndup(step->name.at, MIN(step->name.n, (size_t)80)) : mem_strdup("(the schema)");
        safe = text_escape(start);
        return err_set(w->err, ERR_INVALID, ANNOTATION " at %s: %s", safe, why);
}

/* RFC 9110, section 5.6.2. */
static bool is_token(const char *s)
{
        return *s && str_in_charset(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
}

static int take_path(struct walk *w, struct mcp_param *param, const struct step *step)
{
        size_t n = 0, bytes = 0;

        for (const struct step *s = step; s; s = s->up) {
                n++;
                bytes += s->name.n;
        }
        if (bytes > MCP_MAX_PARAM_PATH)
                return refuse(w, step, "the names of the properties on the way to it have more than %u bytes", MCP_MAX_PARAM_PATH);
        param->path = mem_alloc((n + 1) * sizeof(char *));
        for (const struct step *s = step; s; s = s->up) {
                _cleanup_buf_ struct buf b = {0};
                string_decode(&b, s->name.at, s->name.at + s->name.n);
                param->path[--n] = buf_take(&b);
        }
        return 0;
}

static int take_annotation(struct walk *w, struct mcp_slice schema, struct mcp_slice value, struct site site)
{
        struct mcp_slice type = mcp_object_get(schema, "type");
        _cleanup_free_ char *name = NULL;
        struct mcp_param *param;

        if (!site.reachable || !site.step)
                return refuse(w, site.step, "only properties that \"properties\" alone lead to may have one");
        if (!mcp_is_string(value) || value.n - 2 > MCP_MAX_PARAM_NAME)
                return refuse(w, site.step, "it is no string of at most %u bytes", MCP_MAX_PARAM_NAME);
        name = mcp_string(value);
        if (!is_token(name))
                return refuse(w, site.step, "it is empty or has characters that the name of a header cannot have");
        if (!mcp_is(type, "\"string\"") && !mcp_is(type, "\"integer\"") && !mcp_is(type, "\"boolean\""))
                return refuse(w, site.step, "the property's type is not string, integer or boolean");
        if (w->found->n == MCP_MAX_PARAMS)
                return refuse(w, site.step, "more than %u of them in one tool", MCP_MAX_PARAMS);
        for (size_t i = 0; i < w->found->n; i++)
                if (strcasecmp(w->found->items[i].header + strlen("Mcp-Param-"), name) == 0)
                        return refuse(w, site.step, "\"%s\" is there twice", name);
        w->found->items = mem_realloc(w->found->items, w->found->n + 1, sizeof(*w->found->items));
        param = &w->found->items[w->found->n++];
        *param = (struct mcp_param){.header = mem_printf("Mcp-Param-%s", name)};
        return take_path(w, param, site.step);
}

/* A map from names that are no keywords to schemas. */
static int walk_map(struct walk *w, struct mcp_slice map, struct site site, bool properties)
{
        struct mcp_slice name, schema;
        int r = 0;

        for (size_t pos = 0; r == 0 && mcp_object_next(map, &pos, &name, &schema);) {
                struct step step = {name, site.step};
                r = walk_schema(w, schema, (struct site){&step, properties && site.reachable});
        }
        return r;
}

static bool is_one_of(struct mcp_slice key, const char *const *names)
{
        for (; *names; names++)
                if (mcp_key_is(key, *names))
                        return true;
        return false;
}

static int walk_keyword(struct walk *w, struct mcp_slice key, struct mcp_slice value, struct site site)
{
        static const char *const data[] = {"default", "const", "enum", "examples", NULL};
        static const char *const maps[] = {"patternProperties", "dependentSchemas", "$defs", "definitions", NULL};

        bool properties = mcp_key_is(key, "properties");

        if (is_one_of(key, data))
                return 0;
        if (mcp_is_object(value) && (properties || is_one_of(key, maps)))
                return walk_map(w, value, site, properties);
        return walk_schema(w, value, (struct site){site.step, false});
}

/* A schema, or an array of them. Depth is bounded by that of checked text. */
static int walk_schema(struct walk *w, struct mcp_slice schema, struct site site)
{
        struct mcp_slice key, value;
        int r = 0;

        for (size_t pos = 0; r == 0 && mcp_array_next(schema, &pos, &value);)
                r = walk_schema(w, value, (struct site){site.step, false});
        for (size_t pos = 0; r == 0 && mcp_object_next(schema, &pos, &key, &value);) {
                if (mcp_key_is(key, ANNOTATION))
                        r = take_annotation(w, schema, value, site);
                else if (mcp_is_object(value) || mcp_is_array(value))
                        r = walk_keyword(w, key, value, site);
        }
        return r;
}

static bool may_have_annotations(struct mcp_slice schema)
{
        /* The name may be written with escapes. */
        return memmem(schema.at, schema.n, ANNOTATION, strlen(ANNOTATION)) || memmem(schema.at, schema.n, "\\u", 2);
}

int mcp_params_from_schema(struct mcp_params *ret, struct mcp_slice input_schema, struct err **err)
{
        _cleanup_(mcp_params_deinit) struct mcp_params found = {0};
        struct walk w = {&found, err};

        /* Most schemas have none. The walk looks at what lies deep once for each level, so it wants an end. */
        if (!mcp_has(input_schema) || !may_have_annotations(input_schema)) {
                *ret = found;
                return 0;
        }
        if (input_schema.n > MAX_SCHEMA)
                return refuse(&w, NULL, "the schema has more than %u bytes", MAX_SCHEMA);
        if (walk_schema(&w, input_schema, (struct site){NULL, true}) < 0)
                return -1;
        *ret = found;
        found = (struct mcp_params){0};
        return 0;
}
