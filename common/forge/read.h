/*
 * One reading of the repository, in steps: collect, judge each record, judge serials, judge history. Private to common/forge/.
 */
#pragma once

#include "common/forge/collect.h"
#include "common/forge/sshsig.h"
#include "common/forge/state.h"

struct reading {
        const struct conf *conf;
        const struct forge_state *state;
        git_repository *repo;
        struct sshsig_trust *trust;             /* NULL when signatures are not required */
        time_t now;                             /* never before state->time_floor */
        const struct forge_accepted **accepted; /* state->accepted by server and id */
        const struct forge_verified **verified; /* state->verified by key */
        struct forge_state *next;               /* gets the signatures found good */
};

struct item_list {
        struct forge_item *v;
        size_t n;
};
void item_list_deinit(struct item_list *l);
void forge_item_deinit(struct forge_item *item);
/* Sets why it does not count; the first reason stays. reason is handed over. */
void item_refuse(struct forge_item *item, enum forge_refusal refusal, char *reason);
/* A record whose signature is good and that is for this host, whether or not its place in the order is. */
bool item_is_genuine(const struct forge_item *item);
/* One that counts: genuine, in order, and not a proposal. */
bool item_counts(const struct forge_item *item);

/* Fills r->accepted and r->verified. */
void reading_index(struct reading *r);
const struct forge_accepted *reading_accepted(const struct reading *r, const char *server, const char *id);

/* Every record of a commit, verified. -1 only when the commit itself cannot be read. */
_must_check_ int read_items(struct item_list *ret, struct reading *r, const git_oid *commit, struct err **err);
/* The serial rules; marks items refused. */
void judge_serials(struct item_list *items, const struct reading *r);
