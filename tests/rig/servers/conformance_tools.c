#include "tests/rig/servers/conformance.h"

/* The smallest picture and the smallest sound. */
#define PNG "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
#define WAV "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="

json_object *text_result(const char *text, bool failed)
{
        json_object *result = json_object_new_object(), *content = json_object_new_array(), *item = json_object_new_object();

        json_add_str(item, "type", "text");
        json_add_str(item, "text", text);
        json_object_array_add(content, item);
        json_add(result, "content", content);
        if (failed)
                json_add_bool(result, "isError", true);
        return result;
}

static json_object *printed(char *text)
{
        json_object *result = text_result(text, false);

        free(text);
        return result;
}

/* -- what goes ahead of an answer ------------------------------------------------------------------------------------------------- */
static void notify(struct call *c, const char *method, json_object *params)
{
        _cleanup_json_ json_object *m = json_object_new_object();

        json_add_str(m, "jsonrpc", "2.0");
        json_add_str(m, "method", method);
        json_add(m, "params", params);
        if (!c->send(c, json_text(m)))
                c->cancelled = c->modern;
}

int level_find(const char *name)
{
        static const char *const levels[] = {"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"};

        for (size_t i = 0; i < ELEMENTSOF(levels); i++)
                if (str_eq(levels[i], name))
                        return (int)i;
        return -1;
}

void log_line(struct call *c, int level, const char *text)
{
        json_object *params = json_object_new_object();
        int least = c->session ? c->session->log_level : level_find(json_str(json_get(c->params, "_meta"), META("logLevel")));

        /* Modern: a request that names no level wants no lines. Legacy: all of them, until a level is set. */
        if (level < least || (!c->session && least < 0)) {
                json_object_put(params);
                return;
        }
        json_add_str(params, "level", level == 0 ? "debug" : "info");
        json_add_str(params, "logger", "mcp-conformance");
        json_add_str(params, "data", text);
        notify(c, "notifications/message", params);
}

static json_object *run_logging(struct call *c, json_object *arguments)
{
        (void)arguments;
        log_line(c, 1, "Tool execution started");
        call_sleep(c, 50);
        log_line(c, 1, "Tool processing data");
        call_sleep(c, 50);
        log_line(c, 1, "Tool execution completed");
        return text_result("Three lines were logged", false);
}

static json_object *run_progress(struct call *c, json_object *arguments)
{
        json_object *token = json_path(c->params, "_meta", "progressToken", NULL);

        (void)arguments;
        for (int at = 0; at <= 100; at += 50) {
                json_object *params = json_object_new_object();
                if (at > 0)
                        call_sleep(c, 50);
                json_add(params, "progressToken", json_object_get(token));
                json_add_int(params, "progress", at);
                json_add_int(params, "total", 100);
                if (token)
                        notify(c, "notifications/progress", params);
                else
                        json_object_put(params);
        }
        return text_result("Done, step by step", false);
}

/* -- tools that ask the client ---------------------------------------------------------------------------------------------------- */
static json_object *run_sampling(struct call *c, json_object *arguments)
{
        _cleanup_json_ json_object *said = json_object_new_string(json_str(arguments, "prompt") ? json_str(arguments, "prompt") : "");
        _cleanup_free_ char *asks = mem_printf("{\"sampling\":{\"method\":\"sampling/createMessage\",\"params\":{\"messages\":[{\"role\":"
                                               "\"user\",\"content\":{\"type\":\"text\",\"text\":%s}}],\"maxTokens\":100}}}",
                                               json_text(said));
        _cleanup_json_ json_object *answers = ask(c, asks, 0);

        if (!answers)
                return NULL;
        return printed(mem_printf("LLM response: %s", json_str(json_path(answers, "sampling", "content", NULL), "text")));
}

static json_object *elicited(struct call *c, const char *before, const char *message, const char *schema)
{
        _cleanup_json_ json_object *said = json_object_new_string(message);
        _cleanup_free_ char *asks = mem_printf("{\"elicitation\":{\"method\":\"elicitation/create\",\"params\":{\"message\":%s,"
                                               "\"requestedSchema\":{\"type\":\"object\",%s}}}}",
                                               json_text(said), schema);
        _cleanup_json_ json_object *answers = ask(c, asks, 0);
        json_object *answer = json_get(answers, "elicitation");

        if (!answers)
                return NULL;
        return printed(mem_printf("%s: action=%s, content=%s", before, json_str(answer, "action"), json_text(json_get(answer, "content"))));
}

static json_object *run_elicitation(struct call *c, json_object *arguments)
{
        const char *message = json_str(arguments, "message");

        return elicited(c, "User response", message ? message : "",
                        "\"properties\":{\"username\":{\"type\":\"string\",\"description\":\"User's response\"},"
                        "\"email\":{\"type\":\"string\",\"description\":\"User's email address\"}},\"required\":[\"username\",\"email\"]");
}

static json_object *run_defaults(struct call *c, json_object *arguments)
{
        (void)arguments;
        return elicited(c, "Elicitation completed", "Please look at what is proposed",
                        "\"properties\":{\"name\":{\"type\":\"string\",\"default\":\"John Doe\"},"
                        "\"age\":{\"type\":\"integer\",\"default\":30},\"score\":{\"type\":\"number\",\"default\":95.5},"
                        "\"status\":{\"type\":\"string\",\"enum\":[\"active\",\"inactive\",\"pending\"],\"default\":\"active\"},"
                        "\"verified\":{\"type\":\"boolean\",\"default\":true}},\"required\":[]");
}

static json_object *run_enums(struct call *c, json_object *arguments)
{
        (void)arguments;
        return elicited(c, "Elicitation completed", "Please choose",
                        "\"properties\":{"
                        "\"untitledSingle\":{\"type\":\"string\",\"enum\":[\"option1\",\"option2\",\"option3\"]},"
                        "\"titledSingle\":{\"type\":\"string\",\"oneOf\":[{\"const\":\"value1\",\"title\":\"First Option\"},"
                        "{\"const\":\"value2\",\"title\":\"Second Option\"},{\"const\":\"value3\",\"title\":\"Third Option\"}]},"
                        "\"legacyEnum\":{\"type\":\"string\",\"enum\":[\"opt1\",\"opt2\",\"opt3\"],"
                        "\"enumNames\":[\"Option One\",\"Option Two\",\"Option Three\"]},"
                        "\"untitledMulti\":{\"type\":\"array\",\"items\":{\"type\":\"string\","
                        "\"enum\":[\"option1\",\"option2\",\"option3\"]}},"
                        "\"titledMulti\":{\"type\":\"array\",\"items\":{\"anyOf\":[{\"const\":\"value1\",\"title\":\"First Choice\"},"
                        "{\"const\":\"value2\",\"title\":\"Second Choice\"},{\"const\":\"value3\",\"title\":\"Third Choice\"}]}}},"
                        "\"required\":[]");
}

#define ELICIT(key, message, field, type)                                                                                                  \
        "\"" key "\":{\"method\":\"elicitation/create\",\"params\":{\"message\":\"" message "\",\"requestedSchema\":{\"type\":\"object\"," \
        "\"properties\":{\"" field "\":{\"type\":\"" type "\"}},\"required\":[\"" field "\"]}}}"
#define SAMPLE(key, text, tokens)                                                                                                          \
        "\"" key "\":{\"method\":\"sampling/createMessage\",\"params\":{\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"text\","  \
        "\"text\":\"" text "\"}}],\"maxTokens\":" tokens "}}"
#define ROOTS(key) "\"" key "\":{\"method\":\"roots/list\",\"params\":{}}"

static json_object *run_asks(struct call *c, const char *asks, int flags, const char *before)
{
        _cleanup_json_ json_object *answers = ask(c, asks, flags);

        return answers ? printed(mem_printf("%s%s", before, json_text(answers))) : NULL;
}

static json_object *run_ask_name(struct call *c, json_object *arguments)
{
        _cleanup_json_ json_object *answers = ask(c, "{" ELICIT("user_name", "What is your name?", "name", "string") "}", ASK_STATELESS);
        const char *name = json_str(json_path(answers, "user_name", "content", NULL), "name");

        (void)arguments;
        if (!answers)
                return NULL;
        return printed(name ? mem_printf("Hello, %s!", name) : mem_strdup("Hello, whoever you are!"));
}

static json_object *run_ask_model(struct call *c, json_object *arguments)
{
        (void)arguments;
        return run_asks(c, "{" SAMPLE("capital_question", "What is the capital of France?", "100") "}", ASK_STATELESS, "The model said ");
}

static json_object *run_ask_roots(struct call *c, json_object *arguments)
{
        (void)arguments;
        return run_asks(c, "{" ROOTS("client_roots") "}", ASK_STATELESS, "The client's roots: ");
}

static json_object *run_ask_confirm(struct call *c, json_object *arguments)
{
        (void)arguments;
        return run_asks(c, "{" ELICIT("confirm", "Please confirm", "ok", "boolean") "}", 0, "state-ok: ");
}

static json_object *run_ask_all(struct call *c, json_object *arguments)
{
        (void)arguments;
        return run_asks(c,
                        "{" ELICIT("user_name", "What is your name?", "name", "string") "," SAMPLE("greeting", "Generate a greeting",
                                                                                                   "50") "," ROOTS("client_roots") "}",
                        0, "All of it: ");
}

static json_object *run_ask_what_it_can(struct call *c, json_object *arguments)
{
        (void)arguments;
        return run_asks(
                c, "{" ELICIT("user_name", "What is your name?", "name", "string") "," SAMPLE("greeting", "Generate a greeting", "50") "}",
                ASK_STATELESS, "What it could say: ");
}

static json_object *run_ask_twice(struct call *c, json_object *arguments)
{
        _cleanup_json_ json_object *first = NULL, *second = NULL;

        (void)arguments;
        first = ask(c, "{" ELICIT("step1", "Step 1: What is your name?", "name", "string") "}", 0);
        if (!first)
                return NULL;
        second = ask(c, "{" ELICIT("step2", "Step 2: What is your favorite color?", "color", "string") "}", 0);
        if (!second)
                return NULL;
        return printed(mem_printf("%s likes %s", json_str(json_path(first, "step1", "content", NULL), "name"),
                                  json_str(json_path(second, "step2", "content", NULL), "color")));
}

static json_object *run_needs_sampling(struct call *c, json_object *arguments)
{
        _cleanup_json_ json_object *answers = NULL;

        (void)arguments;
        if (!client_can(c, "sampling"))
                return refuse(c, c->modern ? MISSING_CAPABILITY : INVALID_REQUEST, "the client cannot sample",
                              parse("{\"requiredCapabilities\":{\"sampling\":{}}}"));
        answers = ask(c, "{" SAMPLE("needed", "Say anything", "10") "}", ASK_STATELESS);
        return answers ? text_result("The client can sample", false) : NULL;
}

/* -- tools for the tests' own questions ------------------------------------------------------------------------------------------- */
static json_object *run_change_tools(struct call *c, json_object *arguments)
{
        (void)arguments;
        pthread_mutex_lock(&c->server->lock);
        c->server->more_tools = !c->server->more_tools;
        pthread_mutex_unlock(&c->server->lock);
        announce(c->server, CHANGE_TOOLS, NULL);
        return text_result("The list of tools changed", false);
}

static json_object *run_change_prompts(struct call *c, json_object *arguments)
{
        (void)arguments;
        pthread_mutex_lock(&c->server->lock);
        c->server->more_prompts = !c->server->more_prompts;
        pthread_mutex_unlock(&c->server->lock);
        announce(c->server, CHANGE_PROMPTS, NULL);
        return text_result("The list of prompts changed", false);
}

static json_object *run_touch(struct call *c, json_object *arguments)
{
        announce(c->server, CHANGE_RESOURCE, json_str(arguments, "uri"));
        return text_result("Touched", false);
}

static json_object *run_wait(struct call *c, json_object *arguments)
{
        int64_t ms = json_int(arguments, "ms", 0);

        if (call_sleep(c, ms > 0 && ms < 600000 ? (unsigned)ms : 0))
                return text_result("Waited", false);
        pthread_mutex_lock(&c->server->lock);
        c->server->cancelled++;
        pthread_mutex_unlock(&c->server->lock);
        return NULL;
}

static json_object *run_cancelled(struct call *c, json_object *arguments)
{
        unsigned n;

        (void)arguments;
        pthread_mutex_lock(&c->server->lock);
        n = c->server->cancelled;
        pthread_mutex_unlock(&c->server->lock);
        return printed(mem_printf("%u", n));
}

static json_object *run_give_back(struct call *c, json_object *arguments)
{
        (void)c;
        return printed(mem_strdup(json_text(arguments)));
}

#define NOTHING      "{\"type\":\"object\",\"properties\":{}}"
#define STRING(name) "{\"type\":\"object\",\"properties\":{\"" name "\":{\"type\":\"string\"}},\"required\":[\"" name "\"]}"
#define ONE(item)    "{\"content\":[" item "]}"
#define TEXT(text)   "{\"type\":\"text\",\"text\":\"" text "\"}"
#define IMAGE        "{\"type\":\"image\",\"data\":\"" PNG "\",\"mimeType\":\"image/png\"}"

const struct tool tools[] = {
        {"test_simple_text", "Text", NOTHING, ONE(TEXT("This is a simple text response for testing.")), NULL},
        {"test_image_content", "A picture", NOTHING, ONE(IMAGE), NULL},
        {"test_audio_content", "A sound", NOTHING, ONE("{\"type\":\"audio\",\"data\":\"" WAV "\",\"mimeType\":\"audio/wav\"}"), NULL},
        {"test_embedded_resource", "A resource", NOTHING,
         ONE("{\"type\":\"resource\",\"resource\":{\"uri\":\"test://embedded-resource\",\"mimeType\":\"text/plain\","
             "\"text\":\"This is an embedded resource content.\"}}"),
         NULL},
        {"test_multiple_content_types", "Text, a picture and a resource", NOTHING,
         ONE(TEXT("Multiple content types test:") "," IMAGE
                                                  ",{\"type\":\"resource\",\"resource\":{\"uri\":\"test://mixed-content-resource\","
                                                  "\"mimeType\":\"application/"
                                                  "json\",\"text\":\"{\\\"test\\\":\\\"data\\\",\\\"value\\\":123}\"}}"),
         NULL},
        {"test_error_handling", "Fails", NOTHING,
         "{\"content\":[" TEXT("This tool intentionally returns an error for testing") "],\"isError\":true}", NULL},
        {"test_tool_with_logging", "Logs three lines", NOTHING, NULL, run_logging},
        {"test_logging_tool", "Logs three lines", NOTHING, NULL, run_logging},
        {"test_tool_with_progress", "Tells how far it is", NOTHING, NULL, run_progress},
        {"test_sampling", "Asks the client's model", STRING("prompt"), NULL, run_sampling},
        {"test_elicitation", "Asks the user", STRING("message"), NULL, run_elicitation},
        {"test_elicitation_sep1034_defaults", "Asks the user, with defaults", NOTHING, NULL, run_defaults},
        {"test_elicitation_sep1330_enums", "Asks the user to choose", NOTHING, NULL, run_enums},
        {"test_input_required_result_elicitation", "Asks the user's name", NOTHING, NULL, run_ask_name},
        {"test_input_required_result_sampling", "Asks the client's model", NOTHING, NULL, run_ask_model},
        {"test_input_required_result_list_roots", "Asks for the client's roots", NOTHING, NULL, run_ask_roots},
        {"test_input_required_result_request_state", "Asks, and remembers", NOTHING, NULL, run_ask_confirm},
        {"test_input_required_result_multiple_inputs", "Asks three things at once", NOTHING, NULL, run_ask_all},
        {"test_input_required_result_multi_round", "Asks twice", NOTHING, NULL, run_ask_twice},
        {"test_input_required_result_tampered_state", "Asks, and is not to be cheated", NOTHING, NULL, run_ask_confirm},
        {"test_input_required_result_capabilities", "Asks what the client can be asked", NOTHING, NULL, run_ask_what_it_can},
        {"test_missing_capability", "Needs a client that can sample", NOTHING, NULL, run_needs_sampling},
        {"test_streaming_elicitation", "Asks the user's name", NOTHING, NULL, run_ask_name},
        {"test_trigger_tool_change", "Changes the list of tools", NOTHING, NULL, run_change_tools},
        {"test_trigger_prompt_change", "Changes the list of prompts", NOTHING, NULL, run_change_prompts},
        {"test_x_mcp_header", "Has a parameter that is mirrored in a header",
         "{\"type\":\"object\",\"properties\":{\"region\":{\"type\":\"string\",\"x-mcp-header\":\"Region\"}},\"required\":[\"region\"]}",
         NULL, run_give_back},
        {"json_schema_2020_12_tool", "Has a schema of many words",
         "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"type\":\"object\","
         "\"$defs\":{\"address\":{\"$anchor\":\"addressDef\",\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\"},"
         "\"city\":{\"type\":\"string\"}}}},"
         "\"properties\":{\"name\":{\"type\":\"string\"},\"address\":{\"$ref\":\"#/$defs/address\"},"
         "\"contactMethod\":{\"type\":\"string\",\"enum\":[\"phone\",\"email\"]},\"phone\":{\"type\":\"string\"},"
         "\"email\":{\"type\":\"string\"}},"
         "\"allOf\":[{\"anyOf\":[{\"required\":[\"phone\"]},{\"required\":[\"email\"]}]}],"
         "\"if\":{\"properties\":{\"contactMethod\":{\"const\":\"phone\"}},\"required\":[\"contactMethod\"]},"
         "\"then\":{\"required\":[\"phone\"]},\"else\":{\"required\":[\"email\"]},\"additionalProperties\":false}",
         NULL, run_give_back},
        {"touch", "Says that a resource changed", STRING("uri"), NULL, run_touch},
        {"wait", "Answers later", "{\"type\":\"object\",\"properties\":{\"ms\":{\"type\":\"integer\"}},\"required\":[\"ms\"]}", NULL,
         run_wait},
        {"cancelled", "How many calls were taken back", NOTHING, NULL, run_cancelled},
        {"give_back", "Gives its arguments back", "{\"type\":\"object\"}", NULL, run_give_back},
};
const size_t n_tools = ELEMENTSOF(tools);
