#include "tests/bench/world.h"

#include <stdio.h>

/* What a usual entry has: arguments, a variable, a secret-free stdio server, two permissions. */
static char *entry_text(unsigned i, const char *image, const char *args)
{
        return mem_printf("{\"description\": \"server %u of a measurement\", \"enabled\": true, \"source\": \"docker_image\", "
                          "\"image\": \"%s\", \"transport\": \"stdio\", %s\"env\": {\"LOG_LEVEL\": \"info\"}, "
                          "\"egress\": [{\"cidr\": \"192.0.2.%u/32\", \"protocol\": \"tcp\", \"ports\": [443]}, "
                          "{\"cidr\": \"198.51.100.0/24\", \"protocol\": \"tcp\", \"ports\": [80, 443]}]}",
                          i, image, args, i % 250 + 1);
}

static void hash_of(char out[SHA256_HEX], const char *what, unsigned i)
{
        _cleanup_free_ char *text = mem_printf("%s %u", what, i);

        sha256_hex(out, text, strlen(text));
}

static struct image_facts *make_facts(const struct world_server *s, const struct world_image *image)
{
        struct image_facts *f = NEW(struct image_facts);
        const char *at = strchr(s->entry->image, '@');

        f->reference = mem_strndup(s->entry->image, (size_t)(at - s->entry->image));
        f->digest = mem_strdup(at + 1);
        f->platform = mem_strdup("linux/amd64");
        f->image_id = image ? mem_strdup(image->id) : mem_printf("sha256:%s", s->image_id);
        return f;
}

int world_server_init(struct world_server *s, const struct conf *conf, unsigned i, const struct world_image *image, struct err **err)
{
        _cleanup_json_ json_object *json = NULL;
        struct address_pool *pool = NULL;
        char digest[SHA256_HEX];

        *s = (struct world_server){0};
        snprintf(s->name, sizeof(s->name), "s%04u", i % 10000);
        hash_of(digest, "digest", i);
        hash_of(s->image_id, "image", i);
        hash_of(s->network_id, "network", i);
        hash_of(s->container_id, "container", i);
        _cleanup_free_ char *invented = mem_printf("127.0.0.1:5000/mcp/measured-%04u:1.0@sha256:%s", i, digest);
        _cleanup_free_ char *text =
                entry_text(i, image ? image->reference : invented, image ? "" : "\"args\": [\"--verbose\", \"--root\", \"/tmp\"], ");
        if (json_parse(&json, text, strlen(text), s->name, NULL, err) < 0 ||
            registry_entry_parse(&s->entry, s->name, json, s->name, conf, err) < 0)
                return -1;
        s->facts = make_facts(s, image);
        if (spec_build(&s->spec, s->entry, s->facts, err) < 0 || address_pool_new(&pool, conf->pool, err) < 0)
                return -1;
        int r = 0;
        for (unsigned k = 0; k <= i && r == 0; k++)
                r = address_pool_take(pool, s->subnet, err);
        address_pool_free(pool);
        if (r < 0)
                return -1;
        address_of_gateway(s->gateway, s->subnet);
        address_of_container(s->address, s->subnet);
        s->network = spec_network_name(s->name, s->spec, "server");
        s->container = spec_container_name(s->name, s->spec, "server");
        spec_bridge_name(s->bridge, conf->audience, s->name, s->spec, "server");
        return 0;
}

void world_server_deinit(struct world_server *s)
{
        registry_entry_free(s->entry);
        image_facts_free(s->facts);
        spec_free(s->spec);
        free(s->network);
        free(s->container);
}
