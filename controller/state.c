#include "controller/state.h"

#include <sys/stat.h>

#include "common/file.h"
#include "common/json.h"
#include "common/log.h"

#define STATE_MAX_BYTES (32U << 20)
/* More remembered smoke tests than any host has servers; the oldest knowledge is dropped by starting anew. */
#define SMOKED_MAX 20000

static const struct json_limits limits = {.max_bytes = STATE_MAX_BYTES};

static char *path_of(const struct conf *conf, const char *name)
{
        return mem_printf("%s/%s", conf->state_dir, name);
}

static int load(json_object **ret, const char *path, struct err **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n;

        if (file_read(&text, &n, path, STATE_MAX_BYTES, FILE_TRUSTED, err) < 0)
                return -1;
        return json_parse(ret, text, n, path, &limits, err);
}

static int save(const char *path, json_object *o, struct err **err)
{
        const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);

        return file_write_atomic(path, text, strlen(text), 0640, err);
}

int state_load_forge(struct forge_state **ret, const struct conf *conf, struct err **err)
{
        _cleanup_free_ char *path = path_of(conf, "forge.json");
        _cleanup_json_ json_object *o = NULL;
        struct err *cause = NULL;

        if (load(&o, path, &cause) < 0) {
                if (err_code(cause) == ERR_NOT_FOUND) {
                        err_free(cause);
                        return err_set(err, ERR_NOT_FOUND,
                                       "the state of what this host approved is lost (%s): nothing starts. If this is a new host, run "
                                       "`bulkhead-controller --init-state`; "
                                       "else restore the file from a backup",
                                       path);
                }
                return err_move(err, cause);
        }
        if (forge_state_from_json(ret, o, err) < 0)
                return err_wrap(err, "%s", path);
        return 0;
}

int state_save_forge(const struct conf *conf, const struct forge_state *state, struct err **err)
{
        _cleanup_free_ char *path = path_of(conf, "forge.json");
        _cleanup_json_ json_object *o = forge_state_to_json(state);

        return save(path, o, err);
}

int state_init(const struct conf *conf, struct err **err)
{
        _cleanup_free_ char *path = path_of(conf, "forge.json");
        struct forge_state empty = {0};
        struct stat st;

        if (dir_make(conf->state_dir, 0750, err) < 0)
                return -1;
        if (lstat(path, &st) == 0)
                return 1;
        return state_save_forge(conf, &empty, err);
}

/* {spec hash: {"manifest", "pins"}}. The pins hang at their object as a list too, since they are asked for at every look. */
struct smoked {
        json_object *by_spec;
};

static void free_pins(_unused_ json_object *o, void *pins)
{
        strv_free(pins);
}

static void hang_pins(json_object *o, char **pins)
{
        if (pins)
                json_object_set_userdata(o, pins, free_pins);
}

static void hang_all(json_object *by_spec)
{
        json_object_object_foreach (by_spec, spec, o) {
                char **pins = NULL;

                (void)spec;
                if (json_get(o, "pins") && json_to_strv(&pins, json_get(o, "pins")))
                        hang_pins(o, pins);
        }
}

struct smoked *smoked_load(const struct conf *conf)
{
        _cleanup_free_ char *path = path_of(conf, "smoked.json");
        _cleanup_err_ struct err *err = NULL;
        struct smoked *s = NEW(struct smoked);

        if (load(&s->by_spec, path, &err) < 0 && err_code(err) != ERR_NOT_FOUND)
                log_warning("smoke tests will be made again", "reason", err_msg(err));
        if (!json_object_is_type(s->by_spec, json_type_object)) {
                json_object_put(s->by_spec);
                s->by_spec = json_object_new_object();
        }
        hang_all(s->by_spec);
        return s;
}

struct smoked *smoked_free(struct smoked *s)
{
        if (s) {
                json_object_put(s->by_spec);
                free(s);
        }
        return NULL;
}

const char *smoked_manifest(const struct smoked *s, const char *spec_hash)
{
        return json_str(json_get(s->by_spec, spec_hash), "manifest");
}

char **smoked_pins(const struct smoked *s, const char *spec_hash)
{
        json_object *o = json_get(s->by_spec, spec_hash);

        return o ? json_object_get_userdata(o) : NULL;
}

/* Without the oldest knowledge, when there is too much of it: tests are made again, which costs no more than that. */
static void make_room(struct smoked *s)
{
        size_t n = strlen(json_object_to_json_string_ext(s->by_spec, JSON_C_TO_STRING_PLAIN));

        if (json_object_object_length(s->by_spec) < SMOKED_MAX && n < STATE_MAX_BYTES / 2)
                return;
        json_object_put(s->by_spec);
        s->by_spec = json_object_new_object();
}

int smoked_remember(struct smoked *s, const struct conf *conf, const char *spec_hash, const char *manifest_sha256, char **pins,
                    struct err **err)
{
        _cleanup_free_ char *path = path_of(conf, "smoked.json");

        if (str_eq(smoked_manifest(s, spec_hash), manifest_sha256) && !pins == !smoked_pins(s, spec_hash)) {
                strv_free(pins);
                return 0;
        }
        json_object *o = json_object_new_object();
        make_room(s);
        json_add_str(o, "manifest", manifest_sha256);
        if (pins)
                json_add(o, "pins", json_from_strv(pins));
        hang_pins(o, pins);
        json_add(s->by_spec, spec_hash, o);
        return save(path, s->by_spec, err);
}
