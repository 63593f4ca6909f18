#include "controller/egress/round.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/file.h"
#include "controller/egress/watch.h"

#define NFT              "/usr/sbin/nft"
#define IPSET            "/usr/sbin/ipset"
#define IPTABLES_RESTORE "/usr/sbin/iptables-restore"
#define IPTABLES_SAVE    "/usr/sbin/iptables-save"
#define LEGACY_SAVE      "/usr/sbin/iptables-legacy-save"
#define NFT_SAVE         "/usr/sbin/iptables-nft-save"
#define LEGACY_NAMES     "/proc/net/ip_tables_names"

#define MAX_OUTPUT (128U << 20)

/* -- running programs ------------------------------------------------------------------------------------------------------ */

static int take_guard(struct round *r, const struct spawn_result *result, struct err **err)
{
        _cleanup_guard_state_ struct guard_state s = {};
        _cleanup_err_ struct err *unreadable = NULL;
        bool strange;

        r->guard_exists = r->guard_right = false;
        free(r->e->known.elements);
        r->e->known.elements = NULL;
        r->e->known.n_elements = r->e->known.cap_elements = 0;
        if (result->status != 0) {
                /* Only a table that is not there is a state; any other failure is one. */
                if (result->errors.data && strstr(result->errors.data, "No such file or directory"))
                        return 0;
                return spawn_result_check(result, "reading the guard back (" NFT ")", err);
        }
        r->guard_exists = true;
        /* nft 1.0.6 prints what is not JSON when the table has flags. Whatever it is, it is not our guard. */
        if (guard_state_parse(&s, result->out.data ? result->out.data : "", result->out.len, &strange, &unreadable) < 0) {
                if (!r->err)
                        r->err = TAKE_PTR(unreadable);
                return 0;
        }
        r->guard_right = !strange && s.hooks == GUARD_HOOKS && str_eq(s.form, r->e->form);
        r->e->known.elements = TAKE_PTR(s.rules.elements);
        r->e->known.n_elements = s.rules.n_elements;
        r->e->known.cap_elements = s.rules.cap_elements;
        return 0;
}

static int take_reference(struct round *r, const struct spawn_result *result, struct err **err)
{
        _cleanup_guard_state_ struct guard_state s = {};
        bool strange;

        if (spawn_result_check(result, NFT, err) < 0 ||
            guard_state_parse(&s, result->out.data ? result->out.data : "", result->out.len, &strange, err) < 0)
                return -1;
        memcpy(r->e->form, s.form, sizeof(s.form));
        return 0;
}

static int take_backend(struct round *r, const struct spawn_result *result, struct err **err)
{
        if (spawn_result_check(result, IPTABLES_RESTORE, err) < 0)
                return -1;
        r->e->backend = result->out.data && strstr(result->out.data, "nf_tables") ? BACKEND_NFT : BACKEND_LEGACY;
        return 0;
}

/* Rules in both: packets pass both, and each tool shows half of the truth. */
static int take_other_backend(struct round *r, const struct spawn_result *result, struct err **err)
{
        if (result->status != 0 || !result->out.data || !policy_text_has_rules(result->out.data))
                return 0;
        return err_set(err, ERR_CONFLICT,
                       "this host has firewall rules of both iptables-legacy and iptables-nft (%s is the %s one): "
                       "move the rules of the other one over and flush it, or select it with update-alternatives --config iptables",
                       IPTABLES_RESTORE, r->e->backend == BACKEND_NFT ? "nft" : "legacy");
}

static int take(struct round *r, enum step step, const struct spawn_result *result, struct err **err)
{
        switch (step) {
        case STEP_BACKEND:
                return take_backend(r, result, err);
        case STEP_OTHER_BACKEND:
                return take_other_backend(r, result, err);
        case STEP_READ_REFERENCE:
                return take_reference(r, result, err);
        case STEP_READ_GUARD:
                return take_guard(r, result, err);
        case STEP_READ_POLICY:
                if (spawn_result_check(result, "reading the policy back (" IPTABLES_SAVE ")", err) < 0)
                        return -1;
                policy_state_parse(&r->e->policy, result->out.data ? result->out.data : "", r->e->guard.mark);
                return 0;
        case STEP_REFERENCE:
        case STEP_DROP_REFERENCE:
        case STEP_WRITE_GUARD:
        case STEP_CHANGE_GUARD:
                return spawn_result_check(result, "loading the guard (" NFT ")", err);
        case STEP_WRITE_SET:
                return spawn_result_check(result, "filling the allow-list (" IPSET ")", err);
        default:
                return spawn_result_check(result, "loading the policy (" IPTABLES_RESTORE ")", err);
        }
}

static bool writes_nft(enum step step)
{
        return step == STEP_REFERENCE || step == STEP_DROP_REFERENCE || step == STEP_WRITE_GUARD || step == STEP_CHANGE_GUARD ||
               step == STEP_WRITE_POLICY;
}

static void on_spawn(struct spawn_result *result, struct err *err, void *user)
{
        struct round *r = user;
        enum step step = r->steps[r->at];
        struct err *mine = NULL;

        r->spawn = NULL;
        if (writes_nft(step))
                watch_own_end(r->e->watch);
        if (err)
                mine = err_dup(err);
        else
                (void)take(r, step, result, &mine);
        if (mine) {
                round_step_failed(r, step, mine);
                return;
        }
        r->at++;
        round_next(r);
}

/* Programs read their text from a file in memory, as descriptor 3: 6 MB of entries are not fed through a pipe piece by piece. */
static int text_file(int *ret, const struct buf *text, struct err **err)
{
        _cleanup_fd_ int fd = memfd_create("bulkhead-rules", MFD_CLOEXEC);

        if (fd < 0)
                return err_sys(err, errno, "no memory for the rules' text");
        if (fd_write_all(fd, text->data, text->len, err) < 0)
                return -1;
        if (lseek(fd, 0, SEEK_SET) < 0)
                return err_sys(err, errno, "cannot rewind the rules' text");
        *ret = TAKE_FD(fd);
        return 0;
}

static void run(struct round *r, const char *const *argv, const struct buf *text)
{
        _cleanup_fd_ int fd = -1;
        const struct spawn_options options = {
                .argv = argv,
                .max_output = MAX_OUTPUT,
                .timeout_ms = 20000,
                .pass_fds = &fd,
                .n_pass_fds = text ? 1 : 0,
        };
        struct err *err = NULL;
        enum step step = r->steps[r->at];

        if (writes_nft(step))
                watch_own_begin(r->e->watch);
        if ((text && text_file(&fd, text, &err) < 0) || spawn_start(&r->spawn, r->e->loop, &options, on_spawn, r, &err) < 0) {
                if (writes_nft(step))
                        watch_own_end(r->e->watch);
                round_finish(r, err);
        }
}

static void run_text(struct round *r, enum step step)
{
        static const char *const nft[] = {NFT, "-f", "/dev/fd/3", NULL};
        static const char *const ipset[] = {IPSET, "-exist", "-file", "/dev/fd/3", "restore", NULL};
        static const char *const iptables[] = {IPTABLES_RESTORE, "-w", "--noflush", "/dev/fd/3", NULL};
        _cleanup_buf_ struct buf text = {};

        if (step == STEP_REFERENCE)
                guard_text_reference(&text, &r->e->guard, REFERENCE_TABLE);
        else if (step == STEP_DROP_REFERENCE)
                buf_adds(&text, "delete table inet " REFERENCE_TABLE "\n");
        else if (step == STEP_WRITE_GUARD)
                guard_text_replace(&text, &r->e->guard, &r->target);
        else if (step == STEP_CHANGE_GUARD)
                guard_text_change(&text, &r->delta);
        else if (step == STEP_WRITE_SET) {
                if (r->set_strange)
                        buf_adds(&text, "flush " POLICY_SET "\n");
                policy_text_set(&text, &r->delta, !r->set_exists);
        } else {
                policy_text_load(&text, r->e->guard.mark, &r->e->policy);
        }
        run(r, step == STEP_WRITE_SET ? ipset : step == STEP_WRITE_POLICY ? iptables : nft, &text);
}

static void run_other_backend(struct round *r)
{
        static const char *const legacy[] = {LEGACY_SAVE, NULL};
        /* Without root the list of tables is not readable, so the one that matters is named (and made, empty, where it was not). */
        static const char *const legacy_filter[] = {LEGACY_SAVE, "-t", "filter", NULL};
        static const char *const nft[] = {NFT_SAVE, "-t", "filter", NULL};
        const char *const *argv = r->e->backend == BACKEND_LEGACY ? nft : access(LEGACY_NAMES, R_OK) == 0 ? legacy : legacy_filter;

        if (access(argv[0], X_OK) < 0) {
                r->at++;
                round_next(r);
                return;
        }
        run(r, argv, NULL);
}

/* -- netlink --------------------------------------------------------------------------------------------------------------- */

static void on_set(struct set_state *state, struct err *err, void *user)
{
        struct round *r = user;
        struct rules *known = &r->e->known;

        r->set_dump = NULL;
        if (!err && state->exists && !state->form_right)
                err_set(&r->set_err, ERR_CONFLICT,
                        "the set " POLICY_SET " exists in another form: remove it (iptables -F " POLICY_CHAIN "; ipset destroy " POLICY_SET
                        ")");
        if (err || r->set_err) {
                round_finish(r, err ? err_dup(err) : TAKE_PTR(r->set_err));
                return;
        }
        r->set_exists = state->exists;
        r->set_strange = state->strange;
        r->set_right = state->exists && !state->strange;
        free(known->entries);
        /* Where it is flushed, all entries have to be added again. */
        known->entries = r->set_right ? TAKE_PTR(state->rules.entries) : NULL;
        known->n_entries = r->set_right ? state->rules.n_entries : 0;
        known->cap_entries = known->n_entries;
        r->at++;
        round_next(r);
}

static void run_set_dump(struct round *r)
{
        struct err *err = NULL;

        if (set_dump_start(&r->set_dump, r->e->loop, on_set, r, &err) < 0)
                round_finish(r, err);
}

static void on_conntrack(struct err *err, void *user)
{
        struct round *r = user;

        r->conntrack = NULL;
        if (err) {
                round_finish(r, err_dup(err));
                return;
        }
        r->at++;
        round_next(r);
}

static int address_cmp(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

static size_t pair_addresses(uint32_t *out, const struct rules *rules)
{
        size_t n = 0;

        for (size_t i = 0; i < rules->n_elements; i++)
                if (rules->elements[i].set == SET_PAIRS)
                        out[n++] = rules->elements[i].address;
        return n;
}

/* Flows of addresses that come or go end; of a server that stays, only the flows of permissions it lost. */
static void run_conntrack(struct round *r)
{
        _cleanup_free_ uint32_t *addresses = NEW_N(uint32_t, r->delta.add.n_elements + r->delta.remove.n_elements + 1);
        size_t n = pair_addresses(addresses, &r->delta.add);
        struct err *err = NULL;

        n += pair_addresses(addresses + n, &r->delta.remove);
        qsort(addresses, n, sizeof(*addresses), address_cmp);
        if (conntrack_start(&r->conntrack, r->e->loop, addresses, n, r->delta.remove.entries, r->delta.remove.n_entries, on_conntrack, r,
                            &err) < 0)
                round_finish(r, err);
}

/* 1: all of it is in the kernel; 0: not. */
static int test_instance(struct round *r, const struct instance *i, struct err **err)
{
        struct element elements[GUARD_SETS];
        size_t n = egress_elements(i, elements);

        for (size_t k = 0; k < n; k++) {
                int there = set_link_test_element(r->e->set_link, &elements[k], err);
                if (there <= 0)
                        return there;
        }
        for (size_t k = 0; k < i->n_entries; k++) {
                int there = set_link_test(r->e->set_link, &i->entries[k], err);
                if (there <= 0)
                        return there;
        }
        return 1;
}

/* What was just set is there, what was taken away is not, and there is nothing beside. 1: as wished; 0: not. */
static int test(struct round *r, struct err **err)
{
        size_t count;

        if (set_link_count(r->e->set_link, &count, err) < 0)
                return -1;
        if (count != r->target.n_entries)
                return 0;
        for (size_t i = 0; i < r->delta.remove.n_elements; i++) {
                int there = set_link_test_element(r->e->set_link, &r->delta.remove.elements[i], err);
                if (there != 0)
                        return there < 0 ? -1 : 0;
        }
        for (size_t i = 0; i < r->e->n_instances; i++) {
                const struct instance *instance = r->e->instances[i];

                /* Wished for since this round began: the next one's business. */
                if (instance->in_force || instance->generation > r->generation)
                        continue;
                int right = test_instance(r, instance, err);
                if (right <= 0)
                        return right;
        }
        return 1;
}

static void run_tests(struct round *r)
{
        _cleanup_err_ struct err *err = NULL;
        struct rules *known = &r->e->known;

        if (test(r, &err) > 0) {
                free(known->entries);
                known->entries = mem_dup(r->target.entries, r->target.n_entries * sizeof(struct entry));
                known->n_entries = known->cap_entries = r->target.n_entries;
                if (!r->look) {
                        free(known->elements);
                        known->elements = mem_dup(r->target.elements, r->target.n_elements * sizeof(struct element));
                        known->n_elements = known->cap_elements = r->target.n_elements;
                }
        } else {
                /* Then all of it is looked at. */
                r->e->known_valid = false;
                round_tell(r, "sets of the guard or the policy were changed");
        }
        r->read = true;
        r->at++;
        round_next(r);
}

void step_run(struct round *r, enum step step)
{
        static const char *const read_guard[] = {NFT, "-j", "list", "table", "inet", GUARD_TABLE, NULL};
        static const char *const read_reference[] = {NFT, "-j", "list", "table", "inet", REFERENCE_TABLE, NULL};
        static const char *const read_policy[] = {IPTABLES_SAVE, "-t", "filter", NULL};
        static const char *const version[] = {IPTABLES_RESTORE, "--version", NULL};

        switch (step) {
        case STEP_BACKEND:
                run(r, version, NULL);
                return;
        case STEP_OTHER_BACKEND:
                run_other_backend(r);
                return;
        case STEP_READ_REFERENCE:
                run(r, read_reference, NULL);
                return;
        case STEP_READ_GUARD:
                r->read = true;
                run(r, read_guard, NULL);
                return;
        case STEP_READ_SET:
                run_set_dump(r);
                return;
        case STEP_READ_POLICY:
                run(r, read_policy, NULL);
                return;
        case STEP_TEST:
                run_tests(r);
                return;
        case STEP_CONNTRACK:
                run_conntrack(r);
                return;
        default:
                run_text(r, step);
        }
}
