#include "tests/rig/servers/conformance.h"

json_object *parse(const char *text)
{
        json_object *o = NULL;

        if (json_parse(&o, text, strlen(text), "literal", NULL, NULL) < 0)
                abort();
        return o;
}

const char *json_text(json_object *o)
{
        return json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

json_object *refuse(struct call *c, int64_t code, const char *message, json_object *data)
{
        c->error = code;
        c->message = message;
        c->data = data;
        return NULL;
}

bool client_can(struct call *c, const char *capability)
{
        json_object *all = c->session ? c->session->capabilities : json_path(c->params, "_meta", META("clientCapabilities"), NULL);

        return json_get(all, capability) != NULL;
}

static const char *capability_for(json_object *request)
{
        const char *method = json_str(request, "method");

        return str_eq(method, "sampling/createMessage") ? "sampling" : str_eq(method, "roots/list") ? "roots" : "elicitation";
}

/* -- requestState: hex of the text, a dot, hex of its authenticator --------------------------------------------------------------- */
static char *seal(struct call *c, const char *text)
{
        unsigned char mac[crypto_auth_BYTES];
        size_t n = strlen(text);
        _cleanup_free_ char *hex = mem_alloc(2 * n + 1);
        char mac_hex[2 * crypto_auth_BYTES + 1];

        crypto_auth(mac, (const unsigned char *)text, n, c->server->key);
        hex_encode(hex, text, n);
        hex_encode(mac_hex, mac, sizeof(mac));
        return mem_printf("%s.%s", hex, mac_hex);
}

static char *unseal(struct call *c, const char *state)
{
        size_t n = strlen(state), k = 0;
        _cleanup_free_ char *text = mem_alloc(n + 1);
        unsigned char mac[crypto_auth_BYTES];
        const char *dot, *end;

        if (sodium_hex2bin((unsigned char *)text, n, state, n, NULL, &k, &dot) != 0 && *dot != '.')
                return NULL;
        if (*dot != '.' || sodium_hex2bin(mac, sizeof(mac), dot + 1, strlen(dot + 1), NULL, &n, &end) != 0 || *end || n != sizeof(mac))
                return NULL;
        if (crypto_auth_verify(mac, (const unsigned char *)text, k, c->server->key) != 0)
                return NULL;
        text[k] = '\0';
        return TAKE_PTR(text);
}

int ask_begin(struct call *c, const char *what)
{
        json_object *state = json_get(c->params, "requestState"), *responses = NULL;
        _cleanup_json_ json_object *kept = NULL;
        _cleanup_free_ char *text = NULL;

        c->earlier = json_object_new_array();
        if (!c->modern)
                return 0;
        if (json_object_object_get_ex(c->params, "inputResponses", &responses) && !json_object_is_type(responses, json_type_object)) {
                refuse(c, INVALID_PARAMS, "inputResponses is no object", NULL);
                return -1;
        }
        if (!state)
                return 0;
        text = unseal(c, json_object_get_string(state));
        if (text)
                kept = parse(text);
        if (!str_eq(json_str(kept, "for"), what)) {
                refuse(c, INVALID_PARAMS, "requestState is not one of ours", NULL);
                return -1;
        }
        json_object_put(c->earlier);
        c->earlier = json_object_get(json_get(kept, "answers"));
        return 0;
}

void ask_end(struct call *c)
{
        json_object_put(c->earlier);
        c->earlier = NULL;
}

/* 1: all are there; 0: some are missing; -1: c->error */
static int check_responses(struct call *c, json_object *asks, json_object *responses)
{
        json_object_object_foreach (asks, key, request) {
                json_object *answer = json_get(responses, key);
                bool elicits = str_eq(capability_for(request), "elicitation");

                if (!answer)
                        return 0;
                if (!json_object_is_type(answer, json_type_object) || (elicits && !json_str(answer, "action"))) {
                        refuse(c, INVALID_PARAMS, "an input response has the wrong form", NULL);
                        return -1;
                }
        }
        return 1;
}

static void ask_modern(struct call *c, json_object *asks, int flags)
{
        _cleanup_json_ json_object *state = json_object_new_object();
        _cleanup_free_ char *sealed = NULL;

        c->asked = json_object_new_object();
        json_add_str(c->asked, "resultType", "input_required");
        json_add(c->asked, "inputRequests", json_object_get(asks));
        if (flags & ASK_STATELESS)
                return;
        json_add_str(state, "for", json_str(c->params, "name"));
        json_add(state, "answers", json_object_get(c->earlier));
        sealed = seal(c, json_text(state));
        json_add_str(c->asked, "requestState", sealed);
}

/* Takes questions away that the client cannot be asked; with none left the call is refused. */
static int drop_unwelcome(struct call *c, json_object *asks)
{
        _cleanup_json_ json_object *missing = json_object_new_object();
        _cleanup_strv_ char **keys = NULL;

        json_object_object_foreach (asks, key, request) {
                if (client_can(c, capability_for(request)))
                        continue;
                keys = strv_append(keys, key);
                json_add(missing, capability_for(request), json_object_new_object());
        }
        for (size_t i = 0; i < strv_len(keys); i++)
                json_object_object_del(asks, keys[i]);
        if (json_object_object_length(asks) > 0)
                return 0;
        if (!c->modern)
                refuse(c, INVALID_REQUEST, "the client has not said that it can be asked this", NULL);
        else {
                json_object *data = json_object_new_object();
                json_add(data, "requiredCapabilities", TAKE_PTR(missing));
                refuse(c, MISSING_CAPABILITY, "the client lacks a capability", data);
        }
        return -1;
}

json_object *ask(struct call *c, const char *text, int flags)
{
        _cleanup_json_ json_object *asks = parse(text);
        json_object *answers, *responses = json_get(c->params, "inputResponses");
        unsigned round = c->round++;
        const char *why;
        int rc;

        if (drop_unwelcome(c, asks) < 0)
                return NULL;
        if (!c->modern) {
                answers = session_ask(c, asks, &why);
                return answers ? answers : refuse(c, INVALID_REQUEST, why, NULL);
        }
        if (round < json_object_array_length(c->earlier))
                return json_object_get(json_object_array_get_idx(c->earlier, round));
        rc = responses && round == json_object_array_length(c->earlier) ? check_responses(c, asks, responses) : 0;
        if (rc < 0)
                return NULL;
        if (rc == 0) {
                ask_modern(c, asks, flags);
                return NULL;
        }
        json_object_array_add(c->earlier, json_object_get(responses));
        /* They answer one round only. */
        answers = json_object_get(responses);
        json_object_object_del(c->params, "inputResponses");
        return answers;
}
