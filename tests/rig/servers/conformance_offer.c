#include "tests/rig/servers/conformance.h"

#define PNG "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="

static const struct prompt {
        const char *name, *description, *arguments;
        const char *content[2]; /* of its messages; %1 and %2 stand for the arguments in order */
} prompts[] = {
        {"test_simple_prompt", "Without arguments", "[]", {"{\"type\":\"text\",\"text\":\"This is a simple prompt for testing.\"}", NULL}},
        {"test_prompt_with_arguments",
         "With two arguments",
         "[{\"name\":\"arg1\",\"description\":\"First test argument\",\"required\":true},"
         "{\"name\":\"arg2\",\"description\":\"Second test argument\",\"required\":true}]",
         {"{\"type\":\"text\",\"text\":\"Prompt with arguments: arg1='%1', arg2='%2'\"}", NULL}},
        {"test_prompt_with_embedded_resource",
         "With a resource inside",
         "[{\"name\":\"resourceUri\",\"description\":\"URI of the resource to embed\",\"required\":true}]",
         {"{\"type\":\"resource\",\"resource\":{\"uri\":\"%1\",\"mimeType\":\"text/plain\","
          "\"text\":\"Embedded resource content for testing.\"}}",
          "{\"type\":\"text\",\"text\":\"Please process the embedded resource above.\"}"}},
        {"test_prompt_with_image",
         "With a picture",
         "[]",
         {"{\"type\":\"image\",\"data\":\"" PNG "\",\"mimeType\":\"image/png\"}",
          "{\"type\":\"text\",\"text\":\"Please analyze the image above.\"}"}},
        {"test_input_required_result_prompt", "Asks the user first", "[]", {"{\"type\":\"text\",\"text\":\"In the context of %1\"}", NULL}},
};

static const struct resource {
        const char *uri, *name, *type, *text, *blob;
} resources[] = {
        {"test://static-text", "static-text", "text/plain", "This is the content of the static text resource.", NULL},
        {"test://static-binary", "static-binary", "image/png", NULL, PNG},
        {"test://watched-resource", "watched-resource", "text/plain", "Watch me.", NULL},
        {"test://example-resource", "example-resource", "text/plain", "An example.", NULL},
};
#define TEMPLATE_BEGIN "test://template/"
#define TEMPLATE_END   "/data"
/* The template belongs to the same part as this entry of the table. */
#define TEMPLATE_PART 1

static bool has_part(const struct server *s, size_t i)
{
        return i % s->parts == s->part - 1;
}

const char *offered(const struct server *s, size_t i, const char *name)
{
        const char *best = NULL;

        if (!s->prefixes)
                return has_part(s, i) ? name : NULL;
        for (size_t k = 0; k < s->parts; k++)
                if (str_has_prefix(name, s->prefixes[k]) && (!best || strlen(s->prefixes[k]) > strlen(best)))
                        best = s->prefixes[k];
        return best && best == s->prefixes[s->part - 1] ? name + strlen(best) : NULL;
}

static bool any_prompt(const struct server *s)
{
        for (size_t i = 0; i < ELEMENTSOF(prompts); i++)
                if (offered(s, i, prompts[i].name))
                        return true;
        return s->more_prompts;
}

static bool any_resource(const struct server *s)
{
        return s->part <= ELEMENTSOF(resources);
}

json_object *offer_capabilities(const struct server *s)
{
        json_object *o = json_object_new_object();

        json_add(o, "tools", parse("{\"listChanged\":true}"));
        json_add(o, "logging", json_object_new_object());
        if (any_prompt(s)) {
                json_add(o, "prompts", parse("{\"listChanged\":true}"));
                json_add(o, "completions", json_object_new_object());
        }
        if (any_resource(s))
                json_add(o, "resources", parse("{\"subscribe\":true}"));
        return o;
}

/* -- lists ------------------------------------------------------------------------------------------------------------------------ */
static json_object *described(const char *name, const char *description)
{
        json_object *o = json_object_new_object();

        json_add_str(o, "name", name);
        json_add_str(o, "description", description);
        return o;
}

static json_object *list_tools(const struct server *s)
{
        json_object *list = json_object_new_array(), *o;

        for (size_t i = 0; i < n_tools; i++) {
                const char *name = offered(s, i, tools[i].name);

                if (!name)
                        continue;
                o = described(name, tools[i].description);
                json_add(o, "inputSchema", parse(tools[i].schema));
                json_object_array_add(list, o);
        }
        if (s->more_tools) {
                o = described("one_more_tool", "Comes and goes");
                json_add(o, "inputSchema", parse("{\"type\":\"object\"}"));
                json_object_array_add(list, o);
        }
        return list;
}

static json_object *list_prompts(const struct server *s)
{
        json_object *list = json_object_new_array(), *o;

        for (size_t i = 0; i < ELEMENTSOF(prompts); i++) {
                const char *name = offered(s, i, prompts[i].name);

                if (!name)
                        continue;
                o = described(name, prompts[i].description);
                json_add(o, "arguments", parse(prompts[i].arguments));
                json_object_array_add(list, o);
        }
        if (s->more_prompts)
                json_object_array_add(list, described("one_more_prompt", "Comes and goes"));
        return list;
}

static json_object *list_resources(const struct server *s)
{
        json_object *list = json_object_new_array(), *o;

        for (size_t i = 0; i < ELEMENTSOF(resources); i++) {
                if (!has_part(s, i))
                        continue;
                o = described(resources[i].name, "For testing");
                json_add_str(o, "uri", resources[i].uri);
                json_add_str(o, "mimeType", resources[i].type);
                json_object_array_add(list, o);
        }
        return list;
}

static json_object *list_templates(const struct server *s)
{
        json_object *list = json_object_new_array(), *o;

        if (has_part(s, TEMPLATE_PART)) {
                o = described("template", "For testing");
                json_add_str(o, "uriTemplate", TEMPLATE_BEGIN "{id}" TEMPLATE_END);
                json_add_str(o, "mimeType", "application/json");
                json_object_array_add(list, o);
        }
        return list;
}

/* A cursor is the number of its page's first entry. */
static json_object *paged(struct call *c, const char *key, json_object *list)
{
        json_object *result = json_object_new_object(), *page = json_object_new_array(), *cursor = json_get(c->params, "cursor");
        size_t n = json_object_array_length(list), from = cursor ? strtoul(json_object_get_string(cursor), NULL, 10) : 0;
        size_t end = c->server->page && from + c->server->page < n ? from + c->server->page : n;

        for (size_t i = from; i < end; i++)
                json_object_array_add(page, json_object_get(json_object_array_get_idx(list, i)));
        json_add(result, key, page);
        json_object_put(list);
        if (end < n) {
                _cleanup_free_ char *next = mem_printf("%zu", end);
                json_add_str(result, "nextCursor", next);
        }
        if (cursor && (from == 0 || from >= n)) {
                json_object_put(result);
                return refuse(c, INVALID_PARAMS, "no such cursor", NULL);
        }
        return result;
}

json_object *offer_list(struct call *c, const char *method)
{
        const struct server *s = c->server;

        if (str_eq(method, "tools/list"))
                return paged(c, "tools", list_tools(s));
        if (str_eq(method, "prompts/list") && any_prompt(s))
                return paged(c, "prompts", list_prompts(s));
        if (str_eq(method, "resources/list") && any_resource(s))
                return paged(c, "resources", list_resources(s));
        if (str_eq(method, "resources/templates/list") && any_resource(s))
                return paged(c, "resourceTemplates", list_templates(s));
        return refuse(c, METHOD_NOT_FOUND, "no such method", NULL);
}

/* -- one prompt ------------------------------------------------------------------------------------------------------------------- */
static char *filled_in(const char *text, const char *const values[2])
{
        struct buf b = {0};

        for (const char *p = text; *p; p++) {
                _cleanup_json_ json_object *value = NULL;
                const char *quoted;

                if (p[0] != '%' || (p[1] != '1' && p[1] != '2')) {
                        buf_addc(&b, *p);
                        continue;
                }
                value = json_object_new_string(values[p[1] - '1'] ? values[p[1] - '1'] : "");
                quoted = json_text(value);
                buf_add(&b, quoted + 1, strlen(quoted) - 2);
                p++;
        }
        return buf_take(&b);
}

static json_object *prompt_with(const struct prompt *p, const char *const values[2])
{
        json_object *result = json_object_new_object(), *messages = json_object_new_array();

        for (size_t i = 0; i < ELEMENTSOF(p->content) && p->content[i]; i++) {
                _cleanup_free_ char *content = filled_in(p->content[i], values);
                json_object *message = json_object_new_object();

                json_add_str(message, "role", "user");
                json_add(message, "content", parse(content));
                json_object_array_add(messages, message);
        }
        json_add_str(result, "description", p->description);
        json_add(result, "messages", messages);
        return result;
}

static const struct prompt *find_prompt(const struct server *s, const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(prompts); i++)
                if (name && str_eq(offered(s, i, prompts[i].name), name))
                        return &prompts[i];
        return NULL;
}

json_object *offer_prompt(struct call *c)
{
        const char *name = json_str(c->params, "name"), *values[2] = {NULL, NULL};
        const struct prompt *p = find_prompt(c->server, name);
        json_object *arguments = json_get(c->params, "arguments");
        _cleanup_json_ json_object *wanted = NULL, *answers = NULL;

        if (!p)
                return refuse(c, INVALID_PARAMS, "no such prompt", NULL);
        wanted = parse(p->arguments);
        for (size_t i = 0; i < json_object_array_length(wanted) && i < ELEMENTSOF(values); i++) {
                values[i] = json_str(arguments, json_str(json_object_array_get_idx(wanted, i), "name"));
                if (!values[i])
                        return refuse(c, INVALID_PARAMS, "an argument is missing", NULL);
        }
        if (str_eq(p->name, "test_input_required_result_prompt")) {
                answers =
                        ask(c,
                            "{\"user_context\":{\"method\":\"elicitation/create\",\"params\":{\"message\":\"What context should the prompt "
                            "use?\",\"requestedSchema\":{\"type\":\"object\",\"properties\":{\"context\":{\"type\":\"string\"}},"
                            "\"required\":[\"context\"]}}}}",
                            ASK_STATELESS);
                if (!answers)
                        return NULL;
                values[0] = json_str(json_path(answers, "user_context", "content", NULL), "context");
        }
        return prompt_with(p, values);
}

json_object *offer_completion(struct call *c)
{
        const char *name = json_str(json_get(c->params, "ref"), "name"), *begin = json_str(json_get(c->params, "argument"), "value");
        json_object *result, *values = json_object_new_array();
        static const char *const words[] = {"paris", "park", "party", "test1", "test2"};

        if (name && !find_prompt(c->server, name)) {
                json_object_put(values);
                return refuse(c, INVALID_PARAMS, "no such prompt", NULL);
        }
        for (size_t i = 0; begin && i < ELEMENTSOF(words); i++)
                if (str_has_prefix(words[i], begin))
                        json_object_array_add(values, json_object_new_string(words[i]));
        result = parse("{\"completion\":{\"hasMore\":false}}");
        json_add_int(json_get(result, "completion"), "total", (int64_t)json_object_array_length(values));
        json_add(json_get(result, "completion"), "values", values);
        return result;
}

/* -- one resource ----------------------------------------------------------------------------------------------------------------- */
static json_object *contents(const char *uri, const char *type, const char *text, const char *blob)
{
        json_object *result = json_object_new_object(), *list = json_object_new_array(), *o = json_object_new_object();

        json_add_str(o, "uri", uri);
        json_add_str(o, "mimeType", type);
        json_add_str(o, "text", text);
        json_add_str(o, "blob", blob);
        json_object_array_add(list, o);
        json_add(result, "contents", list);
        return result;
}

static const struct resource *find_resource(const struct server *s, const char *uri)
{
        for (size_t i = 0; i < ELEMENTSOF(resources); i++)
                if (has_part(s, i) && str_eq(resources[i].uri, uri))
                        return &resources[i];
        return NULL;
}

static json_object *no_such_resource(struct call *c, const char *uri)
{
        json_object *data = json_object_new_object();

        json_add_str(data, "uri", uri);
        return refuse(c, c->modern ? INVALID_PARAMS : RESOURCE_NOT_FOUND, "no such resource", data);
}

int offer_has_resource(struct call *c, const char *uri)
{
        if (find_resource(c->server, uri))
                return 0;
        no_such_resource(c, uri);
        return -1;
}

json_object *offer_resource(struct call *c)
{
        const char *uri = json_str(c->params, "uri");
        const struct resource *r = find_resource(c->server, uri);

        if (r)
                return contents(r->uri, r->type, r->text, r->blob);
        if (has_part(c->server, TEMPLATE_PART) && uri && str_has_prefix(uri, TEMPLATE_BEGIN) && str_has_suffix(uri, TEMPLATE_END) &&
            strlen(uri) > strlen(TEMPLATE_BEGIN TEMPLATE_END)) {
                const char *id = uri + strlen(TEMPLATE_BEGIN);
                _cleanup_free_ char *text =
                        mem_printf("{\"id\":\"%.*s\",\"templateTest\":true,\"data\":\"Data for ID: %.*s\"}",
                                   (int)(strlen(id) - strlen(TEMPLATE_END)), id, (int)(strlen(id) - strlen(TEMPLATE_END)), id);
                return contents(uri, "application/json", text, NULL);
        }
        return no_such_resource(c, uri);
}
