/*
 * A container's stream as the Engine gives it to anybody who may ask: POST /containers/ID/attach (Engine API 1.41), Docker's frames on the
 * way out, bare bytes on the way in. For comparing; the one that Bulkhead uses is in controller/.
 */
#pragma once

#include "common/err.h"

/*
 * Waits until the Engine has switched protocols. engine: its socket's path. container: an id or a name. The descriptor, blocking and the
 * caller's, or -1.
 */
_must_check_ int attach_to(const char *engine, const char *container, struct err **err);
