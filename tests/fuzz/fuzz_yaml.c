/* What yaml_parse() accepts, yaml_write() must write so that it reads back as the same value. */
#include <stdlib.h>

#include "common/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_json_ json_object *o = NULL, *again = NULL;

        if (yaml_parse(&o, &loc, (const char *)data, size, "fuzz", NULL, NULL) < 0)
                return 0;
        _cleanup_free_ char *text = yaml_write(o);
        if (yaml_parse(&again, NULL, text, strlen(text), "again", &(struct json_limits){.max_bytes = 64U << 20}, NULL) < 0)
                abort();
        _cleanup_free_ char *first = json_canonical(o);
        _cleanup_free_ char *second = json_canonical(again);
        if (strcmp(first, second) != 0)
                abort();
        return 0;
}
