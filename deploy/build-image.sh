#!/bin/sh
# Builds an image of this repository:  deploy/build-image.sh bulkhead|everything
# Downloads only, without an Engine:   deploy/build-image.sh NAME --fetch
#
# The shipped Dockerfiles start FROM debian:bookworm-slim and take everything else from their build context, which this script fills on the
# host: Debian packages by apt, npm packages by npm. So a build works the same whether or not containers here reach a network, through
# whatever proxy or mirror the host's own apt and npm are set up for. Where Docker Hub cannot be reached, a debootstrap of Debian 12 stands
# in for debian:bookworm-slim under the same name.
set -eu
. "$(dirname "$0")/lib.sh"

base=debian:bookworm-slim
name=${1:-}
fetch_only=${2:-}
context=$work/image-$name
case $name in
bulkhead) tag=bulkhead/bulkhead:local ;; # controller and broker
everything) tag=$example ;;
*) die "which image? bulkhead or everything" "usage: deploy/build-image.sh bulkhead|everything [--fetch]" ;;
esac

mirror() {
        apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' 2>/dev/null | head -n 1
}

make_standin() {
        [ -s "$work/standin.tar" ] && return
        say "making a Debian 12 base with debootstrap"
        rm -rf "$work/standin"
        uri=$(mirror)
        run "Check that this host reaches its Debian mirror: apt-get update" \
                debootstrap --variant=minbase bookworm "$work/standin" ${uri:+"$uri"}
        rm -rf "$work/standin"/var/cache/apt/archives/*.deb "$work/standin"/var/lib/apt/lists/*
        tar -C "$work/standin" --one-file-system -cf "$work/standin.tar.tmp" .
        mv "$work/standin.tar.tmp" "$work/standin.tar"
        cp "$work/standin/var/lib/dpkg/status" "$work/standin.status"
        rm -rf "$work/standin"
}

# Makes $base exist and leaves the list of its packages in $context/status.
make_base() {
        if [ -n "$fetch_only" ]; then
                make_standin
                cp "$work/standin.status" "$context/status"
                return
        fi
        if ! docker image inspect "$base" >/dev/null 2>&1; then
                if timeout 90 docker pull -q "$base" >/dev/null 2>&1; then
                        say "pulled $base"
                else
                        say "Docker Hub gives no $base; making a stand-in of that name"
                        make_standin
                        run "Look at the Engine: docker info" docker import -c 'CMD ["bash"]' "$work/standin.tar" "$base"
                fi
                made image "$base"
        fi
        container=$(docker create "$base" true)
        docker cp -q "$container:/var/lib/dpkg/status" "$context/status" 2>/dev/null || docker cp "$container:/var/lib/dpkg/status" "$context/status" >/dev/null
        docker rm "$container" >/dev/null
}

# fetch_debs PACKAGE…: what a system with $context/status needs to have these, with the security updates, into $context/debs.
fetch_debs() {
        mkdir -p "$context/debs/partial"
        # Only Debian's own packages go into an image, whatever else the host's sources offer.
        printf 'Package: *\nPin: release o=Debian\nPin-Priority: 990\n' >"$context/preferences"
        for what in "dist-upgrade" "install $*"; do
                # shellcheck disable=SC2086
                run "Check that this host reaches its Debian mirror: apt-get update" \
                        apt-get -y --no-install-recommends --download-only -o APT::Sandbox::User=root -o "Dir::State::status=$context/status" \
                        -o "Dir::Etc::Preferences=$context/preferences" -o "Dir::Cache::archives=$context/debs" \
                        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= $what
        done
        rm -rf "$context/debs/partial" "$context/debs/lock"
}

fetch_npm() {
        lock=$here/examples/everything/package-lock.json
        cmp -s "$lock" "$context/node_modules/.fetched" && return
        say "fetching $(grep -c '"integrity"' "$lock") npm packages, pinned by hash, without running their scripts"
        rm -rf "$context/node_modules"
        run "Check that this host reaches its npm registry: npm ping" \
                npm ci --prefix "$context" --ignore-scripts --omit=dev --no-audit --no-fund
        cp "$lock" "$context/node_modules/.fetched"
}

mkdir -p "$context"
make_base
# Fetched debs stay while base and list are the same: apt would find newer ones some day, and a second run is to change nothing.
case $name in
bulkhead) wanted=$(packages image | tr '\n' ' ') ;;
everything) wanted=nodejs ;;
esac
{ cat "$context/status"; echo "$wanted"; } >"$context/wanted"
if ! cmp -s "$context/wanted" "$context/wanted.fetched" || ! [ -d "$context/debs" ]; then
        rm -rf "$context/debs"
        # shellcheck disable=SC2086
        fetch_debs $wanted
        mv "$context/wanted" "$context/wanted.fetched"
fi
case $name in
bulkhead)
        cp "$top/compose/Dockerfile" "$context/Dockerfile"
        if [ -z "$fetch_only" ]; then
                [ -x "$work/stage/usr/local/sbin/bulkhead-controller" ] ||
                        die "nothing built in $work/stage" "Run deploy/quickstart.sh, or: make install DESTDIR=$work/stage"
                rm -rf "$context/tree"
                mkdir -p "$context/tree/usr/local"
                for part in bin sbin libexec; do
                        [ -d "$work/stage/usr/local/$part" ] && cp -a "$work/stage/usr/local/$part" "$context/tree/usr/local/"
                done
        fi
        ;;
everything)
        cp "$here/examples/everything/Dockerfile" "$here/examples/everything/package.json" "$here/examples/everything/package-lock.json" "$context/"
        fetch_npm
        ;;
esac
printf '*\n!Dockerfile\n!debs\n!tree\n!package.json\n!node_modules\n' >"$context/.dockerignore"
[ -z "$fetch_only" ] || exit 0

say "building $tag"
layers=$(docker image ls -q --no-trunc --filter dangling=true)
had=$(docker image inspect -f '{{.Id}}' "$tag" 2>/dev/null || true)
run "Look at the Engine: docker info" docker build --network none --build-arg "BASE=$base" -t "$tag" "$context"
[ "$had" = "$(docker image inspect -f '{{.Id}}' "$tag")" ] && say "unchanged"
made image "$tag"
# The older builder leaves the first stage behind as an image without a name; it is the cache for the next run.
for id in $(docker image ls -q --no-trunc --filter dangling=true); do
        case $layers in *"$id"*) ;; *) made image "$id" ;; esac
done
