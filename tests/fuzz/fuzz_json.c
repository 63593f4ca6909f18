/* What json_parse() accepts, its canonical text must parse to the same canonical text again. */
#include <stdlib.h>

#include "common/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(json_locations_freep) struct json_locations *loc = NULL;
        _cleanup_json_ json_object *o = NULL, *again = NULL;

        if (json_parse_located(&o, &loc, (const char *)data, size, "fuzz", NULL, NULL) < 0)
                return 0;
        _cleanup_free_ char *first = json_canonical(o);
        if (json_parse(&again, first, strlen(first), "again", &(struct json_limits){.max_bytes = 8U << 20}, NULL) < 0)
                abort();
        _cleanup_free_ char *second = json_canonical(again);
        if (strcmp(first, second) != 0)
                abort();
        return 0;
}
