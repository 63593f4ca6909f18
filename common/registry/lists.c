/* The keys of an entry that are maps and lists of names: env, sysctls, secrets, tools, headers; and resources, smoke_test. */
#include "common/registry/reader.h"

#include <math.h>
#include <strings.h>

#include "common/text.h"

#define MAX_VARIABLES 256
#define MAX_SECRETS   64
#define MAX_TOOLS     1024
#define MAX_HEADERS   16U
#define MAX_HEADER    512U /* bytes of a value: all of them go to the broker in one packet */

static int compare_vars(const void *a, const void *b)
{
        return strcmp(((const struct env_var *)a)->name, ((const struct env_var *)b)->name);
}

/* Objects of names with string values, sorted by name so that two spellings of one entry are one spec. */
static int read_vars(const struct reader *r, const struct place *at, json_object *value, string_check_fn check, struct env_var **ret,
                     size_t *ret_n, struct err **err)
{
        if (!json_object_is_type(value, json_type_object))
                return reader_fail(r, at, err, "is not an object; write {\"NAME\": \"value\"}");
        if (json_object_object_length(value) > MAX_VARIABLES)
                return reader_fail(r, at, err, "has %d members; at most %d are allowed", json_object_object_length(value), MAX_VARIABLES);
        *ret = mem_alloc((size_t)json_object_object_length(value) * sizeof(struct env_var));
        json_object_object_foreach (value, name, member) {
                const struct place *here = PLACE_KEY(at, name);

                if (check(r, here, name, err) < 0)
                        return -1;
                if (!json_object_is_type(member, json_type_string))
                        return reader_fail(r, here, err, "is not a string; put the value in quotes");
                if (json_object_get_string_len(member) > 32 << 10)
                        return reader_fail(r, here, err, "is %d bytes long; at most %d are allowed", json_object_get_string_len(member),
                                           32 << 10);
                (*ret)[*ret_n].name = mem_strdup(name);
                (*ret)[(*ret_n)++].value = mem_strdup(json_object_get_string(member));
        }
        qsort(*ret, *ret_n, sizeof(struct env_var), compare_vars);
        return 0;
}

int parse_env(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct registry_entry *e = entry;

        return read_vars(r, at, value, check_variable_name, &e->env, &e->n_env, err);
}

/* Only what belongs to the container's own network namespace and opens nothing; IPv6 stays off. */
static int check_sysctl(const struct reader *r, const struct place *at, const char *s, struct err **err)
{
        static const char *const allowed[] = {
                "net.core.somaxconn",          "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
                "net.ipv4.tcp_fin_timeout",    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
                "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syn_retries",
        };
        _cleanup_buf_ struct buf known = {0};

        for (size_t i = 0; i < ELEMENTSOF(allowed); i++) {
                if (strcmp(s, allowed[i]) == 0)
                        return 0;
                buf_addf(&known, "%s%s", i ? ", " : "", allowed[i]);
        }
        return reader_fail(r, at, err, "this kernel setting is not allowed; remove it (allowed are %s)", known.data);
}

int parse_sysctls(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct registry_entry *e = entry;

        if (read_vars(r, at, value, check_sysctl, &e->sysctls, &e->n_sysctls, err) < 0)
                return -1;
        for (size_t i = 0; i < e->n_sysctls; i++)
                if (!e->sysctls[i].value[0] || !str_in_charset(e->sysctls[i].value, "0123456789 "))
                        return reader_fail(r, PLACE_KEY(at, e->sysctls[i].name), err, "is not a number; write it as a string of digits");
        return 0;
}

int parse_secrets(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct registry_entry *e = entry;

        if (read_strings(r, at, value, MAX_SECRETS, 128, check_variable_name, &e->secrets, err) < 0)
                return -1;
        strv_sort(e->secrets);
        for (size_t i = 1; e->secrets[i]; i++)
                if (strcmp(e->secrets[i - 1], e->secrets[i]) == 0)
                        return reader_fail(r, at, err, "\"%s\" stands here twice; write it once", e->secrets[i]);
        return 0;
}

static int check_known_secret(const struct reader *r, const struct place *at, const struct registry_entry *e, const char *s,
                              struct err **err)
{
        if (strv_contains(e->secrets, s))
                return 0;
        _cleanup_free_ char *shown = text_escape(s);
        return reader_fail(r, at, err, "\"%s\" is not among the server's secrets; add it to \"secrets\"", shown);
}

static int parse_tool_secrets(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        _cleanup_strv_ char **names = NULL;

        if (read_strings(r, at, value, MAX_SECRETS, 128, NULL, &names, err) < 0)
                return -1;
        for (size_t i = 0; names[i]; i++)
                if (check_known_secret(r, PLACE_ITEM(at, i), entry, names[i], err) < 0)
                        return -1;
        return 0;
}

static int parse_action(const struct reader *r, const struct place *at, json_object *value, _unused_ void *entry, struct err **err)
{
        static const char *const words[] = {"read", "write", "network", "credential", "exec", NULL};
        unsigned i = 0;

        return read_word(r, at, value, words, &i, err);
}

static const struct key tool_keys[] = {
        {.name = "secrets", .parse = parse_tool_secrets},
        {.name = "action", .parse = parse_action},
};

static void add_action(struct registry_entry *e, const char *tool, const char *action)
{
        _cleanup_free_ char *text = action ? mem_printf("%s %s", action, tool) : NULL;

        if (text)
                e->actions = strv_append(e->actions, text);
}

int parse_tools(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        if (!json_object_is_type(value, json_type_object))
                return reader_fail(r, at, err, "is not an object; write {\"tool\": {\"action\": \"read\"}}");
        if (json_object_object_length(value) > MAX_TOOLS)
                return reader_fail(r, at, err, "has %d members; at most %d are allowed", json_object_object_length(value), MAX_TOOLS);
        json_object_object_foreach (value, name, tool) {
                if (!name[0] || strlen(name) > 128)
                        return reader_fail(r, PLACE_KEY(at, name), err, "a tool's name is 1 to 128 bytes long; correct it");
                if (READ_OBJECT(r, PLACE_KEY(at, name), tool, tool_keys, entry, err) < 0)
                        return -1;
                add_action(entry, name, json_str(tool, "action"));
        }
        return 0;
}

/* RFC 9110 token. */
static int check_header_name(const struct reader *r, const struct place *at, const char *s, struct err **err)
{
        static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~";

        /* Where a message ends and what becomes of its connection is said by who sends it. */
        static const char *const ours[] = {"Connection", "Content-Length",    "Expect",       "Keep-Alive",   "TE", "Trailer", "Upgrade",
                                           "Accept",     "Transfer-Encoding", "Content-Type", "Last-Event-ID"};
        static const char *const credentials[] = {"Authorization", "Proxy-Authorization", "Cookie"};

        if (!s[0] || strlen(s) > 128 || !str_in_charset(s, set))
                return reader_fail(r, at, err, "is not the name of an HTTP header; correct it");
        for (size_t i = 0; i < ELEMENTSOF(ours); i++)
                if (strcasecmp(s, ours[i]) == 0)
                        return reader_fail(r, at, err, "is a header that the gateway sets itself; remove it");
        if (strncasecmp(s, "Mcp-", 4) == 0)
                return reader_fail(r, at, err, "is one of the protocol's headers, which the gateway sets itself; remove it");
        for (size_t i = 0; i < ELEMENTSOF(credentials); i++)
                if (strcasecmp(s, credentials[i]) == 0)
                        return reader_fail(r, at, err, "is a credential, which does not belong in this file; remove it");
        return 0;
}

/* RFC 9110 5.5: what stands in one line as it is, without space at its ends. */
static bool is_header_value(const char *s)
{
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if ((unsigned char)s[i] < ' ' || (unsigned char)s[i] > '~')
                        return false;
        return n > 0 && n <= MAX_HEADER && s[0] != ' ' && s[n - 1] != ' ';
}

static int add_headers(const struct reader *r, const struct place *at, struct registry_entry *e, const struct env_var *headers, size_t n,
                       struct err **err)
{
        for (size_t i = 0; i < n; i++) {
                const struct place *here = PLACE_KEY(at, headers[i].name);

                if (!is_header_value(headers[i].value))
                        return reader_fail(
                                r, here, err,
                                "is not the value of an HTTP header (1 to %u printable ASCII characters, no space at the ends); correct it",
                                MAX_HEADER);
                for (size_t k = 0; k < i; k++)
                        if (strcasecmp(headers[k].name, headers[i].name) == 0)
                                return reader_fail(r, here, err, "stands there in another spelling, too; remove one");
                _cleanup_free_ char *line = mem_printf("%s: %s", headers[i].name, headers[i].value);
                e->headers = strv_append(e->headers, line);
        }
        return 0;
}

int parse_headers(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct env_var *headers = NULL;
        size_t n = 0;
        int result = read_vars(r, at, value, check_header_name, &headers, &n, err);

        if (result == 0 && n > MAX_HEADERS)
                result = reader_fail(r, at, err, "has %zu members; at most %u are allowed", n, MAX_HEADERS);
        if (result == 0)
                result = add_headers(r, at, entry, headers, n, err);
        for (size_t i = 0; i < n; i++) {
                free(headers[i].name);
                free(headers[i].value);
        }
        free(headers);
        return result;
}

/* -- resources ------------------------------------------------------------------------------------------------------------ */

static int parse_memory(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return read_size(r, at, value, 16U << 20, UINT64_C(1) << 40, &((struct registry_entry *)dst)->memory, err);
}

static int parse_tmpfs(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        return read_size(r, at, value, 64U << 10, UINT64_C(64) << 30, &((struct registry_entry *)dst)->tmpfs, err);
}

static int parse_pids(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        int64_t n = 0;

        if (read_integer(r, at, value, 4, 32768, &n, err) < 0)
                return -1;
        ((struct registry_entry *)dst)->pids = (uint64_t)n;
        return 0;
}

/* The kernel's quota is at least 1 ms in 100 ms, hence hundredths. */
static int parse_cpus(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        if (!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int))
                return reader_fail(r, at, err, "is not a number; write one from 0.01 to 1024, such as 0.5");
        double cpus = json_object_get_double(value);
        if (!(cpus >= 0.01 && cpus <= 1024))
                return reader_fail(r, at, err, "is out of range; write a number from 0.01 to 1024, such as 0.5");
        double hundredths = round(cpus * 100);
        if (fabs(cpus * 100 - hundredths) > 1e-6)
                return reader_fail(r, at, err, "has more than two decimals; round it");
        ((struct registry_entry *)dst)->nano_cpus = (uint64_t)hundredths * 10000000;
        return 0;
}

static const struct key resource_keys[] = {
        {.name = "memory", .parse = parse_memory},
        {.name = "cpus", .parse = parse_cpus},
        {.name = "pids", .parse = parse_pids},
        {.name = "tmpfs", .parse = parse_tmpfs},
};

int parse_resources(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        return READ_OBJECT(r, at, value, resource_keys, entry, err);
}

/* -- smoke test ----------------------------------------------------------------------------------------------------------- */

static int parse_call_tool(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        const char *s = NULL;

        return read_string(r, at, value, 128, &s, err);
}

static int parse_call_arguments(const struct reader *r, const struct place *at, json_object *value, _unused_ void *dst, struct err **err)
{
        if (!json_object_is_type(value, json_type_object))
                return reader_fail(r, at, err, "is not an object; write the tool's arguments as {…}");
        return 0;
}

static const struct key call_keys[] = {
        {.name = "tool", .parse = parse_call_tool, .required = true},
        {.name = "arguments", .parse = parse_call_arguments},
};

static int parse_call(const struct reader *r, const struct place *at, json_object *value, void *dst, struct err **err)
{
        if (READ_OBJECT(r, at, value, call_keys, dst, err) < 0)
                return -1;
        ((struct registry_entry *)dst)->smoke_call = json_object_get(value);
        return 0;
}

static const struct key smoke_keys[] = {{.name = "call", .parse = parse_call}};

int parse_smoke_test(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        return READ_OBJECT(r, at, value, smoke_keys, entry, err);
}
