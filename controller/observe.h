/*
 * What is: containers and networks as the Engine shows them, and what a full inspect of each container said about drift. The lists are read
 * at every pass; an inspect is remembered until an event, a changed summary or its age asks for a new one. Used by the controller only.
 */
#pragma once

#include <stdbool.h>

#include "common/conf.h"
#include "common/engine/engine.h"
#include "controller/desired.h"
#include "controller/images.h"

/* Value of io.bulkhead.scope: the set of secrets an instance has. One set until secrets arrive. */
#define INSTANCE_SCOPE "default"

struct observed_container {
        char *id, *name;
        char *server;                 /* by its labels, or its place: as desired_server.name; NULL when not ours */
        char *spec, *approval, *role; /* labels; NULL when not ours */
        char *state;                  /* created running paused restarting removing exited dead */
        bool ours;
        bool current;   /* name, server and spec are those of the desired instance */
        bool inspected; /* drift below is known */
        char **drift;   /* NULL = none */
        char *address;  /* in its network, from the inspect */
        char *instance; /* 12 hex of its id and its start: another start is another instance; from the inspect */
        time_t started_at;
};

struct observed_network {
        char *id, *name;
        char *server, *spec, *role;
        char *subnet, *bridge;
        bool ours, internal;
};

struct observed {
        struct observed_container *containers; /* ours, and foreign ones that hold a name of ours */
        size_t n_containers;
        struct observed_network *networks; /* ours */
        size_t n_networks;
        char **subnets; /* of every network of the Engine */
        bool complete;  /* every list and every needed inspect was read: only then may anything be removed */
};
struct observed *observed_free(struct observed *o);
DEFINE_FREEP(struct observed *, observed_free)

struct observer;
/* All are borrowed; images is read and added to. */
struct observer *observer_new(struct engine *engine, const struct conf *conf, struct images *images);
struct observer *observer_free(struct observer *o);
DEFINE_FREEP(struct observer *, observer_free)
/* Puts into host what GET /info said about this Engine, as a judgement of drift needs it. */
void observer_describe_engine(const struct observer *o, struct spec_host *host);
/* What is remembered of this container (an id) or of all (NULL) is stale: inspect again. */
void observer_forget(struct observer *o, const char *id);

/* observed handed over, NULL on error (the Engine is away, an answer was cut …). Called from the loop. */
typedef void (*observe_done_fn)(struct observed *observed, struct err *err, void *user);
/*
 * Servers that are being worked on: their containers are not inspected (the Engine answers an inspect only after the start that is under
 * way), and nobody plans for them.
 */
typedef bool (*observe_skip_fn)(const char *server, void *user);
/* One at a time. refresh: how many containers whose inspect is merely old are inspected again, oldest first. desired is referenced. */
void observer_look(struct observer *o, struct desired *desired, size_t refresh, observe_skip_fn skip, observe_done_fn done, void *user);
