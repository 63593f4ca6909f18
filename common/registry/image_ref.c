/* The reference of an image, in the grammar of the distribution project: host[:port]/path[:tag]@sha256:hex. */
#include "common/registry/reader.h"

#include <ctype.h>

#include "common/text.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"

/* What joins the parts of a component: one ".", one or two "_", any number of "-". Letters and digits pass. */
static bool separator_valid(const char *s)
{
        size_t n = 1;

        if (isalnum((unsigned char)s[0]))
                return true;
        if (s[0] == '-')
                return s[1] == '-' || isalnum((unsigned char)s[1]);
        if (s[0] == '_' && s[1] == '_')
                n = 2;
        return isalnum((unsigned char)s[n]);
}

/* One path component: [a-z0-9]+ joined by ".", "_", "__" or dashes. */
static bool component_valid(const char *s, size_t n)
{
        if (n == 0 || !strchr(LOWER DIGIT, s[0]) || !strchr(LOWER DIGIT, s[n - 1]))
                return false;
        for (size_t i = 0; i < n; i++) {
                if (!memchr(LOWER DIGIT "._-", s[i], sizeof(LOWER DIGIT "._-") - 1))
                        return false;
                if (!separator_valid(s + i))
                        return false;
        }
        return true;
}

static bool path_valid(const char *s, size_t n)
{
        const char *end = s + n;

        while (s < end) {
                const char *slash = memchr(s, '/', (size_t)(end - s));
                size_t len = slash ? (size_t)(slash - s) : (size_t)(end - s);

                if (!component_valid(s, len))
                        return false;
                if (!slash)
                        return true;
                s = slash + 1;
        }
        return false;
}

static bool tag_valid(const char *s, size_t n)
{
        if (n == 0 || n > 128 || s[0] == '.' || s[0] == '-')
                return false;
        for (size_t i = 0; i < n; i++)
                if (!memchr(LOWER UPPER DIGIT "._-", s[i], sizeof(LOWER UPPER DIGIT "._-") - 1))
                        return false;
        return true;
}

/* A registry's host: has a dot or a port, or is "localhost"; otherwise the Engine would take it as a path on Docker Hub. */
static bool host_valid(const char *host)
{
        const char *colon = strchr(host, ':');
        size_t n = colon ? (size_t)(colon - host) : strlen(host);

        if (n == 0 || n > 253 || host[0] == '.' || host[0] == '-' || host[n - 1] == '-' || host[n - 1] == '.')
                return false;
        if (strspn(host, LOWER DIGIT ".-") < n)
                return false;
        if (colon && (!colon[1] || strlen(colon + 1) > 5 || !str_in_charset(colon + 1, DIGIT)))
                return false;
        return colon || memchr(host, '.', n) || strcmp(host, "localhost") == 0;
}

static int host_check(const struct reader *r, const struct place *at, const char *host, struct err **err)
{
        _cleanup_free_ char *shown = text_escape(host);

        if (!host_valid(host))
                return reader_fail(r, at, err, "does not name its registry; write it in full, such as docker.io/library/name@sha256:…");
        if (!strv_contains(r->conf->allowed_registries, host))
                return reader_fail(
                        r, at, err,
                        "the registry \"%s\" is not allowed on this host; an administrator can add it to images.registries in %s", shown,
                        r->conf->path ? r->conf->path : CONF_DEFAULT_PATH);
        return 0;
}

int image_check(const struct reader *r, const struct place *at, const char *image, struct err **err)
{
        const char *digest = strchr(image, '@'), *slash = strchr(image, '/');

        if (!digest)
                return reader_fail(
                        r, at, err,
                        "has no digest; a tag can be moved, so write host/name@sha256:…, as docker push and docker pull print it");
        if (!str_is_digest(digest + 1))
                return reader_fail(r, at, err, "its digest is not sha256: and 64 lower-case hex digits; copy it from the registry");
        if (!slash || slash > digest)
                return reader_fail(r, at, err, "does not name its registry; write it in full, such as docker.io/library/name@sha256:…");
        _cleanup_free_ char *host = mem_strndup(image, (size_t)(slash - image));
        if (host_check(r, at, host, err) < 0)
                return -1;

        size_t n = (size_t)(digest - slash) - 1;
        const char *colon = memchr(slash + 1, ':', n);
        size_t n_path = colon ? (size_t)(colon - slash) - 1 : n;
        if (n_path > 200 || !path_valid(slash + 1, n_path))
                return reader_fail(r, at, err,
                                   "the name behind the registry is not valid; use lower-case letters, digits and . _ - between slashes");
        if (colon && !tag_valid(colon + 1, (size_t)(digest - colon) - 1))
                return reader_fail(r, at, err, "the tag is not valid; use letters, digits and . _ -, at most 128");
        return 0;
}
