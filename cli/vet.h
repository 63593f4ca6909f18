/*
 * Signals of prompt injection in what a server says of itself (tool descriptions, prompts, instructions). They prove nothing and miss much:
 * they point a human, who is about to sign, at the places to read twice. Pure.
 */
#pragma once

#include "common/json.h"

/* [{"where": "/tools/3/description", "signal": "hidden characters", "excerpt": "…"}, …], at most 200. Owned; never NULL. */
json_object *vet_manifest(json_object *manifest);
