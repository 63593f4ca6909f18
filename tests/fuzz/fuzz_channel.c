/* Any packet of the link between controller and broker. What is read is written, and read again the same. */
#include <stddef.h>
#include <stdint.h>

#include "common/link/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(channel_message_deinit) struct channel_message m = {0}, again = {0};

        if (channel_parse(&m, size ? (const char *)data : "", size, NULL) < 0)
                return 0;
        _cleanup_free_ char *text = channel_format(&m);
        if (strlen(text) > CHANNEL_MAX_PACKET) /* escapes may make it longer than it came */
                return 0;
        if (channel_parse(&again, text, strlen(text), NULL) < 0 || m.kind != again.kind || m.version != again.version ||
            !str_eq(m.why, again.why) || !channel_entry_equal(&m.entry, &again.entry))
                abort();
        return 0;
}
