/* What another program says of its servers: a gateway's list, an editor's file. */
#include "cli/candidates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const struct json_limits limits = {.max_bytes = 1U << 20, .max_depth = 32};
        static const struct conf conf = {.max_servers = 10, .pool = (char *)"10.213.0.0/16"};
        _cleanup_candidates_ struct candidates c = {0};
        _cleanup_json_ json_object *o = NULL;

        if (json_parse(&o, (const char *)data, size, "fuzz", &limits, NULL) < 0)
                return 0;
        (void)!candidates_add_workloads(&c, o, NULL);
        (void)!candidates_add_editor(&c, o, NULL);
        candidates_judge(&c, NULL, &conf);
        for (size_t i = 0; i < c.n; i++)
                if (!c.items[i].why && (!c.items[i].entry || !registry_name_valid(c.items[i].name)))
                        abort();
        return 0;
}
