#include "tests/unit/forge_rig.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/spawn.h"
#include "common/spec/spec.h"
#include "tests/unit/test.h"

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
#define ONES  "1111111111111111111111111111111111111111111111111111111111111111"

static void keygen(const char *const *argv)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};

        assert_ok(spawn_run(&result, &(struct spawn_options){.argv = argv}, &err));
        assert_ok(spawn_result_check(&result, "ssh-keygen", &err));
}

char *rig_make_key(struct rig *rig, const char *name)
{
        char *path = mem_printf("%s/%s", rig->dir, name);

        keygen((const char *[]){"/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path, NULL});
        return path;
}

char *rig_write(struct rig *rig, const char *name, const char *text)
{
        _cleanup_err_ struct err *err = NULL;
        char *path = mem_printf("%s/%s", rig->dir, name);

        assert_ok(file_write_atomic(path, text, strlen(text), 0644, &err));
        return path;
}

static char *public_key(const char *key)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *path = mem_printf("%s.pub", key);
        char *text = NULL;

        assert_ok(file_read(&text, NULL, path, 65536, FILE_ANY, &err));
        return text;
}

static void trust(struct rig *rig, const char *before, const char *principal, const char *options, const char *key)
{
        _cleanup_free_ char *public = public_key(key);
        _cleanup_free_ char *text = mem_printf("%s%s %s%s%s", before, principal, options ? options : "", options ? " " : "", public);

        free(rig_write(rig, "allowed_signers", text));
}

void rig_trust(struct rig *rig, const char *principal, const char *options, const char *key)
{
        trust(rig, "", principal, options, key);
}

void rig_trust_add(struct rig *rig, const char *principal, const char *options, const char *key)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_free_ char *before = NULL;

        assert_ok(file_read(&before, NULL, rig->conf.allowed_signers, 65536, FILE_ANY, &err));
        trust(rig, before, principal, options, key);
}

char *rig_sign(const char *key, const char *name_space, const char *text)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};
        const char *argv[] = {"/usr/bin/ssh-keygen", "-q", "-Y", "sign", "-n", name_space, "-f", key, NULL};

        assert_ok(spawn_run(&result, &(struct spawn_options){.argv = argv, .input = text, .input_len = strlen(text)}, &err));
        assert_ok(spawn_result_check(&result, "ssh-keygen", &err));
        return mem_strdup(result.out.data);
}

void rig_init(struct rig *rig)
{
        char template[] = "/tmp/forge-XXXXXX";

        *rig = (struct rig){.dir = mem_strdup(mkdtemp(template))};
        assert_non_null(rig->dir);
        rig->conf.audience = mem_strdup("vps1.example.org");
        rig->conf.approvals_repository = mem_printf("%s/approvals.git", rig->dir);
        rig->conf.approvals_ref = mem_strdup("refs/heads/main");
        rig->conf.signatures_required = true;
        rig->conf.allowed_signers = mem_printf("%s/allowed_signers", rig->dir);
        rig->conf.service_user = mem_strdup("root");
        rig->conf.allowed_registries = strv_append(NULL, "registry.example");
        rig->key = rig_make_key(rig, "alice");
        rig->mallory = rig_make_key(rig, "mallory");
        rig_trust(rig, "alice@example.org", "namespaces=\"" RECORD_NAMESPACE "\"", rig->key);
}

static int remove_one(const char *path, _unused_ const struct stat *st, _unused_ int flag, _unused_ struct FTW *at)
{
        return remove(path);
}

void rig_deinit(struct rig *rig)
{
        nftw(rig->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        free(rig->dir);
        free(rig->key);
        free(rig->mallory);
        free(rig->conf.audience);
        free(rig->conf.approvals_repository);
        free(rig->conf.approvals_ref);
        free(rig->conf.allowed_signers);
        free(rig->conf.revoked_keys);
        free(rig->conf.service_user);
        free(rig->conf.helper_dir);
        strv_free(rig->conf.allowed_registries);
        *rig = (struct rig){0};
}

/* -- records --------------------------------------------------------------------------------------------------------------- */

static json_object *parse(const char *text)
{
        _cleanup_err_ struct err *err = NULL;
        json_object *o = NULL;

        assert_ok(json_parse(&o, text, strlen(text), "test", NULL, &err));
        return o;
}

struct registry_entry *rig_entry(struct rig *rig, const char *extra_json)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ json_object *o = parse("{\"source\":\"docker_image\",\"image\":\"registry.example/mcp/github:1.4@sha256:" ONES "\","
                                              "\"transport\":\"stdio\",\"secrets\":[\"GITHUB_TOKEN\"],"
                                              "\"egress\":[{\"cidr\":\"192.0.2.0/24\",\"protocol\":\"tcp\",\"ports\":[443]}]}");
        struct registry_entry *entry = NULL;

        if (extra_json) {
                _cleanup_json_ json_object *extra = parse(extra_json);
                json_object_object_foreach (extra, key, value) {
                        json_object_object_del(o, key);
                        json_add(o, key, json_object_get(value));
                }
        }
        assert_ok(registry_entry_parse(&entry, "github", o, "test", &rig->conf, &err));
        return entry;
}

json_object *rig_record(struct rig *rig, const char *kind, unsigned serial)
{
        json_object *o = json_object_new_object();
        bool proposal = str_eq(kind, "Proposal");

        json_add_str(o, "apiVersion", "bulkhead/v1");
        json_add_str(o, "kind", kind);
        json_add_int(o, "serial", serial);
        json_add_str(o, "audience", rig->conf.audience);
        json_add_str(o, "server", "github");
        json_add_str(o, proposal ? "proposed_by" : "approved_by", proposal ? "agent-1" : "alice@example.org");
        json_add_str(o, proposal ? "proposed_at" : "approved_at", "2025-11-20T10:05:00Z");
        if (!proposal)
                return o;
        json_add(o, "source",
                 parse("{\"type\":\"docker_image\",\"reference\":\"registry.example/mcp/github:1.4\",\"digest\":\"sha256:" ONES "\"}"));
        json_add_str(o, "entry_sha256", ZEROS);
        json_add(o, "entry", parse("{\"source\":\"docker_image\",\"image\":\"registry.example/mcp/github:1.4@sha256:" ONES "\"}"));
        return o;
}

json_object *rig_approval(struct rig *rig, unsigned serial)
{
        _cleanup_err_ struct err *err = NULL;
        json_object *o = rig_record(rig, "Approval", serial);
        _cleanup_(registry_entry_freep) struct registry_entry *entry = rig_entry(rig, NULL);
        struct image_facts facts = {.reference = (char *)"registry.example/mcp/github:1.4",
                                    .digest = (char *)"sha256:" ONES,
                                    .platform = (char *)"linux/amd64",
                                    .image_id = (char *)"sha256:" ZEROS};
        _cleanup_(spec_freep) struct spec *spec = NULL;

        assert_ok(spec_build(&spec, entry, &facts, &err));
        json_add(o, "source",
                 parse("{\"type\":\"docker_image\",\"reference\":\"registry.example/mcp/github:1.4\",\"digest\":\"sha256:" ONES
                       "\",\"platform\":\"linux/amd64\",\"image_id\":\"sha256:" ZEROS "\"}"));
        json_add_str(o, "entry_sha256", entry->entry_sha256);
        json_add_str(o, "spec_sha256", spec->hex);
        json_add_str(o, "manifest_sha256", ZEROS);
        json_add(o, "tools", parse("[\"create_issue\",\"get_me\"]"));
        json_add(o, "secrets", parse("[\"GITHUB_TOKEN\"]"));
        json_add(o, "egress", parse("[\"tcp 192.0.2.0/24:443\"]"));
        json_add(o, "smoke_test",
                 parse("{\"result\":\"pass\",\"at\":\"2025-11-20T10:00:00Z\",\"protocol\":\"2025-11-25\",\"duration_ms\":812}"));
        json_add_str(o, "expires_at", "2026-05-20T00:00:00Z");
        return o;
}

/* -- commits --------------------------------------------------------------------------------------------------------------- */

char *rig_commit_record(struct rig *rig, json_object *record, const char *key)
{
        _cleanup_err_ struct err *err = NULL;
        _cleanup_json_ _unused_ json_object *owned = record;
        char *id = NULL;
        _cleanup_free_ char *text = record_write(record, &id), *sig = key ? rig_sign(key, RECORD_NAMESPACE, text) : NULL;
        _cleanup_free_ char *path = mem_printf("%s/%s.yaml", json_str(record, "server"), id), *sig_path = mem_printf("%s.sig", path);
        struct repo_file files[] = {{path, text, strlen(text)}, {sig_path, sig, sig ? strlen(sig) : 0}};

        assert_ok(repo_commit(&rig->conf, files, sig ? 2 : 1, "alice@example.org", "test", NULL, &err));
        return id;
}

static git_repository *open_repo(struct rig *rig)
{
        git_repository *repo = NULL;

        assert_int_equal(git_repository_open_bare(&repo, rig->conf.approvals_repository), 0);
        return repo;
}

char *rig_tip(struct rig *rig)
{
        git_repository *repo = open_repo(rig);
        git_oid id;

        assert_int_equal(git_reference_name_to_id(&id, repo, rig->conf.approvals_ref), 0);
        git_repository_free(repo);
        return mem_strdup(git_oid_tostr_s(&id));
}

void rig_move_ref(struct rig *rig, const char *commit)
{
        git_repository *repo = open_repo(rig);
        git_reference *ref = NULL;
        git_oid id;

        assert_int_equal(git_oid_fromstr(&id, commit), 0);
        assert_int_equal(git_reference_create(&ref, repo, rig->conf.approvals_ref, &id, 1, "test"), 0);
        git_reference_free(ref);
        git_repository_free(repo);
}

void rig_rewrite(struct rig *rig, const char *path, const char *data, git_filemode_t mode, bool parent)
{
        git_repository *repo = open_repo(rig);
        _cleanup_free_ char *tip = rig_tip(rig);
        git_tree_update update = {.action = data ? GIT_TREE_UPDATE_UPSERT : GIT_TREE_UPDATE_REMOVE, .filemode = mode, .path = path};
        git_commit *commit = NULL;
        git_tree *base = NULL, *tree = NULL;
        git_signature *who = NULL;
        git_oid id, tree_id;

        git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 0);
        git_oid_fromstr(&id, tip);
        assert_int_equal(git_commit_lookup(&commit, repo, &id), 0);
        assert_int_equal(git_commit_tree(&base, commit), 0);
        if (data && mode == GIT_FILEMODE_COMMIT)
                update.id = id;
        else if (data)
                assert_int_equal(git_blob_create_from_buffer(&update.id, repo, data, strlen(data)), 0);
        assert_int_equal(git_tree_create_updated(&tree_id, repo, base, 1, &update), 0);
        assert_int_equal(git_tree_lookup(&tree, repo, &tree_id), 0);
        assert_int_equal(git_signature_now(&who, "mallory", "mallory@example.org"), 0);
        assert_int_equal(git_commit_create(&id, repo, NULL, who, who, NULL, "test", tree, parent ? 1 : 0, (const git_commit *[]){commit}),
                         0);
        git_signature_free(who);
        git_tree_free(tree);
        git_tree_free(base);
        git_commit_free(commit);
        git_repository_free(repo);
        rig_move_ref(rig, git_oid_tostr_s(&id));
}

void rig_raw_root(struct rig *rig, const char *const *names, size_t n)
{
        git_repository *repo = open_repo(rig);
        _cleanup_free_ char *tip = rig_tip(rig);
        _cleanup_buf_ struct buf raw = {0};
        git_object *server = NULL;
        git_commit *parent = NULL;
        git_tree *tree = NULL;
        git_signature *who = NULL;
        git_odb *odb = NULL;
        git_oid id, tree_id;

        git_oid_fromstr(&id, tip);
        assert_int_equal(git_commit_lookup(&parent, repo, &id), 0);
        assert_int_equal(git_revparse_single(&server, repo, "refs/heads/main:github"), 0);
        for (size_t i = 0; i < n; i++) {
                buf_addf(&raw, "40000 %s", names[i]);
                buf_addc(&raw, '\0');
                buf_add(&raw, git_object_id(server)->id, GIT_OID_RAWSZ);
        }
        assert_int_equal(git_repository_odb(&odb, repo), 0);
        assert_int_equal(git_odb_write(&tree_id, odb, raw.data, raw.len, GIT_OBJECT_TREE), 0);
        assert_int_equal(git_tree_lookup(&tree, repo, &tree_id), 0);
        assert_int_equal(git_signature_now(&who, "mallory", "mallory@example.org"), 0);
        assert_int_equal(git_commit_create(&id, repo, NULL, who, who, NULL, "test", tree, 1, (const git_commit *[]){parent}), 0);
        git_signature_free(who);
        git_tree_free(tree);
        git_object_free(server);
        git_commit_free(parent);
        git_odb_free(odb);
        git_repository_free(repo);
        rig_move_ref(rig, git_oid_tostr_s(&id));
}

struct forge_view *rig_read(struct rig *rig, const struct forge_state *state, time_t now)
{
        static const struct forge_state empty;
        _cleanup_err_ struct err *err = NULL;
        struct forge_view *view = NULL;

        assert_ok(forge_read(&view, &rig->conf, state ? state : &empty, now, &err));
        return view;
}

const struct forge_item *rig_item(const struct forge_view *view, const char *id)
{
        for (size_t i = 0; i < view->n_items; i++)
                if (strstr(view->items[i].path, id))
                        return &view->items[i];
        return NULL;
}

/* -- for cmocka ------------------------------------------------------------------------------------------------------------------ */
int rig_setup(void **state)
{
        struct rig *rig = NEW(struct rig);

        rig_init(rig);
        *state = rig;
        return 0;
}

int rig_teardown(void **state)
{
        rig_deinit(*state);
        free(*state);
        return 0;
}

void rig_assert_refused(const struct forge_view *view, const char *id, enum forge_refusal refusal, const char *says)
{
        const struct forge_item *item = rig_item(view, id);

        assert_non_null(item);
        assert_non_null(item->refused);
        if (!strstr(item->refused, says))
                print_error("%s: %s\n", item->path, item->refused);
        assert_non_null(strstr(item->refused, says));
        assert_int_equal(item->refusal, refusal);
}

void rig_assert_counts(const struct forge_view *view, const char *id)
{
        const struct forge_item *item = rig_item(view, id);

        assert_non_null(item);
        if (item->refused)
                print_error("%s: %s\n", item->path, item->refused);
        assert_null(item->refused);
        assert_int_not_equal(item->accepted_at, 0);
}
