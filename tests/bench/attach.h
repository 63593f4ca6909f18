/* A container's stream as the Engine gives it to anybody who may ask, for programs without an event loop: engine_container_attach(), waited
 * for. */
#pragma once

#include "common/err.h"

/* engine: its socket's path. container: an id or a name. The descriptor, non-blocking and the caller's, or -1. */
_must_check_ int attach_to(const char *engine, const char *container, struct err **err);
