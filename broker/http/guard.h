/*
 * Who may speak to a listener: names in Host and Origin, the bearer token, and which requests are well formed. Pure but for the hash.
 * Private to broker/http/.
 *
 * Source: RFC 9110 (7.2 Host, 11 authentication), RFC 6454 (Origin), RFC 6750 (bearer); MCP basic/transports, "Security Warning".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"

struct guard;

/* hosts (may be NULL): "name" with any port, or "name:port"; token_sha256: 64 hex digits, or NULL for none. Copied. */
_must_check_ int guard_new(struct guard **ret, uint16_t port, char *const *hosts, const char *token_sha256, struct err **err);
struct guard *guard_free(struct guard *g);
DEFINE_FREEP(struct guard *, guard_free)
/* Another token from now on. NULL: none is needed. */
_must_check_ int guard_set_token(struct guard *g, const char *token_sha256, struct err **err);

/* The value of a Host header, or the authority of a target. */
bool guard_host(const struct guard *g, const char *value, size_t n);
/* The value of an Origin header: scheme and host, nothing behind it. */
bool guard_origin(const struct guard *g, const char *value);
/* The value of an Authorization header, or NULL when there is none. */
bool guard_token(const struct guard *g, const char *authorization);

/* A path that two readers cannot read differently: begins with "/", no escapes, no empty, "." or ".." parts, plain characters only. */
bool guard_path(const char *path);

/* Why a request does not get past the front. */
struct refusal {
        unsigned status;
        const char *body;    /* a JSON-RPC error without id */
        const char *header;  /* "Allow: ", or NULL */
        const char *content; /* of that header */
};
enum refusal_reason {
        REFUSE_MALFORMED,
        REFUSE_VERSION,
        REFUSE_LINE_END,
        REFUSE_PATH,
        REFUSE_HEADER,
        REFUSE_CHUNK,
        REFUSE_TARGET_SIZE,
        REFUSE_TWICE,
        REFUSE_LENGTH,
        REFUSE_HEADERS_SIZE,
        REFUSE_HOST,
        REFUSE_ORIGIN,
        REFUSE_TOKEN,
        REFUSE_IDENTITY, /* the challenge names the authenticator's metadata */
        REFUSE_METHOD_UNKNOWN,
        REFUSE_METHOD,
        REFUSE_BODY_SIZE,
        REFUSE_BUSY,
        REFUSE_SLOW,
};
const struct refusal *refusal_of(enum refusal_reason reason);
