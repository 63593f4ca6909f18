#include "common/conf.h"

#include <arpa/inet.h>
#include <inttypes.h>

#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "common/yaml.h"

#define CONF_MAX_BYTES (256U << 10)

struct reading {
        const char *path;
        struct json_locations *loc;
};

struct key;
typedef int (*key_parse_fn)(const struct key *key, json_object *value, void *field, struct err **err);

/* One row per key: where it stands, how it is read, where it goes. */
struct key {
        const char *pointer;
        key_parse_fn parse;
        size_t offset;
        const char *fallback; /* as it would be written; NULL = absent or required */
        uint64_t min, max;    /* numbers */
        bool required;
};

static int parse_text(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        const char *s = json_object_get_string(value);

        if (!json_object_is_type(value, json_type_string) || *s == '\0' || strlen(s) > 4096)
                return err_set(err, ERR_INVALID, "must be a text of 1 to 4096 characters");
        for (const char *p = s; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        return err_set(err, ERR_INVALID, "must not contain control characters");
        mem_replace(field, mem_strdup(s));
        return 0;
}

static int parse_path(const struct key *key, json_object *value, void *field, struct err **err)
{
        if (parse_text(key, value, field, err) < 0)
                return -1;
        const char *s = *(char **)field;
        if (*s != '/' || strstr(s, "/../") || str_has_suffix(s, "/.."))
                return err_set(err, ERR_INVALID, "must be an absolute path without \"..\"");
        return 0;
}

static int parse_audience(const struct key *key, json_object *value, void *field, struct err **err)
{
        if (parse_text(key, value, field, err) < 0)
                return -1;
        const char *s = *(char **)field;
        if (strlen(s) > 64 || !str_in_charset(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-"))
                return err_set(err, ERR_INVALID, "must be 1 to 64 of A-Z a-z 0-9 . and -, such as this host's name");
        return 0;
}

static int parse_ref(const struct key *key, json_object *value, void *field, struct err **err)
{
        if (parse_text(key, value, field, err) < 0)
                return -1;
        const char *s = *(char **)field;
        if (!str_has_prefix(s, "refs/") || strstr(s, "..") || strpbrk(s, " ~^:?*[\\") || str_has_suffix(s, "/") ||
            str_has_suffix(s, ".lock"))
                return err_set(err, ERR_INVALID, "must be a full reference, such as refs/heads/main");
        return 0;
}

static int parse_signatures(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        const char *s = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";

        if (!str_eq(s, "required") && !str_eq(s, "none"))
                return err_set(err, ERR_INVALID, "must be \"required\" or, for development only, \"none\"");
        *(bool *)field = str_eq(s, "required");
        return 0;
}

static int parse_count(const struct key *key, json_object *value, void *field, struct err **err)
{
        int64_t v = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;

        if (v < 0 || (uint64_t)v < key->min || (uint64_t)v > key->max)
                return err_set(err, ERR_INVALID, "must be a number from %" PRIu64 " to %" PRIu64, key->min, key->max);
        *(unsigned *)field = (unsigned)v;
        return 0;
}

static int parse_duration(const struct key *key, json_object *value, void *field, struct err **err)
{
        uint64_t ms;

        if (!json_object_is_type(value, json_type_string))
                return err_set(err, ERR_INVALID, "must be a duration, such as \"30s\"");
        if (text_parse_duration(&ms, json_object_get_string(value), err) < 0)
                return -1;
        if (ms < key->min || ms > key->max)
                return err_set(err, ERR_INVALID, "must be from %" PRIu64 "ms to %" PRIu64 "ms", key->min, key->max);
        *(uint64_t *)field = ms;
        return 0;
}

static int parse_size(const struct key *key, json_object *value, void *field, struct err **err)
{
        uint64_t v;

        if (!json_object_is_type(value, json_type_string))
                return err_set(err, ERR_INVALID, "must be a size, such as \"2g\"");
        if (text_parse_size(&v, json_object_get_string(value), err) < 0)
                return -1;
        if (v < key->min || v > key->max)
                return err_set(err, ERR_INVALID, "must be from %" PRIu64 " to %" PRIu64 " bytes", key->min, key->max);
        *(uint64_t *)field = v;
        return 0;
}

/* One bit of a packet mark, as a decimal number or as text "0x00200000". */
static int parse_mark(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        uint64_t v = 0;
        char *end = NULL;

        if (json_object_is_type(value, json_type_int)) {
                v = (uint64_t)json_object_get_int64(value);
        } else if (json_object_is_type(value, json_type_string)) {
                v = strtoull(json_object_get_string(value), &end, 0);
                if (*end)
                        v = 0;
        }
        if (v == 0 || v > UINT32_MAX || (v & (v - 1)) != 0)
                return err_set(err, ERR_INVALID, "must be a single bit of 32, such as \"0x00200000\"");
        *(uint32_t *)field = (uint32_t)v;
        return 0;
}

static int parse_list(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        char **v = NULL;

        if (!json_to_strv(&v, value))
                return err_set(err, ERR_INVALID, "must be a list of texts");
        if (strv_len(v) > 256) {
                strv_free(v);
                return err_set(err, ERR_INVALID, "must have at most 256 items");
        }
        strv_free(*(char ***)field);
        *(char ***)field = v;
        return 0;
}

static int parse_path_list(const struct key *key, json_object *value, void *field, struct err **err)
{
        if (parse_list(key, value, field, err) < 0)
                return -1;
        for (char **p = *(char ***)field; p && *p; p++)
                if (**p != '/' || strstr(*p, "/../") || str_has_suffix(*p, "/..") || str_eq(*p, "/"))
                        return err_set(err, ERR_INVALID, "must be absolute paths without \"..\", and not \"/\" itself");
        return 0;
}

static int parse_listen(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        const char *s = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "", *colon = strrchr(s, ':');
        struct conf_listen *listen = field;
        char address[INET_ADDRSTRLEN];
        struct in_addr a;

        if (!colon || (size_t)(colon - s) >= sizeof(address))
                return err_set(err, ERR_INVALID, "must be an IPv4 address and a port, such as \"127.0.0.1:8080\"");
        memcpy(address, s, (size_t)(colon - s));
        address[colon - s] = '\0';
        size_t digits = strspn(colon + 1, "0123456789");
        unsigned long port = digits >= 1 && digits <= 5 && !colon[1 + digits] ? strtoul(colon + 1, NULL, 10) : 0;
        if (inet_pton(AF_INET, address, &a) != 1 || port < 1 || port > 65535)
                return err_set(err, ERR_INVALID, "must be an IPv4 address and a port, such as \"127.0.0.1:8080\"");
        mem_replace(&listen->address, mem_strdup(address));
        listen->port = (uint16_t)port;
        return 0;
}

#define MAX_LISTEN 16U

static void listens_deinit(struct conf_listens *l)
{
        for (size_t i = 0; i < l->n; i++)
                free(l->items[i].address);
        free(l->items);
        *l = (struct conf_listens){0};
}

/* One, or a list of them. */
static int parse_listens(const struct key *key, json_object *value, void *field, struct err **err)
{
        bool list = json_object_is_type(value, json_type_array);
        size_t n = list ? json_object_array_length(value) : 1;
        struct conf_listens *l = field;

        if (n < 1 || n > MAX_LISTEN)
                return err_set(err, ERR_INVALID, "must have 1 to %u addresses", MAX_LISTEN);
        listens_deinit(l);
        l->items = mem_alloc(n * sizeof(*l->items));
        for (size_t i = 0; i < n; i++, l->n++) {
                struct conf_listen *item = &l->items[i];

                if (parse_listen(key, list ? json_object_array_get_idx(value, i) : value, item, err) < 0)
                        return -1;
                for (size_t k = 0; k < i; k++)
                        if (str_eq(l->items[k].address, item->address) && l->items[k].port == item->port) {
                                l->n++;
                                return err_set(err, ERR_INVALID, "has %s:%u twice", item->address, (unsigned)item->port);
                        }
        }
        return 0;
}

static int parse_auth(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        const char *s = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";

        if (!str_eq(s, "token") && !str_eq(s, "none"))
                return err_set(err, ERR_INVALID, "must be \"token\" or, on a loopback address only, \"none\"");
        *(bool *)field = str_eq(s, "token");
        return 0;
}

static int parse_mode(_unused_ const struct key *key, json_object *value, void *field, struct err **err)
{
        const char *s = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;

        if (!str_eq(s, "production") && !str_eq(s, "development"))
                return err_set(err, ERR_INVALID, "must be \"production\" or, where people try things out, \"development\"");
        *(bool *)field = str_eq(s, "development");
        return 0;
}

static int parse_hosts(const struct key *key, json_object *value, void *field, struct err **err)
{
        static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-";

        if (parse_list(key, value, field, err) < 0)
                return -1;
        for (char **h = *(char ***)field; h && *h; h++)
                if (!**h || strlen(*h) > 253 || !str_in_charset(*h, set))
                        return err_set(err, ERR_INVALID, "must be names of hosts or IPv4 addresses, without a port");
        return 0;
}

#define AT(field) offsetof(struct conf, field)
static const struct key keys[] = {
        {"/audience", parse_audience, AT(audience), .required = true},
        {"/registry", parse_path, AT(registry_path), "/etc/bulkhead/registry/mcp.servers.json"},
        {"/approvals/repository", parse_path, AT(approvals_repository), "/var/lib/bulkhead/approvals.git"},
        {"/approvals/ref", parse_ref, AT(approvals_ref), "refs/heads/main"},
        {"/approvals/signatures", parse_signatures, AT(signatures_required), "required"},
        {"/approvals/allowed_signers", parse_path, AT(allowed_signers), "/etc/bulkhead/allowed_signers"},
        {"/approvals/revoked_keys", parse_path, AT(revoked_keys)},
        {"/engine/socket", parse_path, AT(engine_socket), "/run/docker.sock"},
        {"/controller/user", parse_text, AT(service_user), "bulkhead"},
        {"/controller/socket", parse_path, AT(control_socket), "/run/bulkhead/control/control.sock"},
        {"/controller/state", parse_path, AT(state_dir), "/var/lib/bulkhead/state"},
        {"/controller/parallel_starts", parse_count, AT(max_starts), "4", .min = 1, .max = 16},
        {"/controller/max_servers", parse_count, AT(max_servers), "1000", .min = 1, .max = 10000},
        {"/controller/resync", parse_duration, AT(resync_ms), "30s", .min = 100, .max = 3600000},
        {"/control/operators", parse_text, AT(operator_group), "bulkhead-operators"},
        {"/control/readers", parse_text, AT(reader_group), "bulkhead-operators"},
        {"/network/pool", parse_text, AT(pool), "10.213.0.0/16"},
        {"/network/mark", parse_mark, AT(mark_bit), "0x00200000"},
        {"/network/broker_user", parse_text, AT(broker_user), "bulkhead-broker"},
        {"/images/registries", parse_list, AT(allowed_registries)},
        {"/images/max_size", parse_size, AT(max_image_bytes), "2g", .min = 1, .max = UINT64_C(1) << 50},
        {"/mounts/roots", parse_path_list, AT(mount_roots)},
        {"/runtimes", parse_list, AT(runtimes)},
        {"/smoke/timeout", parse_duration, AT(smoke_timeout_ms), "60s", .min = 100, .max = 3600000},
        {"/smoke/max_output", parse_size, AT(smoke_max_output), "4m", .min = 1024, .max = 64U << 20},
        {"/helpers", parse_path, AT(helper_dir), LIBEXECDIR},
        {"/discovery/toolhive", parse_text, AT(toolhive_url)},
        {"/discovery/mode", parse_mode, AT(discovery_development), "production"},
        {"/agents/file", parse_path, AT(agents_file), "/etc/bulkhead/agents.json"},
        {"/agents/key", parse_path, AT(agents_key), "/etc/bulkhead/agents.key"},
        {"/broker/listen", parse_listens, AT(broker_listen), "127.0.0.1:8000"},
        {"/broker/hosts", parse_hosts, AT(broker_hosts)},
        {"/broker/state", parse_path, AT(broker_state), "/var/lib/bulkhead/broker"},
        {"/policy", parse_path, AT(policy_path), "/etc/bulkhead/security_policy.json"},
        {"/link/socket", parse_path, AT(link_socket), "/run/bulkhead/link/link.sock"},
        {"/gateway/listen", parse_listen, AT(gateway_listen), "127.0.0.1:8080"},
        {"/gateway/auth", parse_auth, AT(gateway_auth), "token"},
        {"/gateway/metrics", parse_auth, AT(gateway_metrics_auth), "token"},
        {"/gateway/token", parse_path, AT(gateway_token), "/etc/bulkhead/gateway.token.sha256"},
        {"/gateway/hosts", parse_hosts, AT(gateway_hosts)},
        {"/gateway/max_message", parse_size, AT(gateway_max_message), "16m", .min = 64U << 10, .max = 64U << 20},
        {"/gateway/call_timeout", parse_duration, AT(gateway_call_timeout_ms), "60s", .min = 100, .max = 86400000},
        {"/gateway/call_cap", parse_duration, AT(gateway_call_cap_ms), "1h", .min = 100, .max = 86400000},
        {"/gateway/start_timeout", parse_duration, AT(gateway_start_timeout_ms), "60s", .min = 100, .max = 3600000},
        {"/gateway/ca_file", parse_path, AT(ca_file), "/etc/ssl/certs/ca-certificates.crt"},
        {"/gateway/controller_grace", parse_duration, AT(gateway_grace_ms), "5m", .min = 100, .max = 86400000},
        {"/gateway/busy_poll_us", parse_count, AT(gateway_busy_poll_us), "100", .min = 0, .max = 1000},
        {"/gateway/max_sessions", parse_count, AT(gateway_max_sessions), "10000", .min = 1, .max = 1000000},
        {"/gateway/max_instances", parse_count, AT(gateway_max_instances), "64", .min = 1, .max = 10000},
        {"/gateway/max_server_instances", parse_count, AT(gateway_max_server_instances), "8", .min = 1, .max = 64},
        {"/gateway/max_memory", parse_size, AT(gateway_max_memory), .min = 16U << 20, .max = UINT64_C(1) << 50},
};
#undef AT

static int fail_at(const struct reading *r, const char *pointer, struct err *cause, struct err **err)
{
        unsigned line = 0, column = 0;

        json_locate(r->loc, pointer, &line, &column);
        err_set(err, err_code(cause), "%s:%u:%u: %s: %s", r->path, line, column, pointer + 1, err_msg(cause));
        err_free(cause);
        return -1;
}

static json_object *fallback_value(const struct key *key)
{
        if (key->parse == parse_count)
                return json_object_new_int64(strtoll(key->fallback, NULL, 10));
        return json_object_new_string(key->fallback);
}

static json_object *find(json_object *root, const char *pointer)
{
        json_object *value = NULL;

        return json_pointer_get(root, pointer, &value) == 0 ? value : NULL;
}

static int apply_key(struct conf *c, const struct reading *r, const struct key *key, json_object *root, struct err **err)
{
        _cleanup_json_ json_object *value = json_object_get(find(root, key->pointer));
        struct err *cause = NULL;

        if (!value && key->required)
                return err_set(err, ERR_INVALID, "%s: key \"%s\" is missing", r->path, key->pointer + 1);
        if (!value && !key->fallback)
                return 0;
        if (!value)
                value = fallback_value(key);
        if (key->parse(key, value, (char *)c + key->offset, &cause) < 0)
                return fail_at(r, key->pointer, cause, err);
        return 0;
}

/* Every member must be a key of the table, or lead to one. */
static int refuse_unknown(const struct reading *r, json_object *o, const char *prefix, struct err **err)
{
        json_object_object_foreach (o, name, value) {
                _cleanup_free_ char *pointer = mem_printf("%s/%s", prefix, name);
                _cleanup_free_ char *inside = mem_printf("%s/", pointer);
                bool known = false, leads = false;
                struct err *cause = NULL;

                /* A name with a slash in it would read like a place in the table, and is none. */
                for (size_t i = 0; i < ELEMENTSOF(keys) && !strchr(name, '/'); i++) {
                        known |= str_eq(keys[i].pointer, pointer);
                        leads |= str_has_prefix(keys[i].pointer, inside);
                }
                if (known)
                        continue;
                if (leads && json_object_is_type(value, json_type_object)) {
                        if (refuse_unknown(r, value, pointer, err) < 0)
                                return -1;
                        continue;
                }
                err_set(&cause, ERR_INVALID,
                        leads ? "must be a mapping" : "unknown key: remove it or correct its spelling (bulkhead.conf(5) lists all)");
                return fail_at(r, pointer, cause, err);
        }
        return 0;
}

/* What keys mean together. Without a token, whoever reaches the port may call every tool, or count: then nobody but this host may reach it.
 */
static int check_together(const struct conf *c, const struct reading *r, struct err **err)
{
        struct err *cause = NULL;

        if ((c->gateway_auth && c->gateway_metrics_auth) || str_has_prefix(c->gateway_listen.address, "127."))
                return 0;
        (void)err_set(&cause, ERR_DENIED,
                      "\"none\" goes with a loopback address only, and gateway.listen is %s: write \"token\", or listen on 127.0.0.1",
                      c->gateway_listen.address);
        return fail_at(r, c->gateway_auth ? "/gateway/metrics" : "/gateway/auth", cause, err);
}

int conf_load(struct conf **ret, const char *path, struct err **err)
{
        _cleanup_(conf_freep) struct conf *c = NEW(struct conf);
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_json_ json_object *root = NULL;
        _cleanup_free_ char *text = NULL;
        size_t n;

        if (file_read(&text, &n, path, CONF_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return -1;
        if (yaml_parse(&root, &loc, text, n, path, NULL, err) < 0)
                return -1;
        if (!json_object_is_type(root, json_type_object))
                return err_set(err, ERR_INVALID, "%s:1:1: must be a mapping of keys", path);

        struct reading r = {.path = path, .loc = loc};
        if (refuse_unknown(&r, root, "", err) < 0)
                return -1;
        for (size_t i = 0; i < ELEMENTSOF(keys); i++)
                if (apply_key(c, &r, &keys[i], root, err) < 0)
                        return -1;
        if (check_together(c, &r, err) < 0)
                return -1;
        c->path = mem_strdup(path);
        *ret = TAKE_PTR(c);
        return 0;
}

int conf_gateway_token(char out[CONF_TOKEN_HEX], const struct conf *conf, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n;

        if (file_read(&text, &n, conf->gateway_token, 128, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "gateway.token");
        if (n > 0 && text[n - 1] == '\n')
                text[n - 1] = '\0';
        if (!str_is_hex(text, CONF_TOKEN_HEX - 1))
                return err_set(err, ERR_INVALID, "gateway.token: %s does not hold the SHA-256 of a token: 64 hex digits in lower case",
                               conf->gateway_token);
        memcpy(out, text, CONF_TOKEN_HEX);
        return 0;
}

struct conf *conf_free(struct conf *c)
{
        if (!c)
                return NULL;
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                void *field = (char *)c + keys[i].offset;
                if (keys[i].parse == parse_text || keys[i].parse == parse_path || keys[i].parse == parse_audience ||
                    keys[i].parse == parse_ref)
                        free(*(char **)field);
                else if (keys[i].parse == parse_list || keys[i].parse == parse_path_list || keys[i].parse == parse_hosts)
                        strv_free(*(char ***)field);
                else if (keys[i].parse == parse_listens)
                        listens_deinit(field);
                else if (keys[i].parse == parse_listen)
                        free(((struct conf_listen *)field)->address);
        }
        free(c->path);
        free(c);
        return NULL;
}
