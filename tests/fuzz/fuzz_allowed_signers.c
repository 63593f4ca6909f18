/* The trust root's text: no crash, and never a line with a wildcard or an authority. */
#include <stdint.h>
#include <stdlib.h>

#include "common/forge/sshsig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_err_ struct err *err = NULL;

        if (allowed_signers_check_text((const char *)data, size, "fuzz", &err) < 0)
                return 0;
        /* Every accepted line starts with a plain name, a comment sign or is blank. */
        for (size_t i = 0, start = 1; i < size; i++) {
                if (start && (data[i] == '*' || data[i] == '!' || data[i] == '"'))
                        abort();
                start = data[i] == '\n' || (start && (data[i] == ' ' || data[i] == '\t'));
        }
        return 0;
}
