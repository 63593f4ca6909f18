/*
 * Is a string, taken for a path, where a path rule wants it? Pure. Only for broker/policy.
 */
#pragma once

#include "common/policy/normal.h"
#include "common/policy/rules.h"

/*
 * normal: the forms of the string. NULL: fine; else why not (static). Every form must be allowed and none denied. A path without a leading
 * slash is taken from "/" as well when it is compared with what is denied, because that is where many servers stand; one that climbs out of
 * where it starts is never fine.
 */
const char *path_rule_check(const struct argument_rule *rule, const struct normal *normal);
