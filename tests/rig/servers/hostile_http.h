/*
 * What the misbehaviours of mcp_hostile_http are made of: reading a request, looking into it without parsing, answering. One process for
 * each connection. Private to mcp_hostile_http; test code, never installed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

extern char request[1 << 17]; /* the one that was read last: head and body */
extern int peer;              /* the connection */
extern unsigned n_requests;   /* on it */

/* Ends the process when the client is gone. */
void read_request(void);
bool is(const char *method);
long id_of(void); /* -1: none */
void put(const char *bytes, size_t n);
void puts_all(const char *text);
void putf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One and the same text for ever. */
_Noreturn void put_for_ever(const char *text);
void respond(const char *status, const char *fields, const char *body);
/* The result of the call that was read last: its own text. Static. */
const char *result_of(long id);
void answer(void);
_Noreturn void stay(void); /* and say nothing */

struct http_mode {
        const char *name;
        void (*run)(void); /* answers what was read last; to return is to wait for the next request */
};
/* Decent until a tool is called. */
extern const struct http_mode http_call_modes[];
extern const size_t n_http_call_modes;
