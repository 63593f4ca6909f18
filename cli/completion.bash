# bash completion for bulkhead. What it completes beside words, it asks bulkhead itself, quickly and without noise.

_bulkhead_servers() {
        bulkhead status --json 2>/dev/null | sed -n 's/^ *"name": *"\([a-z0-9-]*\)".*/\1/p'
}

_bulkhead_pending() {
        bulkhead pending --json 2>/dev/null | sed -n 's/^ *"id": *"\([cf]-[0-9a-f]*\)".*/\1/p'
}

_bulkhead_agents() {
        bulkhead agent list 2>/dev/null | sed -n '1!s/^\([a-z0-9-]*\) .*/\1/p'
}

_bulkhead_options() {
        case $1 in
        init) echo "--audience --var" ;;
        apply) echo "--once" ;;
        propose) echo "--entry --image --url --address --tls-pin --description --transport --port --path --entrypoint --arg --env --secret --egress --memory --cpus --pids" \
                "--tmpfs --user --runtime --lifecycle --idle-timeout --smoke-tool --by --reason" ;;
        discover) echo "--propose --cursor --reason" ;;
        smoke) echo "--ci --junit --engine --registry" ;;
        approve) echo "--key --expires --as --reason --yes" ;;
        reject) echo "--key --reason --as" ;;
        revoke) echo "--key --reason --as --server" ;;
        status) echo "--metrics" ;;
        compose) echo "--open --pool --seccomp" ;;
        token) echo "--ttl --run" ;;
        tools) echo "--limit --url --token-file" ;;
        call) echo "--tool --url --token-file" ;;
        esac
}

_bulkhead() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb= i
        local verbs="init validate plan apply status discover propose smoke approve promote reject revoke pending agent token tools call egress compose doctor"
        local global="--config --socket --json --no-color --help"

        COMPREPLY=()
        for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                --config | --socket) i=$((i + 1)) ;;
                -*) ;;
                *) verb=${COMP_WORDS[i]} && break ;;
                esac
        done
        case $prev in
        --config | --socket | --entry | --key | --junit | --engine | --registry | --token-file)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return ;;
        --transport) mapfile -t COMPREPLY < <(compgen -W "stdio streamable-http sse" -- "$cur"); return ;;
        --lifecycle) mapfile -t COMPREPLY < <(compgen -W "always-on on-demand" -- "$cur"); return ;;
        --server) mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_servers)" -- "$cur"); return ;;
        esac
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_options "$verb") $global" -- "$cur")
                return
        fi
        case $verb in
        "") mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur") ;;
        status | propose) mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_servers)" -- "$cur") ;;
        smoke | approve | reject | promote) mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_pending)" -- "$cur") ;;
        token) mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_agents)" -- "$cur") ;;
        tools) [[ $prev == tools ]] && mapfile -t COMPREPLY < <(compgen -W "search describe load" -- "$cur") ;;
        agent)
                if [[ $prev == agent ]]; then
                        mapfile -t COMPREPLY < <(compgen -W "add rotate remove list" -- "$cur")
                elif [[ $prev == rotate || $prev == remove ]]; then
                        mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_agents)" -- "$cur")
                fi ;;
        egress)
                if [[ $prev == egress ]]; then
                        mapfile -t COMPREPLY < <(compgen -W "show verify" -- "$cur")
                else
                        mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_servers)" -- "$cur")
                fi ;;
        compose)
                if [[ $prev == compose ]]; then
                        mapfile -t COMPREPLY < <(compgen -W "export seccomp" -- "$cur")
                else
                        mapfile -t COMPREPLY < <(compgen -W "$(_bulkhead_servers)" -- "$cur")
                fi ;;
        validate)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
}

complete -F _bulkhead bulkhead
