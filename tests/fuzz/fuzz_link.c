/* Any line, as a request and as an answer. */
#include <stddef.h>
#include <stdint.h>

#include "common/link/line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_json_ json_object *request = NULL;
        _cleanup_line_answer_ struct line_answer answer = {0};
        _cleanup_buf_ struct buf again = {0};
        const char *text = size ? (const char *)data : "";

        if (line_parse_request(&request, text, size, NULL) == 0) {
                /* What was accepted is one line again. */
                line_append(&again, request);
                if (memchr(again.data, '\n', again.len) != again.data + again.len - 1)
                        abort();
        }
        (void)!line_parse_answer(&answer, text, size, NULL);
        return 0;
}
