/*
 * Characters and names. Private to common/http/.
 */
#pragma once

#include "common/http/head.h"

#define HTTP_IN_TOKEN  1U /* RFC 9110, 5.6.2 */
#define HTTP_IN_VALUE  2U /* blank, visible, or beyond ASCII */
#define HTTP_IN_TARGET 4U /* visible ASCII */
#define HTTP_IN_HEX    8U
extern const unsigned char http_kinds[256];

/* Where the run of characters of that kind ends that begins at s. */
static inline const char *http_span(const char *s, const char *end, unsigned kind)
{
        while (s < end && http_kinds[(unsigned char)*s] & kind)
                s++;
        return s;
}

/* name: a token. HTTP_N_KNOWN: none of them. */
enum http_known http_known_field(const char *name, size_t n);
