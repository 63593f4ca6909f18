#!/bin/sh
# The manual pages say nothing that mandoc warns about, and bulkhead(1) knows every verb and the controller's manual every option.
command -v mandoc >/dev/null || exit 77
man=${top_srcdir:-.}/docs/man
failed=0
for page in "$man"/*.[158]; do
        mandoc -T lint -W style "$page" 2>/dev/null | grep -v "referenced manual not found" && failed=1
done
verbs=$("${top_builddir:-.}/bulkhead" --help | sed -n '/^Verbs:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ -n "$verbs" ] || { echo "bulkhead --help names no verb"; exit 1; }
for verb in $verbs; do
        grep -q "^\.It Cm $verb" "$man/bulkhead.1" || { echo "bulkhead.1 does not know $verb"; failed=1; }
        grep -qw "$verb" "${top_srcdir:-.}/cli/completion.bash" || { echo "completion.bash does not know $verb"; failed=1; }
        for option in $("${top_builddir:-.}/bulkhead" "$verb" --help | sed -n '/^Options:/,/^$/s/^  --\([a-z-]*\) .*/\1/p'); do
                grep -q -- "-$option\\b" "$man/bulkhead.1" || { echo "bulkhead.1 does not know $verb --$option"; failed=1; }
                grep -q -- "--$option\\b" "${top_srcdir:-.}/cli/completion.bash" || { echo "completion.bash does not know $verb --$option"; failed=1; }
        done
done
exit $failed
