#include "common/forge/record.h"
#include "common/forge/record_fields.h"
#include "common/yaml.h"

char *record_compute_id(json_object *record)
{
        _cleanup_json_ json_object *content = json_object_new_object();
        char hex[SHA256_HEX];

        json_object_object_foreach (record, key, value) {
                if (!str_eq(key, "id"))
                        json_add(content, key, json_object_get(value));
        }
        json_sha256(hex, content);
        return mem_printf("f-%.16s", hex);
}

/* A copy whose mappings are in canonical order, so that the same value always gives the same file. */
static json_object *sorted(json_object *value)
{
        if (!json_object_is_type(value, json_type_object) && !json_object_is_type(value, json_type_array))
                return json_object_get(value);
        _cleanup_free_ char *text = json_canonical(value);
        json_object *copy = NULL;
        if (json_parse(&copy, text, strlen(text), "record", NULL, NULL) < 0)
                return json_object_get(value); /* too deep or too large: record_parse() will refuse it by name */
        return copy;
}

char *record_write(json_object *record, char **ret_id)
{
        _cleanup_json_ json_object *ordered = json_object_new_object();
        char *id = record_compute_id(record);

        json_object_object_del(record, "id");
        json_add_str(record, "id", id);
        for (size_t i = 0; i < record_n_fields; i++) {
                json_object *v;
                if (json_object_object_get_ex(record, record_fields[i].key, &v))
                        json_add(ordered, record_fields[i].key, sorted(v));
        }
        /* Keys we do not know are kept: dropping them would break the id; the parser refuses them by name. */
        json_object_object_foreach (record, key, value) {
                if (!json_object_object_get_ex(ordered, key, NULL))
                        json_add(ordered, key, sorted(value));
        }
        if (ret_id)
                *ret_id = id;
        else
                free(id);
        return yaml_write(ordered);
}
