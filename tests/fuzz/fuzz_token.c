/* Tokens and the file of identities: any bytes are refused or read; a token is only ever valid when our own key made it. */
#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/identity/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW 1800000000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct identities *ids;
        _cleanup_(identities_freep) struct identities *other = NULL, *again = NULL;
        _cleanup_token_ struct token t = {0};
        uint8_t secret[IDENTITY_SECRET];

        if (!ids) {
                if (sodium_init() < 0)
                        abort();
                ids = NEW(struct identities);
                identities_set_agent(ids, "agent", 0);
                identities_new_key(ids, secret, NOW, 0);
        }
        /* Nobody guesses a signature. */
        if (token_verify(&t, ids, "host", (const char *)data, size, NOW, NULL) == 0)
                abort();
        if (identities_parse(&other, (const char *)data, size, "fuzz", NULL) == 0) {
                _cleanup_json_ json_object *o = identities_to_json(other);
                _cleanup_free_ char *text = json_canonical(o);
                if (identities_parse(&again, text, strlen(text), "again", NULL) < 0 || again->n_agents != other->n_agents)
                        abort();
        }
        return 0;
}
