# What tests need from npm on the machine itself: a current Node (Debian's is too old for the clients), the conformance suite, the official clients, and
# the servers they talk to. Installed once into the cache, without running any package's scripts; nothing outside of it is touched.
# shellcheck shell=bash
RIG_NPM_TOOLS="@modelcontextprotocol/conformance@0.2.0-alpha.12 @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.4.0
        @modelcontextprotocol/inspector@2.12.0"
RIG_NPM_NODE=22.23.3

npm_packages() {
        local s arch
        case "$(uname -m)" in
        x86_64) arch=x64 ;;
        aarch64) arch=arm64 ;;
        *) fail "no Node package for $(uname -m)" || return 1 ;;
        esac
        echo "node-linux-$arch@$RIG_NPM_NODE"
        for s in $RIG_NPM_SERVERS; do
                echo "@modelcontextprotocol/server-$s"
        done
        printf '%s\n' $RIG_NPM_TOOLS
}

npm_dir() { echo "$RIG_CACHE/npm-$(npm_packages | sha256sum | cut -c1-16)"; }

npm_up() {
        local dir packages tmp
        dir=$(npm_dir) || return 1
        mkdir -p "$RIG_CACHE"
        (
                flock 9
                [ ! -d "$dir" ] || exit 0
                say "installing Node and the clients (first time on this machine)"
                tmp=$(mktemp -d "$RIG_CACHE/tmp.XXXXXX")
                chmod 755 "$tmp"
                mapfile -t packages < <(npm_packages)
                timeout 900 npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --omit=dev --engine-strict=false "${packages[@]}" </dev/null \
                        >"$RIG_RUN/npm-tools.log" 2>&1 || { rm -rf "$tmp"; fail "npm install failed, see $RIG_RUN/npm-tools.log"; exit 1; }
                # One name for it, whatever the machine is.
                (cd "$tmp" && ln -s node_modules/node-linux-*/bin/node node)
                mv "$tmp" "$dir"
        ) 9>"$RIG_CACHE/npm.lock"
}
