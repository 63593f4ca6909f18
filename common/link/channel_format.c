/*
 * The link's packets as text: one table says which member goes with which kind of message, for reading and for writing.
 */
#include "common/link/channel.h"

#include <arpa/inet.h>

#include "common/json.h"
#include "common/manifest.h"

#define MAX_WHY        2000U
#define MAX_PATH       1024U
#define MAX_TOOL       256U
#define MAX_HEADER     1024U
#define MAX_DIFFERENCE 400U
#define MAX_INTEGER    (INT64_C(1) << 53)

static const char *const kind_words[] = {
        [CHANNEL_HELLO] = "hello",    [CHANNEL_PINS] = "pins",     [CHANNEL_SERVER] = "server",   [CHANNEL_GONE] = "gone",
        [CHANNEL_SYNCED] = "synced",  [CHANNEL_STREAM] = "stream", [CHANNEL_REFUSED] = "refused", [CHANNEL_START] = "start",
        [CHANNEL_STOP] = "stop",      [CHANNEL_RENEW] = "renew",   [CHANNEL_CALLS] = "calls",     [CHANNEL_DECIDE] = "decide",
        [CHANNEL_CALL] = "call",      [CHANNEL_DONE] = "done",     [CHANNEL_STATE] = "state",     [CHANNEL_DIFFERS] = "differs",
        [CHANNEL_DIFFERS + 1] = NULL,
};
static const char *const transport_words[] = {"stdio", "streamable-http", "sse", NULL};
static const char *const lifecycle_words[] = {"always-on", "on-demand", NULL};
static const char *const readiness_words[] = {
        [READINESS_UP] = "up", [READINESS_ASLEEP] = "asleep", [READINESS_COMING] = "coming", [READINESS_DOWN] = "down", NULL};

/* -- what a text may be --------------------------------------------------------------------------------------------------------- */

static bool is_clean(const char *s, size_t max)
{
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
                        return false;
        return n > 0 && n <= max;
}

static bool is_why(const char *s)
{
        return is_clean(s, MAX_WHY);
}

static bool is_instance(const char *s)
{
        return str_is_hex(s, CHANNEL_INSTANCE_HEX);
}

static bool is_address(const char *s)
{
        struct in_addr a;

        return inet_pton(AF_INET, s, &a) == 1;
}

static bool is_path(const char *s)
{
        return s[0] == '/' && is_clean(s, MAX_PATH) && !strchr(s, ' ');
}

static bool is_manifest(const char *s)
{
        return str_is_hex(s, 64);
}

static bool is_call(const char *s)
{
        return str_has_prefix(s, "c-") && str_is_hex(s + 2, 16);
}

static bool is_by(const char *s)
{
        return is_clean(s, 128);
}

/* JSON on one line. */
static bool is_text(const char *s)
{
        return is_clean(s, CHANNEL_MAX_TEXT);
}

static bool is_tool(const char *s)
{
        return is_clean(s, MAX_TOOL);
}

static bool is_pin(const char *s)
{
        return strlen(s) == MANIFEST_PIN - 1 && str_in_charset(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
}

/* "tool NAME" */
static bool is_difference(const char *s)
{
        return is_clean(s, MAX_DIFFERENCE);
}

/* "Name: value" */
static bool is_header(const char *s)
{
        const char *colon = strchr(s, ':');

        return colon && colon > s && colon[1] == ' ' && is_clean(s, MAX_HEADER);
}

/* "CLASS TOOL" */
static bool is_action(const char *s)
{
        const char *space = strchr(s, ' ');

        return space && space > s && strspn(s, "abcdefghijklmnopqrstuvwxyz") == (size_t)(space - s) && is_tool(space + 1);
}

/* -- the table ------------------------------------------------------------------------------------------------------------------ */

enum shape { SHAPE_TEXT, SHAPE_WORD, SHAPE_NUMBER16, SHAPE_NUMBER32, SHAPE_NUMBER64, SHAPE_FLAG, SHAPE_LIST };

struct member {
        const char *key;
        enum shape shape;
        size_t offset;
        unsigned required, allowed;   /* sets of kinds */
        bool (*check)(const char *s); /* texts, and the items of a list */
        const char *const *words;     /* SHAPE_WORD */
        int64_t min, max;             /* numbers; max of a list: its length, 0 = whatever fits */
};

#define IN(kind) (1U << (kind))
#define NAMED                                                                                                                              \
        (IN(CHANNEL_SERVER) | IN(CHANNEL_GONE) | IN(CHANNEL_STREAM) | IN(CHANNEL_REFUSED) | IN(CHANNEL_START) | IN(CHANNEL_STOP) |         \
         IN(CHANNEL_RENEW) | IN(CHANNEL_PINS) | IN(CHANNEL_DIFFERS))
#define NUMBERED  (IN(CHANNEL_CALLS) | IN(CHANNEL_DECIDE) | IN(CHANNEL_CALL) | IN(CHANNEL_DONE))
#define COUNTED   (NUMBERED | IN(CHANNEL_START) | IN(CHANNEL_STOP) | IN(CHANNEL_STREAM) | IN(CHANNEL_REFUSED))
#define AT(field) offsetof(struct channel_message, field)
static const struct member members[] = {
        {"version", SHAPE_NUMBER32, AT(version), IN(CHANNEL_HELLO), IN(CHANNEL_HELLO), .min = 1, .max = 1000000},
        {"name", SHAPE_TEXT, AT(entry.name), NAMED, NAMED, registry_name_valid},
        {"instance", SHAPE_TEXT, AT(entry.instance), IN(CHANNEL_STREAM) | IN(CHANNEL_RENEW),
         IN(CHANNEL_STREAM) | IN(CHANNEL_RENEW) | IN(CHANNEL_SERVER), is_instance},
        {"why", SHAPE_TEXT, AT(why), IN(CHANNEL_REFUSED), IN(CHANNEL_REFUSED) | IN(CHANNEL_DONE), is_why},
        {"serial", SHAPE_NUMBER32, AT(serial), NUMBERED, COUNTED, .min = 1, .max = UINT32_MAX},
        {"lists", SHAPE_FLAG, AT(lists), 0, IN(CHANNEL_START)},
        {"call", SHAPE_TEXT, AT(call), IN(CHANNEL_DECIDE), IN(CHANNEL_DECIDE), is_call},
        {"approve", SHAPE_FLAG, AT(approve), IN(CHANNEL_DECIDE), IN(CHANNEL_DECIDE)},
        {"valid_ms", SHAPE_NUMBER64, AT(valid_ms), IN(CHANNEL_DECIDE), IN(CHANNEL_DECIDE), .min = 0, .max = MAX_INTEGER},
        {"by", SHAPE_TEXT, AT(by), IN(CHANNEL_DECIDE), IN(CHANNEL_DECIDE), is_by},
        {"text", SHAPE_TEXT, AT(text), IN(CHANNEL_CALL), IN(CHANNEL_CALL), is_text},
        {"troubles", SHAPE_LIST, AT(troubles), IN(CHANNEL_STATE), IN(CHANNEL_STATE), is_why},
        {"manifest", SHAPE_TEXT, AT(entry.manifest), 0, IN(CHANNEL_SERVER), is_manifest},
        {"transport", SHAPE_WORD, AT(entry.transport), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER), .words = transport_words},
        {"lifecycle", SHAPE_WORD, AT(entry.lifecycle), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER), .words = lifecycle_words},
        {"readiness", SHAPE_WORD, AT(entry.readiness), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER), .words = readiness_words},
        {"down_why", SHAPE_TEXT, AT(entry.why), 0, IN(CHANNEL_SERVER), is_why},
        {"address", SHAPE_TEXT, AT(entry.address), 0, IN(CHANNEL_SERVER), is_address},
        {"port", SHAPE_NUMBER16, AT(entry.port), 0, IN(CHANNEL_SERVER), .min = 1, .max = 65535},
        {"path", SHAPE_TEXT, AT(entry.path), 0, IN(CHANNEL_SERVER), is_path},
        {"tls_host", SHAPE_TEXT, AT(entry.tls_host), 0, IN(CHANNEL_SERVER), registry_tls_host_valid},
        {"tls_pins", SHAPE_LIST, AT(entry.tls_pins), 0, IN(CHANNEL_SERVER), registry_tls_pin_valid, .max = CHANNEL_MAX_TLS_PINS},
        {"headers", SHAPE_LIST, AT(entry.headers), 0, IN(CHANNEL_SERVER), is_header, .max = CHANNEL_MAX_HEADERS},
        {"prefix", SHAPE_TEXT, AT(entry.prefix), 0, IN(CHANNEL_SERVER), registry_prefix_valid},
        {"per_session", SHAPE_FLAG, AT(entry.per_session), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER)},
        {"tools", SHAPE_LIST, AT(entry.tools), 0, IN(CHANNEL_SERVER), is_tool},
        {"pinned", SHAPE_FLAG, AT(entry.pinned), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER)},
        {"pins", SHAPE_LIST, AT(entry.pins), IN(CHANNEL_PINS), IN(CHANNEL_PINS), is_pin},
        {"differs", SHAPE_LIST, AT(differs), IN(CHANNEL_DIFFERS), IN(CHANNEL_DIFFERS), is_difference, .max = CHANNEL_MAX_DIFFERS},
        {"actions", SHAPE_LIST, AT(entry.actions), 0, IN(CHANNEL_SERVER), is_action},
        {"idle_ms", SHAPE_NUMBER64, AT(entry.idle_ms), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER), .min = 0, .max = MAX_INTEGER},
        {"expires_at", SHAPE_NUMBER64, AT(entry.expires_at), IN(CHANNEL_SERVER), IN(CHANNEL_SERVER), .min = 0, .max = MAX_INTEGER},
};
#undef AT

/* Words are read into the entry's enums through one type. */
_Static_assert(sizeof(enum transport) == sizeof(unsigned) && sizeof(enum lifecycle) == sizeof(unsigned) &&
                       sizeof(enum server_readiness) == sizeof(unsigned) && sizeof(enum channel_kind) == sizeof(unsigned),
               "enums are unsigned");

/* -- reading -------------------------------------------------------------------------------------------------------------------- */

static int bad(const struct member *m, const char *what, struct err **err)
{
        return err_set(err, ERR_INVALID, "link message: \"%s\" %s", m->key, what);
}

static int read_text(const struct member *m, json_object *v, char **field, struct err **err)
{
        const char *s = json_object_get_string(v);

        if (!json_object_is_type(v, json_type_string) || !m->check(s))
                return bad(m, "is not a text of its form", err);
        *field = mem_strdup(s);
        return 0;
}

static int read_word(const struct member *m, json_object *v, void *field, struct err **err)
{
        if (json_object_is_type(v, json_type_string))
                for (unsigned i = 0; m->words[i]; i++)
                        if (str_eq(m->words[i], json_object_get_string(v))) {
                                memcpy(field, &i, sizeof(i)); /* any of the enums of channel_entry */
                                return 0;
                        }
        return bad(m, "is none of its words", err);
}

static int read_number(const struct member *m, json_object *v, void *field, struct err **err)
{
        int64_t n = json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : -1;

        if (n < m->min || n > m->max)
                return bad(m, "is not a number in its range", err);
        if (m->shape == SHAPE_NUMBER16)
                *(uint16_t *)field = (uint16_t)n;
        else if (m->shape == SHAPE_NUMBER32)
                *(unsigned *)field = (unsigned)n;
        else
                *(uint64_t *)field = (uint64_t)n;
        return 0;
}

static int read_list(const struct member *m, json_object *v, char ***field, struct err **err)
{
        size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;

        if (!json_object_is_type(v, json_type_array))
                return bad(m, "is not a list", err);
        if (m->max && n > (size_t)m->max)
                return bad(m, "is too long a list", err);
        *field = mem_alloc((n + 1) * sizeof(char *));
        for (size_t i = 0; i < n; i++)
                if (read_text(m, json_object_array_get_idx(v, i), &(*field)[i], err) < 0)
                        return -1;
        return 0;
}

static int read_member(const struct member *m, json_object *v, struct channel_message *ret, struct err **err)
{
        void *field = (char *)ret + m->offset;

        switch (m->shape) {
        case SHAPE_TEXT:
                return read_text(m, v, field, err);
        case SHAPE_WORD:
                return read_word(m, v, field, err);
        case SHAPE_FLAG:
                if (!json_object_is_type(v, json_type_boolean))
                        return bad(m, "is not true or false", err);
                *(bool *)field = json_object_get_boolean(v);
                return 0;
        case SHAPE_LIST:
                return read_list(m, v, field, err);
        default:
                return read_number(m, v, field, err);
        }
}

/* What members mean together: the gateway may rely on it. */
static int check_entry(const struct channel_entry *e, struct err **err)
{
        bool http = e->transport != TRANSPORT_STDIO;

        if ((e->readiness == READINESS_DOWN) != (e->why != NULL))
                return err_set(err, ERR_INVALID, "link message: \"down_why\" goes with readiness \"down\", and only with it");
        if (!http && (e->address || e->port || e->path))
                return err_set(err, ERR_INVALID, "link message: \"address\", \"port\" and \"path\" go with an HTTP server only");
        if ((e->tls_host && !http) || (e->tls_pins && !e->tls_host))
                return err_set(err, ERR_INVALID, "link message: \"tls_host\" goes with an HTTP server, and \"tls_pins\" with it");
        if (e->readiness != READINESS_UP)
                return 0;
        if (channel_entry_has_instances(e))
                return err_set(err, ERR_INVALID, "link message: a server with an instance for every session is never \"up\" itself");
        if (!e->instance || (http && (!e->address || !e->port || !e->path)))
                return err_set(err, ERR_INVALID, "link message: a server that is up has an \"instance\", and by HTTP a place");
        return 0;
}

static int read_members(struct channel_message *ret, json_object *o, struct err **err)
{
        size_t taken = 1; /* "kind" */

        for (size_t i = 0; i < ELEMENTSOF(members); i++) {
                const struct member *m = &members[i];
                json_object *v = NULL;
                bool there = json_object_object_get_ex(o, m->key, &v);

                if (!there && m->required & IN(ret->kind))
                        return bad(m, "is missing", err);
                if (there && !(m->allowed & IN(ret->kind)))
                        return bad(m, "does not go with this kind", err);
                if (there && read_member(m, v, ret, err) < 0)
                        return -1;
                taken += there;
        }
        if ((size_t)json_object_object_length(o) != taken)
                return err_set(err, ERR_INVALID, "link message: it has a member that is not known");
        if (ret->kind == CHANNEL_STATE && strv_len(ret->troubles) > CHANNEL_MAX_TROUBLES)
                return err_set(err, ERR_LIMIT, "link message: more than %u troubles", CHANNEL_MAX_TROUBLES);
        return ret->kind == CHANNEL_SERVER ? check_entry(&ret->entry, err) : 0;
}

int channel_parse(struct channel_message *ret, const char *text, size_t n, struct err **err)
{
        const struct json_limits limits = {.max_bytes = CHANNEL_MAX_PACKET, .max_depth = 4};
        const struct member kind = {.key = "kind", .words = kind_words};
        _cleanup_(channel_message_deinit) struct channel_message m = {0};
        _cleanup_json_ json_object *o = NULL;

        if (json_parse(&o, text, n, "link message", &limits, err) < 0)
                return -1;
        if (!json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "link message: not a JSON object");
        if (read_word(&kind, json_get(o, "kind"), &m.kind, err) < 0 || read_members(&m, o, err) < 0)
                return -1;
        *ret = m;
        m = (struct channel_message){0};
        return 0;
}

/* -- writing -------------------------------------------------------------------------------------------------------------------- */

static void add_number(json_object *o, const struct member *m, const void *field)
{
        uint64_t n = m->shape == SHAPE_NUMBER16   ? *(const uint16_t *)field
                     : m->shape == SHAPE_NUMBER32 ? *(const unsigned *)field
                                                  : *(const uint64_t *)field;

        if ((int64_t)n >= m->min) /* 0 stands for absent where it is no value */
                json_add_int(o, m->key, (int64_t)n);
}

static void add_member(json_object *o, const struct member *m, const struct channel_message *message)
{
        const void *field = (const char *)message + m->offset;
        unsigned word;

        switch (m->shape) {
        case SHAPE_TEXT:
                json_add_str(o, m->key, *(char *const *)field);
                break;
        case SHAPE_WORD:
                memcpy(&word, field, sizeof(word));
                json_add_str(o, m->key, m->words[word]);
                break;
        case SHAPE_FLAG:
                json_add_bool(o, m->key, *(const bool *)field);
                break;
        case SHAPE_LIST:
                if (*(char **const *)field)
                        json_add(o, m->key, json_from_strv(*(char **const *)field));
                break;
        default:
                add_number(o, m, field);
        }
}

char *channel_format(const struct channel_message *m)
{
        _cleanup_json_ json_object *o = json_object_new_object();

        json_add_str(o, "kind", kind_words[m->kind]);
        for (size_t i = 0; i < ELEMENTSOF(members); i++)
                if (members[i].allowed & IN(m->kind))
                        add_member(o, &members[i], m);
        return mem_strdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* -- values --------------------------------------------------------------------------------------------------------------------- */

bool channel_entry_has_instances(const struct channel_entry *e)
{
        return e->transport == TRANSPORT_STDIO && e->per_session;
}

void channel_entry_deinit(struct channel_entry *e)
{
        free(e->name);
        free(e->why);
        free(e->instance);
        free(e->address);
        free(e->path);
        free(e->tls_host);
        strv_free(e->tls_pins);
        strv_free(e->headers);
        free(e->prefix);
        free(e->manifest);
        strv_free(e->tools);
        strv_free(e->actions);
        strv_free(e->pins);
        *e = (struct channel_entry){0};
}

/* An empty list stays one: no tool is approved, which is not the same as none being withheld. */
static char **copy_list(char *const *list)
{
        size_t n = strv_len(list);

        if (!list)
                return NULL;
        char **copy = mem_alloc((n + 1) * sizeof(char *));
        for (size_t i = 0; i < n; i++)
                copy[i] = mem_strdup(list[i]);
        return copy;
}

void channel_entry_copy(struct channel_entry *ret, const struct channel_entry *e)
{
        *ret = *e;
        ret->name = mem_strdup(e->name);
        ret->why = mem_strdup(e->why);
        ret->instance = mem_strdup(e->instance);
        ret->address = mem_strdup(e->address);
        ret->path = mem_strdup(e->path);
        ret->tls_host = mem_strdup(e->tls_host);
        ret->tls_pins = copy_list(e->tls_pins);
        ret->headers = copy_list(e->headers);
        ret->prefix = mem_strdup(e->prefix);
        ret->manifest = mem_strdup(e->manifest);
        ret->tools = copy_list(e->tools);
        ret->actions = copy_list(e->actions);
        ret->pins = copy_list(e->pins);
}

bool channel_entry_equal(const struct channel_entry *a, const struct channel_entry *b)
{
        return str_eq(a->name, b->name) && a->transport == b->transport && a->lifecycle == b->lifecycle && a->readiness == b->readiness &&
               str_eq(a->why, b->why) && str_eq(a->instance, b->instance) && str_eq(a->address, b->address) && a->port == b->port &&
               str_eq(a->path, b->path) && str_eq(a->tls_host, b->tls_host) && strv_equal(a->tls_pins, b->tls_pins) &&
               strv_equal(a->headers, b->headers) && str_eq(a->prefix, b->prefix) && a->per_session == b->per_session &&
               str_eq(a->manifest, b->manifest) && strv_equal(a->tools, b->tools) && strv_equal(a->actions, b->actions) &&
               a->pinned == b->pinned && strv_equal(a->pins, b->pins) && a->idle_ms == b->idle_ms && a->expires_at == b->expires_at;
}

void channel_message_deinit(struct channel_message *m)
{
        channel_entry_deinit(&m->entry);
        free(m->why);
        free(m->call);
        free(m->by);
        free(m->text);
        strv_free(m->troubles);
        strv_free(m->differs);
        *m = (struct channel_message){0};
}
