#include "broker/http/guard.h"

#include <sodium.h>
#include <strings.h>

#define TOKEN_BYTES crypto_hash_sha256_BYTES

/* A name that may stand in Host, without port, and the only port it may have; 0 = any. */
struct known_host {
        char *name;
        size_t n;
        unsigned port;
};

struct guard {
        struct known_host *hosts;
        size_t n_hosts;
        bool token_needed;
        unsigned char token[TOKEN_BYTES];
};

/* Splits "name:port", "[v6]:port" or either without a port (then *port is 0). */
static bool split_host(const char *value, size_t n, size_t *name_n, unsigned *port)
{
        static const bool plain[256] = {
                ['-' ... '.'] = true, ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['_'] = true, ['a' ... 'z'] = true};
        size_t i = 0;

        if (n > 0 && value[0] == '[') {
                const char *end = memchr(value, ']', n);
                if (!end)
                        return false;
                i = (size_t)(end - value) + 1;
        } else {
                while (i < n && plain[(unsigned char)value[i]])
                        i++;
        }
        *name_n = i;
        *port = 0;
        if (i == 0 || n - i == 1 || n - i > 6 || (n > i && value[i] != ':'))
                return i > 0 && i == n;
        for (i++; i < n; i++) {
                if (value[i] < '0' || value[i] > '9')
                        return false;
                *port = *port * 10 + (unsigned)(value[i] - '0');
        }
        return *name_n == n || (*port > 0 && *port <= UINT16_MAX);
}

static void add_host(struct guard *g, const char *name, size_t n, unsigned port)
{
        g->hosts = mem_realloc(g->hosts, g->n_hosts + 1, sizeof(*g->hosts));
        g->hosts[g->n_hosts++] = (struct known_host){mem_strndup(name, n), n, port};
}

int guard_new(struct guard **ret, uint16_t port, char *const *hosts, const char *token_sha256, struct err **err)
{
        static const char *const own[] = {"127.0.0.1", "localhost", "[::1]"};
        _cleanup_(guard_freep) struct guard *g = NEW(struct guard);

        for (size_t i = 0; i < ELEMENTSOF(own); i++)
                add_host(g, own[i], strlen(own[i]), port);
        for (; hosts && *hosts; hosts++) {
                size_t n;
                unsigned p;

                if (!split_host(*hosts, strlen(*hosts), &n, &p))
                        return err_set(err, ERR_INVALID, "\"%s\" is no host name: write \"name\" or \"name:port\"", *hosts);
                add_host(g, *hosts, n, p);
        }
        if (guard_set_token(g, token_sha256, err) < 0)
                return -1;
        *ret = TAKE_PTR(g);
        return 0;
}

struct guard *guard_free(struct guard *g)
{
        if (!g)
                return NULL;
        for (size_t i = 0; i < g->n_hosts; i++)
                free(g->hosts[i].name);
        free(g->hosts);
        free(g);
        return NULL;
}

int guard_set_token(struct guard *g, const char *token_sha256, struct err **err)
{
        if (token_sha256 && (!str_is_hex(token_sha256, 2 * (size_t)TOKEN_BYTES) ||
                             sodium_hex2bin(g->token, TOKEN_BYTES, token_sha256, strlen(token_sha256), NULL, NULL, NULL) < 0))
                return err_set(err, ERR_INVALID, "the token's hash must be 64 lower-case hexadecimal digits: the SHA-256 of the token");
        g->token_needed = token_sha256 != NULL;
        return 0;
}

bool guard_host(const struct guard *g, const char *value, size_t n)
{
        size_t name_n;
        unsigned port;

        if (!split_host(value, n, &name_n, &port))
                return false;
        if (port == 0)
                port = 80;
        for (size_t i = 0; i < g->n_hosts; i++) {
                const struct known_host *h = &g->hosts[i];
                if (h->n == name_n && (h->port == 0 || h->port == port) && strncasecmp(h->name, value, name_n) == 0)
                        return true;
        }
        return false;
}

bool guard_origin(const struct guard *g, const char *value)
{
        static const char *const schemes[] = {"http://", "https://"};

        for (size_t i = 0; i < ELEMENTSOF(schemes); i++) {
                size_t n = strlen(schemes[i]);
                if (strncasecmp(value, schemes[i], n) == 0)
                        return guard_host(g, value + n, strlen(value + n));
        }
        return false; /* "null" too: nobody knows who that is */
}

bool guard_token(const struct guard *g, const char *authorization)
{
        unsigned char hash[TOKEN_BYTES];

        if (!g->token_needed)
                return true;
        if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
                return false;
        authorization += 7;
        authorization += strspn(authorization, " ");
        size_t n = strlen(authorization);
        while (n > 0 && (authorization[n - 1] == ' ' || authorization[n - 1] == '\t'))
                n--;
        crypto_hash_sha256(hash, (const unsigned char *)authorization, n);
        return sodium_memcmp(hash, g->token, sizeof(hash)) == 0;
}

/* RFC 3986, 3.3, without escapes, and "/". */
static const bool in_path[256] = {
        ['!'] = true, ['$'] = true,         ['&' ... ')'] = true, ['*' ... '/'] = true, ['0' ... ';'] = true,
        ['='] = true, ['@' ... 'Z'] = true, ['_'] = true,         ['a' ... 'z'] = true, ['~'] = true,
};

static bool is_plain(const char *path)
{
        while (in_path[(unsigned char)*path])
                path++;
        return *path == '\0';
}

bool guard_path(const char *path)
{
        if (*path != '/' || !is_plain(path))
                return false;
        for (const char *p = path; p; p = strchr(p, '/')) {
                size_t part = strcspn(++p, "/");
                if ((part == 0 && *p) || (part == 1 && *p == '.') || (part == 2 && p[0] == '.' && p[1] == '.'))
                        return false;
        }
        return true;
}

#define ERROR_BODY(code, message) "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":" #code ",\"message\":\"" message "\"}}"
static const struct refusal refusals[] = {
        [REFUSE_MALFORMED] = {400, ERROR_BODY(-32600, "this is no HTTP request")},
        [REFUSE_PATH] = {400, ERROR_BODY(-32600, "the path must be plain: no escapes, no empty or dot parts")},
        [REFUSE_VERSION] = {505, ERROR_BODY(-32600, "HTTP/1.1 is spoken here, and HTTP/1.0")},
        [REFUSE_LINE_END] = {400, ERROR_BODY(-32600, "lines end with CR and LF, and neither may stand alone")},
        [REFUSE_HEADER] = {400,
                           ERROR_BODY(
                                   -32600,
                                   "a header is not a name, a colon and a value on one line, or has characters that no header may have")},
        [REFUSE_CHUNK] = {400, ERROR_BODY(-32600, "a chunk of the body is not delimited as it must be")},
        [REFUSE_TARGET_SIZE] = {414, ERROR_BODY(-32600, "the address is too long")},
        [REFUSE_TWICE] = {400, ERROR_BODY(-32600, "a header that must come once came twice, or Host is missing")},
        [REFUSE_LENGTH] = {400, ERROR_BODY(-32600, "send either Content-Length or Transfer-Encoding: chunked, and nothing else")},
        [REFUSE_HEADERS_SIZE] = {431, ERROR_BODY(-32600, "too many headers, or too long ones")},
        [REFUSE_HOST] = {403, ERROR_BODY(-32000, "this Host is not served here: use localhost, or name it in gateway.hosts")},
        [REFUSE_ORIGIN] = {403, ERROR_BODY(-32000, "pages of this Origin are not let in: name its host in gateway.hosts")},
        [REFUSE_TOKEN] = {401, ERROR_BODY(-32000, "send Authorization: Bearer with the operator's token"), "WWW-Authenticate: ", "Bearer"},
        [REFUSE_IDENTITY] = {401, ERROR_BODY(-32000, "send Authorization: Bearer with a token of an agent that counts")},
        [REFUSE_METHOD_UNKNOWN] = {501, ERROR_BODY(-32600, "this method is not known here")},
        [REFUSE_METHOD] = {405, ERROR_BODY(-32600, "this method is not used here"), "Allow: ", "GET, HEAD, POST, DELETE, OPTIONS"},
        [REFUSE_BODY_SIZE] = {413, ERROR_BODY(-32600, "the body is longer than gateway.max_message")},
        [REFUSE_BUSY] = {503, ERROR_BODY(-32000, "too many large requests at once: try again"), "Retry-After: ", "1"},
        [REFUSE_SLOW] = {408, ERROR_BODY(-32000, "the request did not come in time")},
};

const struct refusal *refusal_of(enum refusal_reason reason)
{
        return &refusals[reason];
}
