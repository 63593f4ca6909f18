/*
 * What the broker, which faces agents, gives up before it reads their first byte. Used by its main.
 */
#pragma once

#include "common/err.h"

/*
 * From here on: no capability, no new privilege, no program or thread is started, no other process looked into, nothing mounted, no memory
 * to run; sockets are TCP over IPv4 and unix sockets only; files can be opened for reading in `readable` (directories, NULL-terminated),
 * and be made, written and removed in `writable` (NULL: nowhere). 1: built with a sanitizer, which wants all of this; only the capabilities
 * are gone.
 */
_must_check_ int broker_confine(const char *const *readable, const char *writable, struct err **err);
