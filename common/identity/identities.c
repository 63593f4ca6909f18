#include <sodium.h>

#include "common/file.h"
#include "common/identity/identity.h"
#include "common/text.h"

#define VERSION    1
#define MAX_KEYS   16U
#define MAX_AGENTS 10000U

struct identities *identities_free(struct identities *i)
{
        if (!i)
                return NULL;
        for (size_t n = 0; n < i->n_agents; n++)
                free(i->agents[n].name);
        free(i->agents);
        free(i->keys);
        free(i);
        return NULL;
}

static int compare_agent(const void *a, const void *b)
{
        return strcmp(((const struct identity_agent *)a)->name, ((const struct identity_agent *)b)->name);
}

const struct identity_agent *identities_find(const struct identities *i, const char *agent)
{
        const struct identity_agent key = {.name = (char *)agent};

        return i->n_agents ? bsearch(&key, i->agents, i->n_agents, sizeof(key), compare_agent) : NULL;
}

void identities_set_agent(struct identities *i, const char *agent, time_t not_before)
{
        const struct identity_agent *there = identities_find(i, agent);

        if (there) {
                i->agents[there - i->agents].not_before = not_before;
                return;
        }
        i->agents = mem_realloc(i->agents, i->n_agents + 1, sizeof(*i->agents));
        i->agents[i->n_agents++] = (struct identity_agent){mem_strdup(agent), not_before};
        qsort(i->agents, i->n_agents, sizeof(*i->agents), compare_agent);
}

bool identities_remove_agent(struct identities *i, const char *agent)
{
        const struct identity_agent *there = identities_find(i, agent);
        size_t at = there ? (size_t)(there - i->agents) : 0;

        if (!there)
                return false;
        free(i->agents[at].name);
        memmove(&i->agents[at], &i->agents[at + 1], (i->n_agents - at - 1) * sizeof(*i->agents));
        i->n_agents--;
        return true;
}

static void key_id(char out[IDENTITY_KEY_ID], const uint8_t public_key[IDENTITY_PUBLIC])
{
        char hash[SHA256_HEX];

        sha256_hex(hash, public_key, IDENTITY_PUBLIC);
        memcpy(out, hash, IDENTITY_KEY_ID - 1);
        out[IDENTITY_KEY_ID - 1] = '\0';
}

/* Keys that ended so long ago that nothing they signed can be valid are forgotten: room for new ones. */
static void forget_old(struct identities *i, time_t now)
{
        size_t kept = 0;

        for (size_t n = 0; n < i->n_keys; n++)
                if (!i->keys[n].ends_at || i->keys[n].ends_at > now)
                        i->keys[kept++] = i->keys[n];
        /* Rotated more often than tokens end: the oldest go. */
        if (kept >= MAX_KEYS) {
                memmove(i->keys, i->keys + (kept - MAX_KEYS + 1), (MAX_KEYS - 1) * sizeof(*i->keys));
                kept = MAX_KEYS - 1;
        }
        i->n_keys = kept;
}

void identities_new_key(struct identities *i, uint8_t secret[IDENTITY_SECRET], time_t now, time_t others_end)
{
        struct identity_key *key;

        for (size_t n = 0; n < i->n_keys; n++)
                if (!i->keys[n].ends_at || i->keys[n].ends_at > others_end)
                        i->keys[n].ends_at = others_end;
        forget_old(i, now);
        i->keys = mem_realloc(i->keys, i->n_keys + 1, sizeof(*i->keys));
        key = &i->keys[i->n_keys++];
        *key = (struct identity_key){.created_at = now};
        crypto_sign_keypair(key->public_key, secret);
        key_id(key->id, key->public_key);
}

/* -- JSON -------------------------------------------------------------------------------------------------------------------------- */

static void add_time(json_object *o, const char *key, time_t t)
{
        char text[TEXT_TIME_MAX];

        if (t)
                json_add_str(o, key, text_format_time(text, t));
}

json_object *identities_to_json(const struct identities *i)
{
        json_object *o = json_object_new_object(), *keys = json_object_new_array(), *agents = json_object_new_object();
        char hex[2 * IDENTITY_PUBLIC + 1];

        json_add_int(o, "version", VERSION);
        for (size_t n = 0; n < i->n_keys; n++) {
                json_object *key = json_object_new_object();
                hex_encode(hex, i->keys[n].public_key, IDENTITY_PUBLIC);
                json_add_str(key, "public", hex);
                add_time(key, "created", i->keys[n].created_at);
                add_time(key, "ends", i->keys[n].ends_at);
                json_object_array_add(keys, key);
        }
        json_add(o, "keys", keys);
        for (size_t n = 0; n < i->n_agents; n++) {
                json_object *agent = json_object_new_object();
                add_time(agent, "not_before", i->agents[n].not_before);
                json_add(agents, i->agents[n].name, agent);
        }
        json_add(o, "agents", agents);
        return o;
}

static int check_keys(json_object *o, const char *const *keys, const char *where, struct err **err)
{
        if (!json_object_is_type(o, json_type_object))
                return err_set(err, ERR_INVALID, "%s: must be an object", where);
        json_object_object_foreach (o, key, value) {
                (void)value;
                bool known = false;
                for (const char *const *k = keys; *k; k++)
                        known |= str_eq(*k, key);
                if (!known) {
                        _cleanup_free_ char *safe = text_escape(key);
                        return err_set(err, ERR_INVALID, "%s: unknown key \"%.40s\"", where, safe);
                }
        }
        return 0;
}

static int read_time(time_t *ret, json_object *o, const char *key, const char *where, struct err **err)
{
        json_object *value = json_get(o, key);

        if (!value)
                return 0;
        if (!json_object_is_type(value, json_type_string) || text_parse_time(ret, json_object_get_string(value), NULL) < 0)
                return err_set(err, ERR_INVALID, "%s: \"%s\" is not a time such as 2026-11-20T10:00:00Z", where, key);
        return 0;
}

static int read_key(struct identity_key *key, json_object *o, const char *name, struct err **err)
{
        static const char *const keys[] = {"public", "created", "ends", NULL};
        const char *hex;
        size_t n = 0;

        if (check_keys(o, keys, name, err) < 0)
                return -1;
        hex = json_str(o, "public");
        if (!hex || !str_is_hex(hex, 2 * IDENTITY_PUBLIC) ||
            sodium_hex2bin(key->public_key, IDENTITY_PUBLIC, hex, strlen(hex), NULL, &n, NULL) < 0 || n != IDENTITY_PUBLIC)
                return err_set(err, ERR_INVALID, "%s: a key's \"public\" is 64 lower-case hexadecimal digits", name);
        key_id(key->id, key->public_key);
        return read_time(&key->created_at, o, "created", name, err) < 0 ? -1 : read_time(&key->ends_at, o, "ends", name, err);
}

static int read_agents(struct identities *i, json_object *agents, const char *name, struct err **err)
{
        static const char *const keys[] = {"not_before", NULL};

        json_object_object_foreach (agents, agent, value) {
                time_t not_before = 0;

                if (!identity_name_valid(agent))
                        return err_set(err, ERR_INVALID, "%s: an agent's name is [a-z0-9-]{1,40}", name);
                if (check_keys(value, keys, name, err) < 0 || read_time(&not_before, value, "not_before", name, err) < 0)
                        return -1;
                i->agents[i->n_agents++] = (struct identity_agent){mem_strdup(agent), not_before};
        }
        qsort(i->agents, i->n_agents, sizeof(*i->agents), compare_agent);
        return 0;
}

int identities_parse(struct identities **ret, const char *text, size_t n, const char *name, struct err **err)
{
        static const char *const known[] = {"version", "keys", "agents", NULL};
        const struct json_limits limits = {.max_bytes = IDENTITY_MAX_BYTES};
        _cleanup_(identities_freep) struct identities *i = NEW(struct identities);
        _cleanup_json_ json_object *o = NULL;
        json_object *keys, *agents;

        if (json_parse(&o, text, n, name, &limits, err) < 0 || check_keys(o, known, name, err) < 0)
                return -1;
        if (json_int(o, "version", 0) != VERSION)
                return err_set(err, ERR_INVALID, "%s: \"version\" must be %d", name, VERSION);
        keys = json_get(o, "keys");
        agents = json_get(o, "agents");
        if (!json_object_is_type(keys, json_type_array) || json_object_array_length(keys) > MAX_KEYS ||
            !json_object_is_type(agents, json_type_object) || (size_t)json_object_object_length(agents) > MAX_AGENTS)
                return err_set(err, ERR_INVALID, "%s: \"keys\" is a list of at most %u, \"agents\" an object of at most %u", name, MAX_KEYS,
                               MAX_AGENTS);
        i->keys = mem_alloc(MAX_KEYS * sizeof(*i->keys));
        for (; i->n_keys < json_object_array_length(keys); i->n_keys++)
                if (read_key(&i->keys[i->n_keys], json_object_array_get_idx(keys, i->n_keys), name, err) < 0)
                        return -1;
        i->agents = mem_alloc(((size_t)json_object_object_length(agents) + 1) * sizeof(*i->agents));
        if (read_agents(i, agents, name, err) < 0)
                return -1;
        *ret = TAKE_PTR(i);
        return 0;
}

int identities_load(struct identities **ret, const char *path, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n;

        if (file_read(&text, &n, path, IDENTITY_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return -1;
        return identities_parse(ret, text, n, path, err);
}
