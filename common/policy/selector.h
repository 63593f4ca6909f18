/*
 * Which tools a rule is for: action classes and globs on server:tool. Values, made by the loader of the policy and never changed after.
 * Used by the loader and by broker/policy.
 *
 * A glob has a server part and a tool part, split at the first colon (a server's name has none). '*' is any run of characters, '?' is one
 * byte; nothing else is special. Upper and lower case differ, as they do in MCP.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/mem.h"

/* What a tool does, as the approved manifest says. */
enum action_class { ACTION_READ, ACTION_WRITE, ACTION_NETWORK, ACTION_CREDENTIAL, ACTION_EXEC, ACTION_UNKNOWN };
#define ACTION_CLASSES ACTION_UNKNOWN
/* "read" …; "unknown". Static. */
const char *action_class_name(enum action_class action);
/* -1: no such word. */
int action_class_parse(const char *word);

#define SELECTOR_MAX_ITEMS 64U
#define SELECTOR_MAX_GLOB  256U /* bytes */

struct selector {
        unsigned actions; /* one bit for each class */
        struct glob {
                char *server, *tool;
                size_t server_head, tool_head; /* bytes before the first wildcard */
                unsigned line, column;         /* in the policy's file; 0: not from there */
        } * globs;
        size_t n_globs;
};

bool glob_match(const char *glob, const char *name);
/* The same without regard to the case of ASCII letters, of name[0..n): for names of arguments. */
bool glob_match_folded(const char *glob, const char *name, size_t n);
/* Adds "read", "server:tool" or "server:*". -1: neither a class nor a glob with a colon. */
_must_check_ int selector_add(struct selector *s, const char *text, struct err **err);
/* For rules that restrict: a tool of unknown class is in every class. For rules that grant: in none. */
unsigned action_bits_restricting(enum action_class action);
unsigned action_bits_granting(enum action_class action);
/*
 * Is a tool of these classes meant? Looks at every glob, also behind a hit: the time tells nothing of where, or whether, one matched.
 */
bool selector_match(const struct selector *s, const char *server, const char *tool, unsigned action_bits);
/* Could a tool of this server be meant? */
bool selector_reaches(const struct selector *s, const char *server);
void selector_deinit(struct selector *s);
