/* Entries that declare no code but a place: `url`, an MCP server or gateway that somebody else runs. */
#include "common/registry/reader.h"

#include <arpa/inet.h>

#include "common/text.h"

#define PLAIN      "http://"
#define TLS        "https://"
#define MAX_HOST   253U /* RFC 1035, section 2.3.4 */
#define MAX_LABEL  63U
#define PIN        "sha256//" /* then 32 bytes in base64: the spelling of curl and of RFC 7469 */
#define PIN_BASE64 44U
#define MAX_PIN    128U /* before it is looked at closer */
#define MAX_PINS   8U

/* What of an entry says something about a server that we do not start. `prefix` and the like are about how it is offered. */
static const char *const external_keys[] = {"description", "enabled", "url",    "address", "tls_pins",  "transport",
                                            "headers",     "tools",   "prefix", "sharing", "smoke_test"};

struct url {
        bool tls;
        const char *host; /* in the text, which must stay */
        size_t n_host;
        bool named;       /* the host is a name, and who is connected to is told by `address` */
        uint32_t address; /* host byte order */
        uint16_t port;
        const char *path; /* in the text */
};

/* Digits only, no sign, no leading zero: one way to write each. 0 = not a port. */
static uint16_t port_parse(const char *s, size_t n)
{
        unsigned port = 0;

        if (n == 0 || n > 5 || s[0] == '0')
                return 0;
        for (size_t i = 0; i < n; i++) {
                if (s[i] < '0' || s[i] > '9')
                        return 0;
                port = port * 10 + (unsigned)(s[i] - '0');
        }
        return port > 65535 ? 0 : (uint16_t)port;
}

/* RFC 1918 and the loopback network: what stays on this host or its own networks. */
static bool is_private(uint32_t a)
{
        return a >> 24 == 127 || a >> 24 == 10 || a >> 20 == (172U << 4 | 1) || a >> 16 == (192U << 8 | 168);
}

static int url_fail(const struct reader *r, const struct place *at, const char *s, const char *why, struct err **err)
{
        _cleanup_free_ char *shown = text_escape(s);

        return reader_fail(r, at, err, "\"%s\" %s", shown, why);
}

/* In lower case, as it stands in a certificate; its last label is no number, so that nobody takes it for an address. */
static bool is_host_name(const char *s, size_t n)
{
        size_t label = 0;
        bool digits = true;

        for (size_t i = 0; i < n; i++) {
                if (s[i] == '.') {
                        if (label == 0 || s[i - 1] == '-')
                                return false;
                        label = 0;
                        digits = true;
                        continue;
                }
                if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-", s[i]) || (label == 0 && s[i] == '-') || ++label > MAX_LABEL)
                        return false;
                digits &= s[i] >= '0' && s[i] <= '9';
        }
        return n > 0 && n <= MAX_HOST && label > 0 && s[n - 1] != '-' && !digits;
}

static int host_parse(const struct reader *r, const struct place *at, const char *s, struct url *ret, struct err **err)
{
        if (ipv4_parse(&ret->address, ret->host, ret->n_host))
                return 0;
        ret->named = true;
        if (!ret->tls)
                return url_fail(
                        r, at, s,
                        "has no IPv4 address in numbers, and a name proves nothing without TLS; write https, or 127.0.0.1 for this host",
                        err);
        if (!is_host_name(ret->host, ret->n_host))
                return url_fail(r, at, s, "has no host name in lower case, such as mcp.example.com, and no IPv4 address in numbers", err);
        return 0;
}

static int url_parse(const struct reader *r, const struct place *at, const char *s, struct url *ret, struct err **err)
{
        ret->tls = str_has_prefix(s, TLS);
        if (!ret->tls && !str_has_prefix(s, PLAIN))
                return url_fail(r, at, s,
                                "is not a URL of an external server; write https://HOST/PATH, or http://ADDRESS:PORT/PATH such as "
                                "http://127.0.0.1:4483/mcp",
                                err);
        const char *host = s + strlen(ret->tls ? TLS : PLAIN), *path = strchr(host, '/');
        if (!path)
                return url_fail(r, at, s, "has no path; write that of its MCP endpoint, such as /mcp", err);
        if (memchr(host, '@', (size_t)(path - host)))
                return url_fail(r, at, s, "holds a user or a password, which does not belong in this file; remove it", err);
        const char *colon = memchr(host, ':', (size_t)(path - host));
        ret->host = host;
        ret->n_host = (size_t)((colon ? colon : path) - host);
        if (host_parse(r, at, s, ret, err) < 0)
                return -1;
        ret->port = colon ? port_parse(colon + 1, (size_t)(path - colon - 1)) : ret->tls ? 443 : 80;
        if (!ret->port)
                return url_fail(r, at, s, "has no port from 1 to 65535 after its colon", err);
        if (!url_path_valid(path))
                return url_fail(r, at, s, "has a path that is not plain; use letters, digits and . _ ~ - /, no query and no fragment", err);
        ret->path = path;
        return 0;
}

/* -- beside the URL ------------------------------------------------------------------------------------------------------------ */

int parse_address(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        const char *s = NULL;
        uint32_t address;

        if (read_string(r, at, value, INET_ADDRSTRLEN, &s, err) < 0)
                return -1;
        if (!ipv4_parse(&address, s, strlen(s)))
                return reader_fail(r, at, err, "is not an IPv4 address in numbers, such as 203.0.113.5");
        ((struct registry_entry *)entry)->address = mem_strdup(s);
        return 0;
}

bool registry_tls_pin_valid(const char *s)
{
        static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const char *hash = s + strlen(PIN);

        return str_has_prefix(s, PIN) && strlen(hash) == PIN_BASE64 && strspn(hash, base64) == PIN_BASE64 - 1 &&
               hash[PIN_BASE64 - 1] == '=' && strchr("AEIMQUYcgkosw048", hash[PIN_BASE64 - 2]);
}

bool registry_tls_host_valid(const char *s)
{
        uint32_t address;

        return is_host_name(s, strlen(s)) || ipv4_parse(&address, s, strlen(s));
}

static int check_pin(const struct reader *r, const struct place *at, const char *s, struct err **err)
{
        if (registry_tls_pin_valid(s))
                return 0;
        _cleanup_free_ char *shown = text_escape(s);
        return reader_fail(r, at, err,
                           "\"%s\" is not the hash of a public key; write " PIN "… with the base64 of the SHA-256 of its "
                           "SubjectPublicKeyInfo",
                           shown);
}

int parse_tls_pins(const struct reader *r, const struct place *at, json_object *value, void *entry, struct err **err)
{
        struct registry_entry *e = entry;

        if (read_strings(r, at, value, MAX_PINS, MAX_PIN, check_pin, &e->tls_pins, err) < 0)
                return -1;
        strv_sort(e->tls_pins);
        return 0;
}

/* Names are resolved by nobody here: who answers them could choose whom the broker talks to, and what the kernel lets it reach. */
static int take_address(const struct reader *r, const struct place *at, struct registry_entry *e, struct url *u, struct err **err)
{
        const char *s = e->address;

        if (u->named && !s)
                return reader_fail(r, at, err,
                                   "the key \"address\" is missing; write the IPv4 address at which %.*s is to be reached (nobody here "
                                   "resolves names)",
                                   (int)u->n_host, u->host);
        if (!u->named && s)
                return reader_fail(r, PLACE_KEY(at, "address"), err, "goes with a name in the URL only, which has an address; remove it");
        if (e->tls_pins && !u->tls)
                return reader_fail(r, PLACE_KEY(at, "tls_pins"), err, "goes with https only; remove it");
        if (s)
                (void)ipv4_parse(&u->address, s, strlen(s)); /* parse_address() took it */
        return 0;
}

/* Is it our own door? Calls would go round in circles, and past what decides about them. */
static bool is_listener(const struct conf_listen *l, const struct url *u)
{
        struct in_addr a;

        if (!l->address || l->port != u->port || inet_pton(AF_INET, l->address, &a) != 1)
                return false;
        return a.s_addr == htonl(INADDR_ANY) ? u->address >> 24 == 127 : ntohl(a.s_addr) == u->address;
}

static int check_reach(const struct reader *r, const struct place *at, const char *s, const struct url *u, struct err **err)
{
        const struct conf *conf = r->conf;
        uint32_t net = 0;
        unsigned prefix = 0;
        bool ours = is_listener(&conf->gateway_listen, u);

        if (u->address >> 24 == 0 || u->address >> 16 == (169U << 8 | 254) || u->address >> 28 >= 14)
                return url_fail(r, at, s, "leads to an address that is no server's (0/8, 169.254/16, or from 224.0.0.0 on)", err);
        if (!u->tls && !is_private(u->address))
                return url_fail(
                        r, at, s,
                        "is plain http to an address that is not this host's nor private (10/8, 172.16/12, 192.168/16): whoever is on "
                        "the way could read and change all of it; write https",
                        err);
        for (size_t i = 0; i < conf->broker_listen.n; i++)
                ours |= is_listener(&conf->broker_listen.items[i], u);
        if (ours)
                return url_fail(r, at, s, "is where this host's own gateway listens; write another server's address", err);
        if (conf->pool && ipv4_network_parse(&net, &prefix, conf->pool) && prefix && (u->address ^ net) >> (32 - prefix) == 0)
                return url_fail(r, at, s, "lies in network.pool, where containers of our own are; declare their images instead", err);
        return 0;
}

static bool is_external_key(const char *key)
{
        for (size_t i = 0; i < ELEMENTSOF(external_keys); i++)
                if (str_eq(external_keys[i], key))
                        return true;
        return false;
}

static int check_keys(const struct reader *r, const struct place *at, json_object *o, struct err **err)
{
        json_object_object_foreach (o, key, value) {
                (void)value;
                if (is_external_key(key))
                        continue;
                if (str_eq(key, "secrets"))
                        return reader_fail(r, PLACE_KEY(at, key), err,
                                           "is not supported for an external server yet; remove it, and use one that needs no credential");
                return reader_fail(r, PLACE_KEY(at, key), err,
                                   "goes with servers that run here; this one is external (\"url\"), remove it");
        }
        return 0;
}

int external_read(const struct reader *r, const struct place *at, struct registry_entry *e, json_object *o, struct err **err)
{
        const struct place *here = PLACE_KEY(at, "url");
        const char *s = json_str(o, "url");
        struct url u = {0};
        char text[INET_ADDRSTRLEN];

        if (check_keys(r, at, o, err) < 0 || url_parse(r, here, s, &u, err) < 0 || take_address(r, at, e, &u, err) < 0 ||
            check_reach(r, here, s, &u, err) < 0)
                return -1;
        if (e->prefix && !e->prefix[0])
                return reader_fail(
                        r, PLACE_KEY(at, "prefix"), err,
                        "is empty: an external server could take the names of other servers' tools; write one, or remove the key");
        const struct in_addr a = {.s_addr = htonl(u.address)};
        mem_replace(&e->address, mem_strdup(inet_ntop(AF_INET, &a, text, sizeof(text))));
        if (u.tls)
                e->tls_host = mem_strndup(u.host, u.n_host);
        e->port = u.port;
        mem_replace(&e->path, mem_strdup(u.path));
        e->url = mem_printf("%s%s:%u%s", u.tls ? TLS : PLAIN, u.tls ? e->tls_host : e->address, (unsigned)e->port, e->path);
        return 0;
}
