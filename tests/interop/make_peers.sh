#!/bin/bash
# Puts upstream's released wheels into a directory of their own, for the tests that take them as real peers.
# Usage: make_peers.sh DIRECTORY [RELEASE...]. The tests look in $MOONCAKE_TRANSFER_PEERS, or in peers/ of the target directory.
# The wheels need libibverbs; where the system has none, the distribution's package is unpacked beside them.
set -euo pipefail
directory=${1:?directory}
shift
releases=("$@")
if [ ${#releases[@]} = 0 ]; then
    releases=(0.3.13.post1 0.3.11.post1 0.3.10.post2 0.3.8)
fi
mkdir -p "$directory/lib"
for release in "${releases[@]}"; do
    if [ ! -x "$directory/$release/bin/mooncake_master" ]; then
        python3 -m venv "$directory/$release"
        "$directory/$release/bin/pip" install --quiet "mooncake-transfer-engine-non-cuda==$release"
    fi
    # The script of that name starts the program as a child in some releases, which then outlives it when it is
    # killed; tests start the program itself.
    for program in "$directory/$release"/lib/python3*/site-packages/mooncake/mooncake_master; do
        chmod +x "$program"
        ln -sfn "$program" "$directory/$release/bin/upstream_master"
    done
done
if ! ldconfig -p | grep -q libibverbs.so.1 && [ ! -e "$directory/lib/libibverbs.so.1" ]; then
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    (cd "$unpacked" && apt-get download --quiet libibverbs1 libnl-3-200 libnl-route-3-200 librdmacm1)
    for package in "$unpacked"/*.deb; do
        dpkg --extract "$package" "$unpacked/root"
    done
    find "$unpacked/root" -name '*.so*' -path '*lib*' ! -path '*/rsocket/*' -exec cp --no-dereference {} "$directory/lib/" \;
fi
echo "peers in $directory"
