#include "common/policy/rules.h"

/*
 * What is in force where a policy leaves a key out; security_policy.json(5) says the same in words. Text as in a file, read by the same
 * code. The patterns see each string in its normal form (normal.h), so none of them cares for case, encoding or kinds of slashes.
 */
const char policy_builtin[] =
        "{\"version\": \"1.0\","
        " \"rate_limits\": [{\"tools\": [\"*:*\"], \"max_calls\": 120, \"window_seconds\": 60}],"
        " \"budgets\": {\"period\": \"day\", \"max_api_calls\": 10000},"
        " \"blocked_patterns\": ["
        /* A string without white space is taken for a path: prose and program text may say "../". In the path form only what climbs out
         * of where it starts still begins with dots. */
        "  {\"name\": \"path-traversal\", \"pattern\": \"^/*\\\\.\\\\.(/\\\\S*)?$|^(\\\\S*/)?\\\\.\\\\.;\\\\S*$\"},"
        "  {\"name\": \"system-accounts\", \"pattern\": \"(^|/)etc/(passwd|shadow|gshadow|sudoers|ssh)(\\\\b|$)\"},"
        "  {\"name\": \"private-keys\", \"pattern\": \"(^|/)\\\\.(ssh|gnupg|aws|kube|docker)(/|$)|(^|/)id_(rsa|ed25519|ecdsa)$\"},"
        "  {\"name\": \"process-files\", \"pattern\": \"(^|/)proc/(self|thread-self|[0-9]+|sys|kcore)(/|$)\"},"
        "  {\"name\": \"cloud-metadata\", \"pattern\": \"(^|[^0-9.])169\\\\.254\\\\.169\\\\.254($|[^0-9])|metadata\\\\.google\\\\.internal"
        "|(^|[^0-9])2852039166($|[^0-9])|0xa9fea9fe|0xa9\\\\.0xfe\\\\.0xa9\\\\.0xfe|0*251\\\\.0*376\\\\.0*251\\\\.0*376|:a9fe:a9fe\"}"
        " ],"
        " \"tool_approval_required\": [\"credential\", \"exec\"],"
        " \"log_redaction\": [\"*password*\", \"*passwd*\", \"*secret*\", \"*token*\", \"*credential*\", \"*api?key*\", \"*apikey*\","
        "  \"*private?key*\", \"authorization\", \"cookie\"],"
        " \"artifact_retention_days\": 7,"
        " \"max_artifact_size_mb\": 100,"
        " \"audit_log\": {\"max_file_mb\": 64, \"max_files\": 16}}";
