/*
 * For test_schemas.py: what our validator says of schemas and values. Reads {"schema":…,"values":[…]} a line; writes for each line
 * "refused WHY", or a 1 (fits) or 0 for every value.
 */
#include <stdio.h>

#include "broker/policy/schema.h"

static void answer(const char *line, size_t n)
{
        _cleanup_(schema_freep) struct schema *s = NULL;
        static struct value_tree tree;
        _cleanup_err_ struct err *err = NULL;
        struct mcp_slice whole = {line, n}, text, values, value;
        struct schema_fault fault;

        if (mcp_value_check(line, n, &err) != 0) {
                printf("refused the line: %s\n", err_msg(err));
                return;
        }
        text = mcp_object_get(whole, "schema");
        values = mcp_object_get(whole, "values");
        if (schema_new(&s, text.at, text.n, &err) < 0) {
                printf("refused %s\n", err_msg(err));
                return;
        }
        for (size_t pos = 0; mcp_array_next(values, &pos, &value);)
                putchar(value_parse(&tree, value, NULL) == 0 && schema_check(s, &tree, &fault) == 0 ? '1' : '0');
        putchar('\n');
}

int main(void)
{
        char *line = NULL;
        size_t cap = 0;
        ssize_t n;

        while ((n = getline(&line, &cap, stdin)) > 0)
                answer(line, (size_t)n - (line[n - 1] == '\n'));
        free(line);
        return 0;
}
