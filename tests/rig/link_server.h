/*
 * One server that link_host runs in place of the Engine: a child process and, for stdio, a stream like the Engine's attach stream: what
 * is written into it is the server's standard input as it is, what comes out are frames with the 8-byte header. Test code.
 */
#pragma once

#include <sys/types.h>

#include "common/err.h"

/*
 * Starts command (argv, searched in PATH) in a process group of its own that ends with us. stream: where to put the caller's end of the
 * stream (owned by the caller); NULL: the server has no standard input and its output goes to our standard error.
 */
_must_check_ int link_server_start(pid_t *ret, int *stream, char *const *command, struct err **err);
