/*
 * Names in a security policy that nothing has: often a slip of the pen, which the policy itself cannot see. Used by validate.
 */
#pragma once

#include "cli/records.h"
#include "common/identity/identity.h"
#include "common/policy/policy.h"

/*
 * Texts ("file:line:column: …"), an owned array. path: of the policy. Servers are those of the registry; tools those of a server's last
 * approval that counts, and of a server without one nothing is said. view NULL: approvals were not read.
 */
json_object *names_unknown(const struct policy *p, const char *path, const struct registry *registry, const struct forge_view *view);
/* Adds agents of the policy that can have no token: nobody can ever be one of them. */
void names_without_token(json_object *texts, const struct policy *p, const char *path, const struct identities *ids);
