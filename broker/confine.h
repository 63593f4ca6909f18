/*
 * What the broker, which faces agents, gives up before it reads their first byte. Used by its main.
 */
#pragma once

#include "common/err.h"

/*
 * From here on: no capability, no new privilege, no program or thread is started, no other process looked into, nothing mounted, no memory
 * to run; sockets are TCP over IPv4 and unix sockets only; files can only be opened for reading, and only those in `readable` (directory,
 * borrowed; NULL: none). 1: built with a sanitizer, which wants all of this; only the capabilities are gone.
 */
_must_check_ int broker_confine(const char *readable, struct err **err);
