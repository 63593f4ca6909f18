#include "common/spec/internal.h"

const char *spec_seccomp_profile(void)
{
        return spec_seccomp_text;
}

/* Of the canonical form: reformatting the file is not a new profile. Computed once; the programs are single-threaded. */
const char *spec_seccomp_sha256(void)
{
        static char hash[SHA256_HEX];

        if (!hash[0]) {
                _cleanup_json_ json_object *profile = NULL;
                _cleanup_err_ struct err *err = NULL;

                /* Our own constant: that it parses is a property of the build, checked by its tests. */
                if (json_parse(&profile, spec_seccomp_text, strlen(spec_seccomp_text), "seccomp.json", NULL, &err) < 0)
                        abort();
                json_sha256(hash, profile);
        }
        return hash;
}
