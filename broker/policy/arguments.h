/*
 * Blocked patterns, argument patterns and path rules over every string, number and name of a call's arguments, however deep, in all of its
 * normal forms. Pure. Only for broker/policy.
 */
#pragma once

#include "broker/policy/schema.h"
#include "common/policy/normal.h"
#include "common/policy/rules.h"

struct arguments_call {
        const struct policy *policy;
        const char *server, *tool;
        unsigned action_bits; /* restricting */
};

/* 0: nothing speaks against them. 1: *fault says where and why, *rule (borrowed from the policy, or static) which rule. */
_must_check_ int arguments_check(const struct arguments_call *call, const struct value_tree *t, struct normal *normal,
                                 struct schema_fault *fault, const char **rule);
/* The same of one text that is no argument, such as a resource's URI: blocked patterns alone. */
_must_check_ int arguments_check_text(const struct arguments_call *call, const char *text, struct normal *normal,
                                      struct schema_fault *fault, const char **rule);
