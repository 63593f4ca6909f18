/*
 * The chunked transfer coding, taken apart as its bytes come, split anywhere. Strict: each line ends with CRLF, sizes are 1 to 16
 * hexadecimal digits. Extensions and trailers are checked, bounded and thrown away. Pure, no memory of its own. Used as common/http/head.h.
 *
 * Source: RFC 9112, 7.1.
 */
#pragma once

#include "common/http/head.h"

#define HTTP_MAX_EXTENSION 256U  /* bytes behind a chunk's size */
#define HTTP_MAX_TRAILERS  4096U /* bytes of all trailers */

/* Zeroed to begin with. */
struct http_chunked {
        unsigned state;
        unsigned counted; /* digits of a size, bytes of an extension or of trailers */
        uint64_t left;    /* bytes of this chunk that are still to come */
};
enum http_chunked_found {
        HTTP_CHUNKED_MORE, /* all n bytes are used; more are needed */
        HTTP_CHUNKED_DATA, /* *data_n bytes of the body stand at *data, in bytes; call again with what is behind *used */
        HTTP_CHUNKED_END,  /* the body is over; what is behind *used is another message's */
};
/*
 * Takes up to n bytes, says in *used how many. -1: *fault, and the reader is of no more use; else an http_chunked_found. Sizes are no
 * promise: it is the caller who bounds what it keeps. A chunk that begins says its size at once: c->left.
 */
_must_check_ int http_chunked_read(struct http_chunked *c, const char *bytes, size_t n, size_t *used, const char **data, size_t *data_n,
                                   enum http_fault *fault);
