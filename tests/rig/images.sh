# Images, made without any image registry and without a network inside a build: Debian by debootstrap, servers by npm on this machine, and COPY.
# The result lies in the rig's registry; what was pushed is cached by recipe, so that the next rig only copies it.
# shellcheck shell=bash
# RIG_DEBIAN: a mirror for debootstrap instead of its own default.
RIG_NPM_SERVERS="everything@2026.8.31 filesystem@2026.8.31 memory@2026.8.31"

images_key() {
        { cat "$RIG_SRC/images.sh" && uname -m; } | sha256sum | cut -c1-16
}

# The cache holds the registry's storage and the list of digests.
images_up() {
        local cache
        cache=$RIG_CACHE/$(images_key)
        mkdir -p "$RIG_CACHE"
        (
                # Two rigs that start on a cold machine: one builds, the other waits for it.
                flock 9
                if [ -e "$cache/images.json" ]; then
                        say "images from the cache $cache"
                        cp -a --reflink=auto "$cache/registry/." "$RIG_DATA/registry/"
                        cp "$cache/images.json" "$RIG_RUN/images.json"
                        exit 0
                fi
                say "building images (first time on this machine)"
                images_build
                images_save "$cache"
        ) 9>"$RIG_CACHE/lock"
}

images_save() {
        local tmp
        tmp=$(mktemp -d "$RIG_CACHE/tmp.XXXXXX")
        cp -a "$RIG_DATA/registry" "$tmp/registry"
        cp "$RIG_RUN/images.json" "$tmp/images.json"
        rm -rf "$1"
        mv "$tmp" "$1"
}

images_build() {
        local work=$RIG_DATA/images
        mkdir -p "$work/app"
        images_npm "$work/app" >"$RIG_RUN/npm.log" 2>&1 &
        local npm=$!
        images_debian "$work/root" >"$RIG_RUN/debootstrap.log" 2>&1 || fail "debootstrap failed, see $RIG_RUN/debootstrap.log" || return 1
        wait "$npm" || fail "npm install failed, see $RIG_RUN/npm.log" || return 1
        engine_wait
        tar --numeric-owner -C "$work/root" -cf - . | rig_docker import --change 'CMD ["bash"]' - debian:bookworm-slim >/dev/null
        rm -rf "$work/root"
        registry_wait
        images_push base/debian bookworm-slim debian:bookworm-slim
        images_servers "$work"
        rm -rf "$work"
}

images_debian() {
        timeout 600 debootstrap --variant=minbase --include=nodejs,ca-certificates bookworm "$1" ${RIG_DEBIAN:+"$RIG_DEBIAN"}
        rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/locale/*
}

images_npm() {
        local s packages=()
        for s in $RIG_NPM_SERVERS; do
                packages+=("@modelcontextprotocol/server-$s")
        done
        timeout 600 npm install --prefix "$1" --ignore-scripts --no-audit --no-fund --omit=dev "${packages[@]}" </dev/null
}

# One layer with all npm servers; images differ in what they start.
images_servers() {
        local work=$1 s name main
        printf 'FROM debian:bookworm-slim\nCOPY app /app\nWORKDIR /app\nENV NODE_ENV=production\n' >"$work/Dockerfile"
        rig_docker build -q -t rig/npm "$work" >/dev/null
        for s in $RIG_NPM_SERVERS; do
                name=${s%@*}
                main=/app/node_modules/@modelcontextprotocol/server-$name/dist/index.js
                printf 'FROM rig/npm\nENTRYPOINT ["node","%s"]\n' "$main" | rig_docker build -q -t "rig/$name" - >/dev/null
                images_push "mcp/$name" "${s#*@}" "rig/$name"
        done
        # A shell and network tools, for looking at things from inside.
        mkdir -p "$work/busybox/bin" "$work/busybox/tmp"
        cp "$(command -v busybox)" "$work/busybox/bin/busybox"
        local applet
        for applet in sh cat ls id mount grep nc wget ping sleep nslookup ip traceroute head echo env touch; do
                ln -sf busybox "$work/busybox/bin/$applet"
        done
        printf 'FROM scratch\nCOPY busybox /\nENV PATH=/bin\nCMD ["/bin/sleep","86400"]\n' >"$work/Dockerfile"
        rig_docker build -q -t rig/busybox "$work" >/dev/null
        images_push tool/busybox 1 rig/busybox
}

# Fixture servers that the build made: images_fixture NAME TAG PROGRAM. With busybox beside the server, for looking at it from inside.
images_fixture() {
        local name=$1 tag=$2 program=$3 work
        work=$(mktemp -d "$RIG_DATA/fixture.XXXXXX")
        cp "$program" "$work/server"
        printf 'FROM rig/busybox\nCOPY server /server\nLABEL rig.variant=%s\nENTRYPOINT ["/server"]\nCMD []\n' "$tag" >"$work/Dockerfile"
        if ! rig_docker image inspect rig/busybox >/dev/null 2>&1; then
                rig_docker pull -q "$RIG_REGISTRY/tool/busybox:1" >/dev/null
                rig_docker tag "$RIG_REGISTRY/tool/busybox:1" rig/busybox
        fi
        rig_docker build -q -t "rig/$name:$tag" "$work" >/dev/null
        images_push "mcp/$name" "$tag" "rig/$name:$tag"
        rm -rf "$work"
}

# images_push NAME TAG LOCAL: pushes, and writes down the digest: images.json has NAME:TAG -> NAME@digest.
images_push() {
        local name=$1 tag=$2 local_tag=$3 target digest
        target=$RIG_REGISTRY/$name:$tag
        rig_docker tag "$local_tag" "$target"
        digest=$(rig_docker push "$target" | sed -n 's/.*digest: \(sha256:[0-9a-f]\{64\}\) .*/\1/p')
        [ -n "$digest" ] || fail "push of $target gave no digest" || return 1
        python3 - "$RIG_RUN/images.json" "$name:$tag" "$target@$digest" <<'PY'
import json, os, sys
path, key, image = sys.argv[1:]
images = json.load(open(path)) if os.path.exists(path) else {}
images[key] = image
with open(path + ".new", "w") as f:
    json.dump(images, f, indent=1, sort_keys=True)
os.rename(path + ".new", path)
PY
        say "image $name:$tag $digest"
}
