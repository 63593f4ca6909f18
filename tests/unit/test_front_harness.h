/*
 * A front on a port of its own and clients of it, all in one thread and one loop: real sockets, no waiting for anything but what is tested.
 * Used by test_front*.c.
 */
#pragma once

#include "tests/unit/test.h"

#include "broker/http/front.h"

struct rig {
        sd_event *loop;
        struct front *front;
        uint16_t port;
        int n_fds; /* open in this process before the front was made */
        /* What the request function does: answers at once, keeps the exchange, … */
        void (*serve)(struct rig *r, struct exchange *x);
        struct exchange *held[2048];
        size_t n_held;
        unsigned requests, left;
        char last_path[64];
};

/* Limits that tests change before rig_start(). */
struct front_limits rig_limits(void);
/* token: what clients must send, or NULL. */
struct rig *rig_start(const struct front_limits *limits, const char *token, char *const *hosts);
/* Asserts that nothing is left: counts, descriptors. */
void rig_stop(struct rig *r);

/* Ways to serve. */
void serve_echo(struct rig *r, struct exchange *x);   /* path and body come back at once */
void serve_hold(struct rig *r, struct exchange *x);   /* into held; left() counts and takes it out */
void serve_stream(struct rig *r, struct exchange *x); /* begins a stream, and holds it */

/* Runs the loop until cond, two seconds at most; says whether it came. */
#define rig_until(r, cond)                                                                                                                 \
        ({                                                                                                                                 \
                uint64_t _end = rig_now_ms() + 2000;                                                                                       \
                bool _came = (cond);                                                                                                       \
                while (!_came && rig_now_ms() < _end) {                                                                                    \
                        rig_turn(r);                                                                                                       \
                        _came = (cond);                                                                                                    \
                }                                                                                                                          \
                _came;                                                                                                                     \
        })
uint64_t rig_now_ms(void);
/* A millisecond at most. */
void rig_turn(struct rig *r);
/* Runs the loop for so long. */
void rig_run(struct rig *r, unsigned ms);
struct front_counts rig_counts(const struct rig *r);

/* A connected, non-blocking socket. */
int rig_dial(const struct rig *r);
/* Sends text ('@' is written as this front's host and port) while the loop runs. */
void rig_say(struct rig *r, int fd, const char *text);
void rig_say_n(struct rig *r, int fd, const char *bytes, size_t n);
/* Collects until the answer is whole, or the other side closed, or `ms` are over. Owned. */
char *rig_hear(struct rig *r, int fd, unsigned ms);
/* Has the other side closed (what it said before is thrown away)? Runs the loop for `ms` at most. */
bool rig_is_closed(struct rig *r, int fd, unsigned ms);
/* One request on a connection of its own, and its answer. Owned. */
char *rig_ask(struct rig *r, const char *text);
/* The status of an answer; 0 when it is none. */
unsigned status_of(const char *answer);
