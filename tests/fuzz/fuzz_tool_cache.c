/* The file of what servers offered: any bytes are either refused, and then nothing is known, or give arrays of checked JSON. */
#include <stdint.h>

#include "broker/gateway/cache.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MANIFEST "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const names[] = {"echo", "a", ""};
        static struct tool_cache *c;
        static sd_event *loop;
        _cleanup_err_ struct err *err = NULL;

        if (!c) {
                if (sd_event_new(&loop) < 0)
                        abort();
                c = tool_cache_new(loop, "/nonexistent/tools.json");
        }
        bool taken = tool_cache_parse(c, (const char *)data, size, &err) == 0;
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                struct mcp_slice tools = tool_cache_get(c, names[i], MANIFEST), item;
                size_t pos = 0;
                int r = 0;

                if (!mcp_has(tools))
                        continue;
                if (!taken || !mcp_is_array(tools) || mcp_value_check(tools.at, tools.n, NULL) != 0)
                        abort();
                while ((r = mcp_array_next(tools, &pos, &item)) == 1)
                        ;
                if (r != 0)
                        abort();
        }
        return 0;
}
