/* The registry loader: any bytes are either refused with a message or give entries that hold what registry.h promises. */
#include <stdint.h>

#include "common/registry/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
        if (!holds)
                abort();
}

static void check_external(const struct registry_entry *e)
{
        check(registry_name_valid(e->name) && !e->image && !e->n_egress && !e->n_mounts && !e->secrets && !e->args);
        check(e->url && e->address && e->port && e->path && e->path[0] == '/' && e->transport != TRANSPORT_STDIO);
        const char *scheme = e->tls_host ? "https://" : "http://", *host = e->tls_host ? e->tls_host : e->address;
        check(str_has_prefix(e->url, scheme) && str_has_prefix(e->url + strlen(scheme), host) && str_has_suffix(e->url, e->path));
        check(!e->tls_pins || e->tls_host);
        check(!e->tls_host || str_in_charset(e->tls_host, "abcdefghijklmnopqrstuvwxyz0123456789.-"));
        check(str_in_charset(e->address, "0123456789.") && !strpbrk(e->path, "?#%@ ") && (!e->prefix || *e->prefix));
}

static void check_entry(const struct registry_entry *e)
{
        if (e->source == SOURCE_URL) {
                check_external(e);
                return;
        }
        check(registry_name_valid(e->name) && e->source == SOURCE_DOCKER_IMAGE && e->image && strchr(e->image, '@'));
        check(str_is_digest(strchr(e->image, '@') + 1) && e->memory && e->nano_cpus && e->pids && e->tmpfs <= e->memory);
        check(str_is_hex(e->entry_sha256, 64) && e->user && e->json);
        for (size_t i = 0; i < e->n_egress; i++) {
                _cleanup_free_ char *text = egress_rule_text(&e->egress[i]);
                check(e->egress[i].cidr && !strchr(e->egress[i].cidr, ':') &&
                      (e->egress[i].n_ports > 0) == (e->egress[i].protocol != PROTOCOL_ANY));
        }
        for (size_t i = 0; i < e->n_mounts; i++)
                check(str_has_prefix(e->mounts[i].source, "/srv/data") && !strstr(e->mounts[i].source, "/../"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static char *registries[] = {"docker.io", "127.0.0.1:5000", NULL}, *roots[] = {"/srv/data", NULL}, *runtimes[] = {"runsc", NULL};
        static const struct conf conf = {.allowed_registries = registries, .mount_roots = roots, .runtimes = runtimes, .max_servers = 100};
        _cleanup_(registry_freep) struct registry *r = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (registry_parse(&r, (const char *)data, size, "fuzz", &conf, &err) < 0) {
                check(err && err_msg(err)[0]);
                return 0;
        }
        for (size_t i = 0; i < r->n_entries; i++)
                check_entry(r->entries[i]);
        return 0;
}
