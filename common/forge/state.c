#include "common/forge/state.h"

#include <inttypes.h>

#define STATE_VERSION 1
#define MAX_INTEGER   (INT64_C(1) << 53)

struct forge_state *forge_state_free(struct forge_state *s)
{
        if (!s)
                return NULL;
        for (size_t i = 0; i < s->n_accepted; i++) {
                free(s->accepted[i].id);
                free(s->accepted[i].server);
                free(s->accepted[i].sha256);
        }
        for (size_t i = 0; i < s->n_serials; i++)
                free(s->serials[i].server);
        for (size_t i = 0; i < s->n_verified; i++) {
                free(s->verified[i].key);
                free(s->verified[i].signer);
        }
        free(s->commit);
        free(s->accepted);
        free(s->serials);
        free(s->verified);
        strv_free(s->revoked);
        free(s);
        return NULL;
}

void state_add_accepted(struct forge_state *s, const char *id, const char *server, const char *sha256, time_t at)
{
        s->accepted = mem_realloc(s->accepted, s->n_accepted + 1, sizeof(*s->accepted));
        s->accepted[s->n_accepted++] = (struct forge_accepted){mem_strdup(id), mem_strdup(server), mem_strdup(sha256), at};
}

void state_add_verified(struct forge_state *s, const char *key, const char *signer)
{
        s->verified = mem_realloc(s->verified, s->n_verified + 1, sizeof(*s->verified));
        s->verified[s->n_verified++] = (struct forge_verified){mem_strdup(key), mem_strdup(signer)};
}

void state_raise_serial(struct forge_state *s, const char *server, uint64_t serial)
{
        for (size_t i = 0; i < s->n_serials; i++)
                if (str_eq(s->serials[i].server, server)) {
                        s->serials[i].serial = MAX(s->serials[i].serial, serial);
                        return;
                }
        s->serials = mem_realloc(s->serials, s->n_serials + 1, sizeof(*s->serials));
        s->serials[s->n_serials++] = (struct forge_serial){mem_strdup(server), serial};
}

uint64_t state_serial(const struct forge_state *s, const char *server)
{
        for (size_t i = 0; i < s->n_serials; i++)
                if (str_eq(s->serials[i].server, server))
                        return s->serials[i].serial;
        return 0;
}

void state_add_revoked(struct forge_state *s, const char *what)
{
        if (!strv_contains(s->revoked, what))
                s->revoked = strv_append(s->revoked, what);
}

bool forge_state_revokes(const struct forge_state *s, const struct record *approval)
{
        size_t n = strlen(approval->server);

        for (char **r = s->revoked; r && *r; r++) {
                if (str_eq(*r, approval->id))
                        return true;
                if (strncmp(*r, approval->server, n) == 0 && (*r)[n] == '<' && approval->serial < strtoull(*r + n + 1, NULL, 10))
                        return true;
        }
        return false;
}

struct forge_state *state_copy(const struct forge_state *s)
{
        struct forge_state *c = NEW(struct forge_state);

        c->commit = mem_strdup(s->commit);
        for (size_t i = 0; i < s->n_accepted; i++)
                state_add_accepted(c, s->accepted[i].id, s->accepted[i].server, s->accepted[i].sha256, s->accepted[i].at);
        c->revoked = strv_dup(s->revoked);
        for (size_t i = 0; i < s->n_serials; i++)
                state_raise_serial(c, s->serials[i].server, s->serials[i].serial);
        c->time_floor = s->time_floor;
        return c;
}

/* -- JSON ------------------------------------------------------------------------------------------------------------------ */

json_object *forge_state_to_json(const struct forge_state *s)
{
        json_object *o = json_object_new_object(), *accepted = json_object_new_array(), *serials = json_object_new_object();

        json_add_int(o, "version", STATE_VERSION);
        json_add_str(o, "commit", s->commit);
        for (size_t i = 0; i < s->n_accepted; i++) {
                json_object *a = json_object_new_object();
                json_add_str(a, "id", s->accepted[i].id);
                json_add_str(a, "server", s->accepted[i].server);
                json_add_str(a, "sha256", s->accepted[i].sha256);
                json_add_int(a, "at", s->accepted[i].at);
                json_object_array_add(accepted, a);
        }
        json_add(o, "accepted", accepted);
        json_add(o, "revoked", json_from_strv(s->revoked));
        for (size_t i = 0; i < s->n_serials; i++)
                json_add_int(serials, s->serials[i].server, (int64_t)s->serials[i].serial);
        json_add(o, "serials", serials);
        json_add_int(o, "time_floor", s->time_floor);
        return o;
}

static int fault(struct err **err, const char *what)
{
        return err_set(err, ERR_INVALID,
                       "the approvals state is not whole (%s): nothing is trusted by it. Restore the state directory from a backup, or "
                       "start it anew "
                       "after checking the approvals repository by hand",
                       what);
}

static int read_accepted(struct forge_state *s, json_object *list, struct err **err)
{
        if (!json_object_is_type(list, json_type_array) || json_object_array_length(list) > FORGE_MAX_RECORDS)
                return fault(err, "accepted");
        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *a = json_object_array_get_idx(list, i);
                const char *id = json_str(a, "id"), *server = json_str(a, "server"), *sha256 = json_str(a, "sha256");
                int64_t at = json_int(a, "at", 0);
                if (!record_id_valid(id) || !server || !registry_name_valid(server) || !sha256 || !str_is_hex(sha256, 64) || at <= 0)
                        return fault(err, "accepted");
                state_add_accepted(s, id, server, sha256, (time_t)at);
        }
        return 0;
}

static bool revoked_valid(const char *s)
{
        const char *mark = strchr(s, '<');
        _cleanup_free_ char *server = mark ? mem_strndup(s, (size_t)(mark - s)) : NULL;

        if (!mark)
                return record_id_valid(s);
        return registry_name_valid(server) && mark[1] && strlen(mark + 1) <= 16 && str_in_charset(mark + 1, "0123456789");
}

static int read_revoked(struct forge_state *s, json_object *list, struct err **err)
{
        if (!json_object_is_type(list, json_type_array) || !json_to_strv(&s->revoked, list) || strv_len(s->revoked) > 2 * FORGE_MAX_RECORDS)
                return fault(err, "revoked");
        for (char **r = s->revoked; r && *r; r++)
                if (!revoked_valid(*r))
                        return fault(err, "revoked");
        return 0;
}

static int read_serials(struct forge_state *s, json_object *serials, struct err **err)
{
        if (!json_object_is_type(serials, json_type_object))
                return fault(err, "serials");
        json_object_object_foreach (serials, server, value) {
                int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : 0;
                if (!registry_name_valid(server) || n < 1 || n > MAX_INTEGER)
                        return fault(err, "serials");
                state_raise_serial(s, server, (uint64_t)n);
        }
        return 0;
}

int forge_state_from_json(struct forge_state **ret, json_object *o, struct err **err)
{
        _cleanup_(forge_state_freep) struct forge_state *s = NEW(struct forge_state);
        json_object *floor;

        if (!json_object_is_type(o, json_type_object) || json_int(o, "version", 0) != STATE_VERSION)
                return fault(err, "version");
        s->commit = mem_strdup(json_str(o, "commit"));
        if (s->commit ? !str_is_hex(s->commit, 40) : json_object_object_get_ex(o, "commit", NULL))
                return fault(err, "commit");
        if (read_accepted(s, json_get(o, "accepted"), err) < 0 || read_revoked(s, json_get(o, "revoked"), err) < 0 ||
            read_serials(s, json_get(o, "serials"), err) < 0)
                return -1;
        floor = json_get(o, "time_floor");
        if (!json_object_is_type(floor, json_type_int) || json_object_get_int64(floor) < 0)
                return fault(err, "time_floor");
        s->time_floor = (time_t)json_object_get_int64(floor);
        if (!s->commit && s->n_accepted)
                return fault(err, "records without a commit");
        *ret = TAKE_PTR(s);
        return 0;
}
