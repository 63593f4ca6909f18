#!/bin/sh
# Makes ./configure from configure.ac. Needs autoconf, automake, pkg-config and autoconf-archive.
set -e
cd "$(dirname "$0")"
exec autoreconf --force --install --warnings=all
