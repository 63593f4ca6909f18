/*
 * Unix socket addresses: where our programs listen and dial. Used by both sockets of common/link, that of lines and that of packets.
 */
#pragma once

#include <sys/un.h>

#include "common/err.h"

/* -1: the path is too long for a unix socket. */
_must_check_ int address_init(struct sockaddr_un *ret, const char *path, struct err **err);
/*
 * A listening, non-blocking socket of type SOCK_STREAM or SOCK_SEQPACKET at path, mode 0666: who may is decided by credentials. An old
 * socket file nobody listens at is replaced; the directory must exist. *ret is the caller's; the file is, too.
 */
_must_check_ int address_bind(int *ret, const char *path, int type, struct err **err);
