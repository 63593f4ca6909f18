/*
 * The inside of struct egress, shared by the files of controller/egress: the wishes (instances), what the kernel was last seen to hold, and
 * the round in progress. egress.c keeps wishes and requests, round.c brings the kernel to them, watch.c says that somebody else was there.
 */
#pragma once

#include "controller/egress/egress.h"
#include "controller/egress/guard_read.h"
#include "controller/egress/guard_text.h"
#include "controller/egress/policy_text.h"
#include "controller/egress/set_link.h"

#define REFERENCE_TABLE "bulkhead-reference"

struct instance {
        char bridge[16];
        char server[41];
        uint32_t address;
        uint16_t http_port;
        bool smoke;
        bool external;
        bool adopted;  /* found in the kernel after a start; its wishes are not known yet */
        bool in_force; /* seen in the kernel since it was set */
        struct entry *entries;
        size_t n_entries;
        size_t n_skipped;    /* rules for names and IPv6: nothing is allowed for them */
        uint64_t generation; /* of the wish */
};

struct request {
        egress_done_fn done;
        void *user;
        struct err *err; /* refused before the kernel was asked */
};

enum backend { BACKEND_UNKNOWN, BACKEND_NFT, BACKEND_LEGACY };

struct round;
struct watch;
struct conntrack_job;
struct show;

struct egress {
        sd_event *loop;
        struct guard_params guard;
        egress_event_fn changed;
        void *user;

        struct instance **instances;
        size_t n_instances;
        uint64_t generation;
        bool adopted; /* what a former process left was taken over */
        char **gone;  /* until then: bridges that were taken away since, */
        char **kept;  /* and, once `keeping`, all that may be taken over */
        bool keeping;

        struct request *requests; /* waiting for the next round */
        size_t n_requests;
        bool want_full;         /* the next round reads everything */
        bool want_look;         /* … or guard and policy, and counts the entries */
        bool want_guard;        /* … after it has loaded the guard, unseen */
        sd_event_source *start; /* a round begins when the loop is idle: wishes made until then go together */
        sd_event_source *retry;
        uint64_t retry_ms;
        struct round *round;

        /* What the kernel held at the end of the last successful round; worth something only while known_valid. */
        struct rules known;
        bool known_valid;
        bool loaded;      /* one round succeeded */
        bool sound;       /* the last one did */
        bool told_broken; /* the listener knows that it did not */
        enum backend backend;
        char form[SHA256_HEX]; /* of the guard as this nft prints it; "" before the first round */
        struct policy_state policy;

        struct set_link *set_link;
        struct watch *watch;
        struct show *shows; /* running */
};

/* Makes a round begin soon; full: it reads everything back first. */
void egress_kick(struct egress *e, bool full);
/* Somebody changed the guard (then it is loaded at once, before anything is read) or the policy. */
void egress_look(struct egress *e, bool guard);
struct instance *egress_find(const struct egress *e, const char *bridge);
/* Turns pairs in the kernel that nobody wished for yet into instances, so that running servers keep what they have until told otherwise. */
void egress_adopt(struct egress *e);
/* The elements an instance stands for; returns their number. */
size_t egress_elements(const struct instance *i, struct element out[GUARD_SETS]);
/* What the kernel should hold, sorted. */
void egress_target(const struct egress *e, struct rules *ret);
/* The round has ended: answers its requests. err is borrowed. */
void egress_round_done(struct egress *e, struct request *requests, size_t n, uint64_t generation, const char *foreign, struct err *err);

/* round.c */
/* Takes the requests and what is wanted of e. The round answers by egress_round_done(). */
void round_start(struct egress *e, struct request *requests, size_t n_requests);
struct round *round_free(struct round *r);

/* show.c */
struct show *show_free_all(struct show *s);
