/*
 * What the misbehaviours of mcp_hostile are made of: reading a line, looking into it without parsing, answering. Private to mcp_hostile;
 * test code, never installed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TOOL "{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{\"type\":\"object\"}}"

extern char line[1 << 16]; /* the message that was read last */

bool next(void);
bool is(const char *method);
long id_of(void); /* -1: none */
void say(long id, const char *kind, const char *body);
/* A decent handshake; true when `line` now is a request behind it. */
bool handshake(void);
int wait_for_end(void);

struct mode {
        const char *name;
        int (*run)(void);
};
/* Decent until a tool is called. */
extern const struct mode call_modes[];
extern const size_t n_call_modes;
