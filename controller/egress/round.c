#include "controller/egress/round.h"

#include <malloc.h>

/* Above this a dump is cheaper than asking for each entry. */
#define MAX_TESTS 4096

struct round *round_free(struct round *r)
{
        if (!r)
                return NULL;
        spawn_cancel(r->spawn);
        conntrack_cancel(r->conntrack);
        set_dump_cancel(r->set_dump);
        rules_deinit(&r->target);
        rules_deinit(&r->before);
        rules_delta_deinit(&r->delta);
        buf_deinit(&r->foreign);
        err_free(r->err);
        err_free(r->set_err);
        free(r->requests);
        free(r);
        return NULL;
}

void round_plan(struct round *r, enum step step)
{
        if (r->n_steps < ELEMENTSOF(r->steps))
                r->steps[r->n_steps++] = step;
}

void round_finish(struct round *r, struct err *err)
{
        _cleanup_err_ struct err *held = err;
        _cleanup_buf_ struct buf foreign = r->foreign;
        struct request *requests = TAKE_PTR(r->requests);

        r->foreign = (struct buf){};
        /* Frees the round. */
        egress_round_done(r->e, requests, r->n_requests, r->generation, foreign.len ? foreign.data : NULL, held);
}

static bool writes(enum step step)
{
        return step == STEP_WRITE_GUARD || step == STEP_CHANGE_GUARD || step == STEP_WRITE_SET || step == STEP_WRITE_POLICY;
}

/* A write that failed is not the end: somebody may have come in between. Everything is read again, a few times. */
void round_step_failed(struct round *r, enum step step, struct err *err)
{
        if (!writes(step) || r->turns >= MAX_TURNS) {
                round_finish(r, err);
                return;
        }
        r->err = err_free(r->err);
        r->err = err;
        r->n_steps = r->at = 0;
        round_plan(r, STEP_READ_GUARD);
        round_plan(r, STEP_READ_SET);
        round_plan(r, STEP_READ_POLICY);
        r->full = true;
        round_next(r);
}

void round_tell(struct round *r, const char *what)
{
        buf_addf(&r->foreign, "%s%s", r->foreign.len ? "; " : "", what);
}

static void plan_read(struct round *r, bool full)
{
        if (!r->e->form[0]) {
                round_plan(r, STEP_BACKEND);
                round_plan(r, STEP_OTHER_BACKEND);
                round_plan(r, STEP_REFERENCE);
                round_plan(r, STEP_READ_REFERENCE);
                round_plan(r, STEP_DROP_REFERENCE);
        }
        if (full || r->look) {
                round_plan(r, STEP_READ_GUARD);
                round_plan(r, STEP_READ_POLICY);
        }
        round_plan(r, full ? STEP_READ_SET : STEP_TEST);
        r->full = full;
}

static bool changes_pairs(const struct rules_delta *d)
{
        return d->add.n_elements || d->remove.n_elements || d->remove.n_entries;
}

static void plan_write(struct round *r)
{
        bool set = r->delta.add.n_entries || r->delta.remove.n_entries || !r->set_right;
        bool policy = !policy_state_right(&r->e->policy);
        bool full = r->full || !r->set_right || r->delta.add.n_entries > MAX_TESTS;

        r->look |= !r->guard_right || policy;
        r->turns++;
        r->read = false;
        /* A guard that is missing comes first of all; else permissions go before the pair they belong to. */
        if (!r->guard_right)
                round_plan(r, STEP_WRITE_GUARD);
        if (set)
                round_plan(r, STEP_WRITE_SET);
        if (r->guard_right && (r->delta.add.n_elements || r->delta.remove.n_elements))
                round_plan(r, STEP_CHANGE_GUARD);
        if (policy)
                round_plan(r, STEP_WRITE_POLICY);
        if (changes_pairs(&r->delta))
                round_plan(r, STEP_CONNTRACK);
        plan_read(r, full);
}

/* Compares what was read first with what we left behind. */
static void judge_foreign(struct round *r)
{
        _cleanup_delta_ struct rules_delta delta = {};

        if (!r->has_before)
                return;
        r->has_before = false;
        rules_diff(&delta, &r->before, &r->e->known);
        rules_deinit(&r->before);
        if (r->unseen)
                round_tell(r, "the guard was changed or removed");
        else if (!r->guard_right)
                round_tell(r, r->guard_exists ? "the guard's rules were changed" : "the guard was removed");
        else if (delta.add.n_elements || delta.remove.n_elements)
                round_tell(r, "the elements of the guard's sets were changed");
        if (!policy_state_right(&r->e->policy))
                round_tell(r, r->e->policy.chain_right ? "the jump to the policy was removed" : "the policy's rules were changed");
        if (!r->set_right)
                round_tell(r, r->set_exists ? "the set " POLICY_SET " was given foreign entries" : "the set " POLICY_SET " was removed");
        else if (delta.add.n_entries || delta.remove.n_entries)
                round_tell(r, "the entries of the set " POLICY_SET " were changed");
}

static struct err *gave_up(struct round *r)
{
        struct err *err = TAKE_PTR(r->err);

        if (!err)
                err_set(&err, ERR_CONFLICT, "%s", "somebody keeps changing the rules");
        err_wrap(&err, "the kernel's rules still differ from the wished ones after %u attempts", r->turns);
        return err;
}

/* All steps ran. */
static void judge(struct round *r)
{
        r->n_steps = r->at = 0;
        if (!r->e->known_valid && !r->full) {
                plan_read(r, true);
                round_next(r);
                return;
        }
        if (r->full) {
                r->e->known_valid = true;
                if (!r->e->adopted) {
                        egress_adopt(r->e);
                        rules_deinit(&r->target);
                        egress_target(r->e, &r->target);
                }
        }
        rules_delta_deinit(&r->delta);
        rules_diff(&r->delta, &r->e->known, &r->target);
        judge_foreign(r);
        if (r->read && rules_delta_empty(&r->delta) && r->guard_right && r->set_right && policy_state_right(&r->e->policy)) {
                if (r->target.n_entries > MAX_TESTS)
                        malloc_trim(0); /* a dump of 100,000 lines was in memory */
                round_finish(r, NULL);
                return;
        }
        if (r->turns >= MAX_TURNS) {
                round_finish(r, gave_up(r));
                return;
        }
        plan_write(r);
        round_next(r);
}

void round_next(struct round *r)
{
        if (r->at == r->n_steps)
                judge(r);
        else
                step_run(r, r->steps[r->at]);
}

/* Keeps what we left behind, to tell what others did to it. A look does not read the entries again. */
static void remember(struct round *r, bool full)
{
        struct egress *e = r->e;

        if (!e->known_valid)
                return;
        r->has_before = true;
        if (full) {
                r->before = e->known;
                e->known = (struct rules){};
                e->known_valid = false;
                return;
        }
        r->before = (struct rules){
                .elements = mem_dup(e->known.elements, e->known.n_elements * sizeof(struct element)),
                .n_elements = e->known.n_elements,
                .entries = mem_dup(e->known.entries, e->known.n_entries * sizeof(struct entry)),
                .n_entries = e->known.n_entries,
        };
}

/* The guard was seen to go: every millisecond counts, so it is loaded first and looked at afterwards. */
static void plan_guard(struct round *r)
{
        r->unseen = true;
        r->turns++;
        round_plan(r, STEP_WRITE_GUARD);
}

void round_start(struct egress *e, struct request *requests, size_t n_requests)
{
        struct round *r = NEW(struct round);
        bool full = e->want_full || !e->known_valid;

        r->e = e;
        r->requests = requests;
        r->n_requests = n_requests;
        r->generation = e->generation;
        r->look = e->want_look;
        r->guard_right = r->set_exists = r->set_right = true;
        e->round = r;
        egress_target(e, &r->target);
        if (e->want_guard && e->loaded)
                plan_guard(r);
        e->want_full = e->want_look = e->want_guard = false;
        if (full || r->look) {
                remember(r, full);
                plan_read(r, full);
        } else {
                rules_diff(&r->delta, &e->known, &r->target);
                if (rules_delta_empty(&r->delta))
                        plan_read(r, false);
                else
                        plan_write(r);
        }
        round_next(r);
}
