#include <arpa/inet.h>

#include "common/file.h"
#include "common/smoke/talk.h"

static const char *const names[] = {[TALK_STDIO] = "stdio", [TALK_HTTP] = "streamable-http", [TALK_SSE] = "sse"};

static int take_tls(struct talk_config *c, json_object *o, struct err **err)
{
        const char *ca_file = json_str(o, "ca_file");

        c->tls_host = mem_strdup(json_str(o, "tls_host"));
        if (json_get(o, "tls_pins") && !json_to_strv(&c->tls_pins, json_get(o, "tls_pins")))
                return err_set(err, ERR_INVALID, "\"tls_pins\" is not a list of strings");
        if (!c->tls_host || c->tls_pins)
                return 0;
        if (!ca_file)
                return err_set(err, ERR_INVALID, "\"ca_file\" is missing");
        if (file_read(&c->authorities, &c->n_authorities, ca_file, TALK_MAX_AUTHORITIES, FILE_TRUSTED, err) < 0)
                return err_wrap(err, "gateway.ca_file");
        return 0;
}

static int take_http(struct talk_config *c, json_object *o, struct err **err)
{
        int64_t port = json_int(o, "port", 0);
        struct in_addr address;

        c->address = mem_strdup(json_str(o, "address"));
        c->path = mem_strdup(json_str(o, "path"));
        if (!c->address || inet_pton(AF_INET, c->address, &address) != 1)
                return err_set(err, ERR_INVALID, "\"address\" is not an IPv4 address");
        if (port < 1 || port > 65535)
                return err_set(err, ERR_INVALID, "\"port\" is not a port");
        if (!c->path || c->path[0] != '/')
                return err_set(err, ERR_INVALID, "\"path\" does not begin with /");
        if (json_get(o, "headers") && !json_to_strv(&c->headers, json_get(o, "headers")))
                return err_set(err, ERR_INVALID, "\"headers\" is not a list of strings");
        c->port = (uint16_t)port;
        return take_tls(c, o, err);
}

static int take_number(uint64_t *ret, json_object *o, const char *key, int64_t max, struct err **err)
{
        int64_t v = json_int(o, key, -1);

        if (v < 1 || v > max)
                return err_set(err, ERR_INVALID, "\"%s\" is not a number from 1 to %lld", key, (long long)max);
        *ret = (uint64_t)v;
        return 0;
}

int talk_config_parse(struct talk_config *ret, const char *text, size_t n, struct err **err)
{
        _cleanup_json_ json_object *o = NULL;
        struct talk_config c = {0};
        const char *transport;
        uint64_t max = 0;
        size_t i = 0;

        if (json_parse(&o, text, n, "request", NULL, err) < 0)
                return -1;
        transport = json_str(o, "transport");
        while (i < ELEMENTSOF(names) && !str_eq(names[i], transport))
                i++;
        if (i == ELEMENTSOF(names))
                return err_set(err, ERR_INVALID, "request: unknown \"transport\"");
        c.transport = (enum talk_transport)i;
        if (take_number(&c.timeout_ms, o, "timeout_ms", 3600000, err) < 0 || take_number(&c.probe_ms, o, "probe_ms", 3600000, err) < 0 ||
            take_number(&c.settle_ms, o, "settle_ms", 60000, err) < 0 || take_number(&max, o, "max_bytes", 256 << 20, err) < 0 ||
            (i != TALK_STDIO && take_http(&c, o, err) < 0)) {
                talk_config_deinit(&c);
                return err_wrap(err, "request");
        }
        c.max_bytes = (size_t)max;
        c.output = json_flag(o, "output", false);
        c.external = json_flag(o, "external", false);
        c.call = json_object_get(json_get(o, "call"));
        *ret = c;
        return 0;
}

void talk_config_deinit(struct talk_config *c)
{
        mem_freep(&c->address);
        mem_freep(&c->path);
        mem_freep(&c->tls_host);
        c->tls_pins = strv_free(c->tls_pins);
        mem_freep(&c->authorities);
        c->headers = strv_free(c->headers);
        json_freep(&c->call);
}
