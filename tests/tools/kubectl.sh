#!/bin/sh
# Unpacks kubectl of one Debian suite, without installing it, and prints its path: sh kubectl.sh sid
# Everything is kept under target/kubectl/<suite>.
set -eu
cd "$(dirname "$0")/../.."
suite=$1
dir=$PWD/target/kubectl/$suite
if [ ! -x "$dir/root/usr/bin/kubectl" ]; then
    # The program moved from kubernetes-client to a package of its own name.
    sh tests/tools/package.sh "$suite" "$dir" kubectl/kubernetes-client
fi
if [ ! -x "$dir/root/usr/bin/kubectl" ]; then
    echo "kubectl.sh: Debian $suite has no kubectl where it is expected" >&2
    exit 1
fi
echo "$dir/root/usr/bin/kubectl"
