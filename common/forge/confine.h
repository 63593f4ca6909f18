/*
 * What bulkhead-forge-read gives up before it reads anything. It has the service user's uid and groups, because only root could take them
 * from it, and one of those groups opens the Engine's socket: without this, whoever breaks a git parser owns the host. Private to
 * common/forge/.
 */
#pragma once

#include "common/err.h"

/*
 * No socket is made or connected, no other process looked into, for the rest of this process and what it starts (ssh-keygen). Files stay:
 * the repository is read. Calls that are refused say EACCES, which libc's look-up of users takes for "ask the next source".
 */
_must_check_ int forge_confine(struct err **err);
