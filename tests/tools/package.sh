#!/bin/sh
# Unpacks packages of one Debian suite, without installing them: sh package.sh SUITE DIRECTORY PACKAGE[/PACKAGE]...
# Of names joined by a slash the first that the suite has is taken. The machine's own apt is left as it is.
set -eu
cd "$(dirname "$0")/../.."
suite=$1 dir=$2
shift 2
rm -rf "$dir"
mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/root"
mirror=$(sh tests/tools/mirror.sh)
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $mirror $suite main" >"$dir/sources.list"
# An empty status file: a package installed from elsewhere would hide Debian's.
: >"$dir/status"
apt="apt-get -q -o Dir::State::Status=$dir/status -o Dir::Etc::SourceList=$dir/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$dir/lists -o Dir::Cache=$dir/cache"
$apt update >&2
for choice; do
    (cd "$dir" && for package in $(echo "$choice" | tr / ' '); do
        if $apt download "$package" >&2; then exit; fi
    done; exit 1)
done
for package in "$dir"/*.deb; do dpkg -x "$package" "$dir/root"; done
rm -rf "$dir/lists" "$dir/cache" "$dir"/*.deb "$dir/status"
