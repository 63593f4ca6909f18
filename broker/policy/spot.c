#include "broker/policy/spot.h"

#include <stdio.h>

static size_t write_step(char *out, size_t size, size_t n, const struct spot *at)
{
        char number[24];
        struct mcp_slice key = at->v->key;

        if (!key.at)
                key = (struct mcp_slice){number, (size_t)snprintf(number, sizeof(number), "%zu", at->index)};
        out[n++] = '/';
        for (size_t i = 0; i < key.n && n + 3 < size; i++) {
                char c = key.at[i];

                if (c == '~' || c == '/') {
                        out[n++] = '~';
                        c = c == '~' ? '0' : '1';
                }
                out[n++] = c;
        }
        return n;
}

static size_t write_steps(char *out, size_t size, const struct spot *at)
{
        if (!at->up)
                return 0;
        size_t n = write_steps(out, size, at->up);
        return n + 4 < size ? write_step(out, size, n, at) : n;
}

void spot_write(char *out, size_t size, const struct spot *at)
{
        size_t n = write_steps(out, size, at), last = n;

        /* Half a character at the end goes. */
        while (last > 0 && ((unsigned char)out[last - 1] & 0xc0) == 0x80)
                last--;
        if (last > 0 && (unsigned char)out[last - 1] >= 0xc0) {
                unsigned char lead = (unsigned char)out[last - 1];
                size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
                if (n - last + 1 < length)
                        n = last - 1;
        }
        out[n] = '\0';
}
