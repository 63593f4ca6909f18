/*
 * A controller with its side of the link and the other end of it, for the tests of what the broker is told and given: real sockets, a
 * scripted Engine, plans made by hand.
 */
#pragma once

#include "controller/controller.h"
#include "controller/egress/egress_private.h"
#include "tests/unit/test_engine.h"

#define SPEC_A    "v1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define MANIFEST  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CONTAINER "c000000000000000000000000000000000000000000000000000000000000001"

enum { ECHO, LAZY, OTHER, WEB, SERVERS };

struct world {
        struct fixture x;
        char dir[64], path[96];
        struct conf conf;
        struct controller c;
        struct registry_entry entries[SERVERS];
        struct record record;
        struct desired_server servers[SERVERS];
        struct forge_view view;
        struct shared shared;
        struct desired desired;
        struct observed observed;
        struct instance instance, *instances[1];
        struct egress egress;
        const char *attach; /* what the Engine answers an attach with */
        char got[32];       /* what came to it on the stream after the 101 */
        unsigned starts;
        int broker; /* the other end */
        int fd;     /* the last that came over */
};

int world_setup(void **state);
int world_teardown(void **state);
#define world_test(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

#define UPGRADED "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
/* What a broker is told at first. */
#define ALL "hello, server echo coming, server lazy asleep, server other asleep, server web up, synced"

/* -- what the controller has ------------------------------------------------------------------------------------------------------ */
void set_plan(struct world *w, int i, enum server_state state);
void set_plan_of(struct world *w, const char *name, enum server_state state);
/* A container is started, as a pass does it: until that is over. */
void begin_start(struct world *w, int i);
void begin_start_of(struct world *w, const char *name);

/* -- the broker's end ------------------------------------------------------------------------------------------------------------- */
int dial(struct world *w); /* caller closes */
/* One packet by hand, as "kind name rest"; "" = none, "end" = the controller closed. Caller frees. */
char *packet(struct world *w, int fd);
/* All that comes within 50 ms, joined by ", ", has this in it; "" = nothing comes. */
void hear(struct world *w, const char *want);
void ask(struct world *w, const char *kind, const char *name);
void renew(struct world *w, const char *name, const char *instance);
void send_text(struct world *w, const char *text);
