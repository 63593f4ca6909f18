#include <ctype.h>
#include <strings.h>

#include "tests/rig/servers/conformance.h"

#define MAX_MESSAGE ((size_t)128 << 20)
#define NO_SESSION  (-32000)

/* -- headers ---------------------------------------------------------------------------------------------------------------------- */
char *header_value(const char *headers, const char *name)
{
        size_t n = strlen(name);

        for (const char *line = headers; line; line = strchr(line, '\n')) {
                const char *end;
                if (*line == '\n')
                        line++;
                if (strncasecmp(line, name, n) != 0 || line[n] != ':')
                        continue;
                line += n + 1;
                line += strspn(line, " \t");
                end = line + strcspn(line, "\r\n");
                while (end > line && isblank((unsigned char)end[-1]))
                        end--;
                return mem_strndup(line, (size_t)(end - line));
        }
        return NULL;
}

/* "=?base64?…?=" decoded, anything else as it is; NULL: cannot be decoded. */
static char *decoded(const char *value)
{
        size_t n = strlen(value), k = 0;
        _cleanup_free_ char *out = NULL;

        if (n < 11 || !str_has_prefix(value, "=?base64?") || !str_has_suffix(value, "?="))
                return mem_strdup(value);
        out = mem_alloc(n);
        if (sodium_base642bin((unsigned char *)out, n, value + 9, n - 11, NULL, &k, NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
                return NULL;
        out[k] = '\0';
        return TAKE_PTR(out);
}

static bool mirrors(const char *header, json_object *value)
{
        _cleanup_free_ char *plain = header ? decoded(header) : NULL;

        return value ? str_eq(plain, json_object_get_string(value)) && plain : !header;
}

static bool params_mirrored(const struct server *s, const struct headers *h, const char *tool, json_object *arguments)
{
        for (size_t i = 0; i < n_tools; i++) {
                _cleanup_json_ json_object *schema = NULL;

                if (!tool || !str_eq(offered(s, i, tools[i].name), tool))
                        continue;
                schema = parse(tools[i].schema);
                json_object_object_foreach (json_get(schema, "properties"), key, property) {
                        const char *name = json_str(property, "x-mcp-header");
                        _cleanup_free_ char *full = mem_printf("Mcp-Param-%s", name ? name : "");
                        _cleanup_free_ char *value = header_value(h->text, full);

                        if (name && !mirrors(value, json_get(arguments, key)))
                                return false;
                }
        }
        return true;
}

static bool headers_mirror(struct call *c, const char *method, const struct headers *h)
{
        const char *key = str_eq(method, "resources/read")                                ? "uri"
                          : str_eq(method, "tools/call") || str_eq(method, "prompts/get") ? "name"
                                                                                          : NULL;

        if (!str_eq(h->method, method) || (key && !mirrors(h->name, json_get(c->params, key))))
                return false;
        return !str_eq(method, "tools/call") ||
               params_mirrored(c->server, h, json_str(c->params, "name"), json_get(c->params, "arguments"));
}

/* -- one request ------------------------------------------------------------------------------------------------------------------ */
static json_object *server_info(void)
{
        return parse("{\"name\":\"mcp-conformance\",\"version\":\"1\"}");
}

static json_object *supported(const struct server *s, const char *requested)
{
        json_object *data = json_object_new_object(), *list = json_object_new_array();

        json_object_array_add(list, json_object_new_string(MODERN));
        if (s->legacy)
                json_object_array_add(list, json_object_new_string(NEWEST_LEGACY));
        json_add(data, "supported", list);
        json_add_str(data, "requested", requested);
        return data;
}

static json_object *hello(struct call *c)
{
        json_object *o = json_object_new_object(), *versions;

        if (c->modern) {
                versions = json_object_new_array();
                json_object_array_add(versions, json_object_new_string(MODERN));
                if (c->server->legacy)
                        json_object_array_add(versions, json_object_new_string(NEWEST_LEGACY));
                json_add(o, "supportedVersions", versions);
        } else {
                c->session = session_new(c->server, c->params);
                c->opens = true;
                json_add_str(o, "protocolVersion", c->session->revision);
                json_add(o, "serverInfo", server_info());
        }
        json_add(o, "capabilities", offer_capabilities(c->server));
        json_add_str(o, "instructions", "A server for tests.");
        return o;
}

static json_object *call_tool(struct call *c)
{
        const char *name = json_str(c->params, "name");
        json_object *result = NULL;

        for (size_t i = 0; i < n_tools; i++) {
                if (!name || !str_eq(offered(c->server, i, tools[i].name), name))
                        continue;
                if (tools[i].content)
                        return parse(tools[i].content);
                if (ask_begin(c, name) == 0)
                        result = tools[i].run(c, json_get(c->params, "arguments"));
                ask_end(c);
                return result;
        }
        if (c->server->more_tools && str_eq(name, "one_more_tool"))
                return text_result("Here for now", false);
        return refuse(c, INVALID_PARAMS, "no such tool", NULL);
}

static json_object *get_prompt(struct call *c)
{
        json_object *result = NULL;

        if (ask_begin(c, json_str(c->params, "name")) == 0)
                result = offer_prompt(c);
        ask_end(c);
        return result;
}

static json_object *set_level(struct call *c)
{
        int level = level_find(json_str(c->params, "level"));

        if (level < 0)
                return refuse(c, INVALID_PARAMS, "no such level", NULL);
        c->session->log_level = level;
        return json_object_new_object();
}

static json_object *watch(struct call *c, bool on)
{
        const char *uri = json_str(c->params, "uri");
        char **left = NULL;

        if (offer_has_resource(c, uri) < 0)
                return NULL;
        pthread_mutex_lock(&c->server->lock);
        for (size_t i = 0; i < strv_len(c->session->watched); i++)
                if (!str_eq(c->session->watched[i], uri))
                        left = strv_append(left, c->session->watched[i]);
        strv_free(c->session->watched);
        c->session->watched = on ? strv_append(left, uri) : left;
        pthread_mutex_unlock(&c->server->lock);
        return json_object_new_object();
}

static json_object *listen_for(struct call *c)
{
        json_object *filter = json_get(c->params, "notifications"), *uris = json_get(filter, "resourceSubscriptions");
        _cleanup_json_ json_object *m = parse("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\"}");
        json_object *params = json_object_new_object(), *meta = json_object_new_object(), *agreed = json_object_new_object();
        struct listener l = {.tools = json_flag(filter, "toolsListChanged", false),
                             .prompts = json_flag(filter, "promptsListChanged", false)};
        _cleanup_free_ char *id = mem_strdup(json_text(c->id));

        l.id = id;
        if (uris && !json_to_strv(&l.watched, uris))
                l.watched = NULL;
        json_add(meta, META("subscriptionId"), parse(id));
        json_add(params, "_meta", meta);
        if (l.tools)
                json_add_bool(agreed, "toolsListChanged", true);
        if (l.prompts)
                json_add_bool(agreed, "promptsListChanged", true);
        if (l.watched)
                json_add(agreed, "resourceSubscriptions", json_from_strv(l.watched));
        json_add(params, "notifications", agreed);
        json_add(m, "params", params);
        if (c->send(c, json_text(m)))
                listen_until_end(c, &l);
        strv_free(l.watched);
        c->cancelled = true;
        return NULL;
}

static json_object *for_era(struct call *c, const char *method)
{
        if (c->modern)
                return str_eq(method, "server/discover")        ? hello(c)
                       : str_eq(method, "subscriptions/listen") ? listen_for(c)
                                                                : offer_list(c, method);
        if (str_eq(method, "ping"))
                return json_object_new_object();
        if (str_eq(method, "logging/setLevel"))
                return set_level(c);
        if (str_eq(method, "resources/subscribe") || str_eq(method, "resources/unsubscribe"))
                return watch(c, str_eq(method, "resources/subscribe"));
        return offer_list(c, method);
}

static json_object *result_of(struct call *c, const char *method)
{
        if (str_eq(method, "initialize") && !c->modern)
                return hello(c);
        if (str_eq(method, "tools/call"))
                return call_tool(c);
        if (str_eq(method, "prompts/get"))
                return get_prompt(c);
        if (str_eq(method, "resources/read"))
                return offer_resource(c);
        if (str_eq(method, "completion/complete"))
                return offer_completion(c);
        return for_era(c, method);
}

/* What every modern result says beside its own. */
static void complete(const char *method, json_object *result)
{
        json_object *meta = json_object_new_object();

        if (!json_get(result, "resultType"))
                json_add_str(result, "resultType", "complete");
        if (str_has_suffix(method, "/list") || str_eq(method, "resources/read") || str_eq(method, "server/discover")) {
                json_add_int(result, "ttlMs", str_eq(method, "server/discover") ? 60000 : 0);
                json_add_str(result, "cacheScope", "public");
        }
        json_add(meta, META("serverInfo"), server_info());
        json_add(result, "_meta", meta);
}

static char *text_of(json_object *id, const char *key, json_object *value)
{
        _cleanup_json_ json_object *o = json_object_new_object();

        json_add_str(o, "jsonrpc", "2.0");
        json_add(o, "id", json_object_get(id));
        json_add(o, key, value);
        return mem_strdup(json_text(o));
}

static char *error_text(struct call *c)
{
        json_object *error = json_object_new_object();

        json_add_int(error, "code", c->error);
        json_add_str(error, "message", c->message);
        if (c->data)
                json_add(error, "data", TAKE_PTR(c->data));
        return text_of(c->id, "error", error);
}

static char *answer(struct call *c, const char *method, int *status)
{
        json_object *result;

        call_begin(c);
        result = result_of(c, method);
        if (c->asked)
                result = TAKE_PTR(c->asked);
        call_end(c);
        if (c->cancelled || (c->session && c->session->ended)) {
                if (result)
                        json_object_put(result);
                return NULL;
        }
        if (result) {
                if (c->modern)
                        complete(method, result);
                return text_of(c->id, "result", result);
        }
        if (c->modern)
                *status = c->error == METHOD_NOT_FOUND ? 404 : c->error == MISSING_CAPABILITY ? 400 : 200;
        return error_text(c);
}

/* -- which era, and is it one of ours --------------------------------------------------------------------------------------------- */
static bool looks_modern(const struct call *c, const char *method, const struct headers *h)
{
        if (!c->server->modern)
                return false;
        return json_path(c->params, "_meta", META("protocolVersion"), NULL) || str_has_prefix(method, "server/") ||
               str_has_prefix(method, "subscriptions/") || !c->server->legacy || (h && str_eq(h->version, MODERN));
}

static int check_modern(struct call *c, const char *method, const struct headers *h)
{
        json_object *meta = json_get(c->params, "_meta");
        const char *version = json_str(meta, META("protocolVersion"));

        if (!version && str_eq(method, "initialize"))
                refuse(c, UNSUPPORTED_VERSION, "this server speaks " MODERN " only",
                       supported(c->server, json_str(c->params, "protocolVersion")));
        else if (!version || !json_object_is_type(json_get(meta, META("clientCapabilities")), json_type_object))
                refuse(c, INVALID_PARAMS, "_meta lacks version or capabilities", NULL);
        else if (h && !str_eq(h->version, version))
                refuse(c, HEADER_MISMATCH, "MCP-Protocol-Version and the body differ", NULL);
        else if (!str_eq(version, MODERN))
                refuse(c, UNSUPPORTED_VERSION, "unsupported protocol version", supported(c->server, version));
        else if (h && !headers_mirror(c, method, h))
                refuse(c, HEADER_MISMATCH, "headers and body differ", NULL);
        return c->error ? -1 : 0;
}

/* Finds the session; -1: *status and c->error. */
static int check_legacy(struct call *c, const char *method, const struct headers *h, int *status)
{
        if (str_eq(method, "initialize"))
                return 0;
        c->session = !h || h->session ? session_find(c->server, h ? h->session : NULL) : NULL;
        if (!c->session) {
                *status = h && h->session ? 404 : 400;
                refuse(c, str_eq(method, "server/discover") ? METHOD_NOT_FOUND : NO_SESSION, "no session: initialize comes first", NULL);
                return -1;
        }
        if (h && h->version && !str_eq(h->version, c->session->revision)) {
                *status = 400;
                refuse(c, INVALID_REQUEST, "another version than agreed", NULL);
                return -1;
        }
        return 0;
}

static char *serve_message(struct call *c, json_object *m, const struct headers *h, int *status)
{
        const char *method = json_str(m, "method");

        c->modern = method && looks_modern(c, method, h);
        /* On stdio it is for both eras, and of no session. */
        if (!c->id && method && (c->modern || !h)) {
                *status = 202;
                if (str_eq(method, "notifications/cancelled"))
                        call_cancel(c->server, json_get(c->params, "requestId"));
                return NULL;
        }
        if ((c->modern ? check_modern(c, method, h) : check_legacy(c, method ? method : "", h, status)) < 0) {
                if (c->modern)
                        *status = 400;
                return c->id || h ? error_text(c) : NULL;
        }
        if (method && c->id)
                return answer(c, method, status);
        *status = 202;
        if (!method) {
                json_object *copy = NULL;
                json_object_deep_copy(m, &copy, NULL);
                session_answered(c->server, c->session, copy);
        } else if (str_eq(method, "notifications/cancelled")) {
                call_cancel(c->server, json_get(c->params, "requestId"));
        }
        return NULL;
}

char *serve(struct call *c, const char *text, size_t n, const struct headers *h, int *status)
{
        const struct json_limits limits = {.max_bytes = MAX_MESSAGE};
        _cleanup_json_ json_object *m = NULL;

        *status = 200;
        if (json_parse(&m, text, n, "message", &limits, NULL) < 0 || !json_object_is_type(m, json_type_object)) {
                *status = 400;
                refuse(c, m ? INVALID_REQUEST : PARSE_ERROR, "not a message", NULL);
                return error_text(c);
        }
        c->id = json_get(m, "id");
        c->params = json_get(m, "params");
        return serve_message(c, m, h, status);
}
