/*
 * security_policy.json: what agents may do, how often, at what cost, and with which arguments. A loaded policy never changes; it is
 * counted, so that a new one can take its place while calls under the old one are still being decided. It is the whole file or an error:
 * whoever reloads keeps the last good one. Format: registry/security_policy.schema.json and security_policy.json(5). Used by the broker,
 * and by the CLI to check the file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/policy/selector.h"

#define POLICY_MAX_BYTES  (4U << 20)
#define POLICY_MAX_AGENTS 1024U

struct policy;
struct policy_agent;

/* Refused: a file that others may write, unknown keys, keys that stand twice, wrong types, control characters, expressions that cannot be
 * matched in linear time, and everything that would weaken the gate. *ret is owned (policy_unref). Errors: "file:line:column: key: …". */
_must_check_ int policy_load(struct policy **ret, const char *path, struct err **err);
/* The same from memory; name is for messages. */
_must_check_ int policy_parse(struct policy **ret, const char *text, size_t n, const char *name, struct err **err);
struct policy *policy_ref(struct policy *p);
struct policy *policy_unref(struct policy *p); /* NULL is fine; returns NULL */
DEFINE_FREEP(struct policy *, policy_unref)

/* Agents, sorted by name. What is not here has no rights. Borrowed from the policy. */
const struct policy_agent *policy_agent_find(const struct policy *p, const char *name);
size_t policy_n_agents(const struct policy *p);
const struct policy_agent *policy_agent_at(const struct policy *p, size_t index);
const char *policy_agent_name(const struct policy_agent *a);
const char *policy_agent_zone(const struct policy_agent *a); /* NULL: none */

/* What an agent asks for, or what a server asks of an agent's client. The name beside the server's: a tool's or prompt's name, a
 * resource's URI, "" for the last three. */
enum policy_kind { POLICY_TOOL, POLICY_PROMPT, POLICY_RESOURCE, POLICY_SAMPLING, POLICY_ELICITATION, POLICY_ROOTS };
#define POLICY_KINDS 6
const char *policy_kind_name(enum policy_kind kind);

enum policy_access { POLICY_NONE, POLICY_ASK /* each call needs a human */, POLICY_ALLOW };
/*
 * For lists, search and notifications: does this exist for the agent? agent may be NULL (nothing does). The time depends on the names and
 * the agent's rules only, not on the answer. action is read for tools only. *rule (may be NULL): the deciding rule, borrowed from the
 * policy.
 */
enum policy_access policy_access(const struct policy_agent *a, enum policy_kind kind, const char *server, const char *name,
                                 enum action_class action, const char **rule);

/* Could anything of this server and kind exist for the agent? By the servers' names in its lists: no promise that something does. */
bool policy_reaches(const struct policy_agent *a, enum policy_kind kind, const char *server);
/* Is the tool in the agent's tools/list from the beginning (if it exists for it)? */
bool policy_preloads(const struct policy_agent *a, const char *server, const char *tool, enum action_class action);
/* The same of any tool of a server. */
bool policy_preloads_server(const struct policy_agent *a, const char *server);

/*
 * Calls back for every glob on servers and names in the file, for whoever wants to know whether there is such a thing: kind is what the
 * name is of, or POLICY_KINDS where it may be of any. Texts are borrowed from the policy.
 */
typedef void (*policy_name_fn)(const char *server, const char *name, unsigned kind, unsigned line, unsigned column, void *user);
void policy_names(const struct policy *p, policy_name_fn fn, void *user);

/* -- what others need to know ------------------------------------------------------------------------------------------------- */
/* Is the value of an argument of this name to be left out of logs? Case does not matter. */
bool policy_redacts(const struct policy *p, const char *argument);
unsigned policy_artifact_retention_days(const struct policy *p); /* 1 .. 3650 */
uint64_t policy_artifact_max_bytes(const struct policy *p);
uint64_t policy_audit_max_bytes(const struct policy *p); /* of one file of the decision log */
unsigned policy_audit_files(const struct policy *p);     /* how many of them are kept */
