/*
 * Image facts as JSON: in the answer to the control verb "smoke" (controller writes, CLI reads) and in the evidence files beside proposals.
 * Keys: reference, digest, platform, platform_digest, image_id, volumes, user, exposed_ports, entrypoint, cmd, env,
 * working_dir, stop_signal, size, layers.
 * Link after liblink: libspec (image_facts_free).
 */
#pragma once

#include "common/spec/spec.h"

json_object *link_facts_to_json(const struct image_facts *f);
/* Types are checked, lists bounded; reference and digest must be there. */
_must_check_ int link_facts_from_json(struct image_facts **ret, json_object *o, struct err **err);
