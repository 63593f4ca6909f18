/*
 * One running smoke test, shared by the files that make it up: smoke.c (order of steps, ends), smoke_engine.c (what is asked of the
 * Engine), smoke_helper.c (the program that speaks to the server), smoke_connector.c (connections for it), smoke_remains.c (cleaning up).
 * Private to common/smoke.
 */
#pragma once

#include "common/smoke/smoke.h"
#include "common/spawn.h"

#define SMOKE_PLACEHOLDER "bulkhead-smoke-placeholder"

/* An Engine call in flight: outlives the smoke test when that is cancelled. */
typedef void (*smoke_answer_fn)(struct smoke *s, int status, json_object *body, struct err *err);
struct smoke_pending {
        struct smoke *smoke; /* NULL: cancelled */
        struct smoke_pending **slot;
        smoke_answer_fn answer;
};

struct smoke_connector;

struct smoke {
        sd_event *loop;
        struct engine *engine;
        const struct conf *conf;
        struct smoke_request request; /* its strings are ours */
        smoke_ready_fn ready;
        smoke_done_fn done;
        void *user;

        char *container, *network; /* names */
        char bridge[16], gateway[16], address[16];
        char **placeholders;
        char *container_id, *network_id;     /* NULL: not made, or not known to be */
        bool container_asked, network_asked; /* made, or perhaps made: an answer may have been lost */

        size_t step;
        bool cleaning, expired, waiting_for_owner;
        struct smoke_pending *pending;
        struct engine_call *attaching;
        sd_event_source *deadline, *later;
        uint64_t begin; /* CLOCK_MONOTONIC, ms */

        json_object *image_inspect, *info;
        int stream; /* the attach stream, until the helper has it; -1 = none */
        struct smoke_connector *connector;
        struct spawn *helper;

        struct smoke_result *result;
        struct err *err;       /* why there is no result */
        struct err *clean_err; /* what could not be removed in this round */
        unsigned clean_rounds;
};

/* -- smoke.c: the order of things ------------------------------------------------------------------------------------------ */
/* This step is done. */
void smoke_next(struct smoke *s);
/* Gives up: err is why the test could not be made (taken over). Goes on with cleaning up. */
void smoke_fail(struct smoke *s, struct err *err);
/* The test has a result (taken over). Goes on with the next step. */
void smoke_finish(struct smoke *s, struct smoke_result *result);
struct smoke_result *smoke_result_failed(char *why /* taken over */);
uint64_t smoke_now_ms(void);
/* Arguments for an Engine call: `answer` will be called unless the test is cancelled. */
struct smoke_pending *smoke_pending_new(struct smoke *s, struct smoke_pending **slot, smoke_answer_fn answer);
void smoke_answered(int status, json_object *body, struct err *err, void *pending);

/* -- steps ------------------------------------------------------------------------------------------------------------------ */
void smoke_read_info(struct smoke *s);
void smoke_read_image(struct smoke *s);
void smoke_make_network(struct smoke *s);
void smoke_check_network(struct smoke *s);
void smoke_make_container(struct smoke *s);
void smoke_check_container(struct smoke *s);
void smoke_attach(struct smoke *s);
void smoke_start_container(struct smoke *s);
void smoke_talk(struct smoke *s);
void smoke_see_end(struct smoke *s);
/* Find: a container or network of this name with our labels, from an earlier run or a lost answer; its id is noted. */
void smoke_find_container(struct smoke *s);
void smoke_remove_container(struct smoke *s);
void smoke_find_network(struct smoke *s);
void smoke_remove_network(struct smoke *s);

/* The Engine's labels on what belongs to this very test. */
/* First address of the subnet for the gateway, second for the server. */
_must_check_ int smoke_addresses(struct smoke *s, const char *subnet, struct err **err);

/* -- connections for the helper -------------------------------------------------------------------------------------------- */
/* *helper_fd: the helper's end. Connects to address:port only, at most 32 times. */
_must_check_ int smoke_connector_new(struct smoke_connector **ret, sd_event *loop, const char *address, uint16_t port, int *helper_fd,
                                     struct err **err);
struct smoke_connector *smoke_connector_free(struct smoke_connector *c);
