/* Approval records: any bytes are parsed or refused; what was parsed is written and read back as the same value. */
#include <stdint.h>
#include <stdlib.h>

#include "common/forge/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(record_freep) struct record *r = NULL, *again = NULL;
        _cleanup_err_ struct err *err = NULL;

        if (record_parse(&r, (const char *)data, size, "fuzz", &err) < 0)
                return 0;
        _cleanup_free_ char *id = NULL, *text = record_write(r->json, &id);
        if (!str_eq(id, r->id))
                abort();
        /* Quoting may make the text longer than the limit; a shorter one must come back. */
        if (strlen(text) <= RECORD_MAX_BYTES && record_parse(&again, text, strlen(text), "again", &err) < 0)
                abort();
        return 0;
}
