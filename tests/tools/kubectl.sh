#!/bin/sh
# Unpacks kubectl of one Debian suite, without installing it, and prints its path: sh kubectl.sh sid
# Everything is kept under target/kubectl/<suite>; the machine's own apt is left as it is.
set -eu
cd "$(dirname "$0")/../.."
suite=$1
dir=$PWD/target/kubectl/$suite
if [ -x "$dir/root/usr/bin/kubectl" ]; then
    echo "$dir/root/usr/bin/kubectl"
    exit
fi
rm -rf "$dir"
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/root"
mirror=$(sh tests/tools/mirror.sh)
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror $suite main" >"$dir/sources.list"
# An empty status file: a kubectl installed from elsewhere would hide Debian's.
: >"$dir/status"
apt="apt-get -q -o Dir::State::Status=$dir/status -o Dir::Etc::SourceList=$dir/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$dir/lists -o Dir::Cache=$dir/cache"
$apt update >&2
# The program moved from kubernetes-client to a package of its own name.
(cd "$dir" && { $apt download kubectl || $apt download kubernetes-client; } >&2)
for package in "$dir"/*.deb; do dpkg -x "$package" "$dir/root"; done
if [ ! -x "$dir/root/usr/bin/kubectl" ]; then
    echo "kubectl.sh: Debian $suite has no kubectl where it is expected" >&2
    exit 1
fi
rm -rf "$dir/lists" "$dir/cache" "$dir"/*.deb "$dir/status"
echo "$dir/root/usr/bin/kubectl"
