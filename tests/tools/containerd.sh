#!/bin/sh
# Unpacks containerd and runc of one Debian suite, without installing them, and prints the folder of the programs:
# sh containerd.sh sid. They are linked to the C library of that suite, which is unpacked beside them: runc starts
# itself again by /proc/self/exe, so that no wrapper would do, and names its loader itself.
set -eu
cd "$(dirname "$0")/../.."
suite=$1
dir=$PWD/target/containerd/$suite
if [ -x "$dir/bin/runc" ]; then
    echo "$dir/bin"
    exit
fi
# shellcheck source=/dev/null
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
sh tests/tools/package.sh "$own" "$dir-tools" patchelf
sh tests/tools/package.sh "$suite" "$dir" containerd runc libc6 libseccomp2
loader=$(find "$dir/root" -name 'ld-linux*' | head -n 1)
mkdir "$dir/made"
for program in containerd containerd-shim-runc-v2 runc; do
    cp "$(find "$dir/root" -type f -path "*bin/$program" | head -n 1)" "$dir/made/$program"
    "$dir-tools/root/usr/bin/patchelf" --set-interpreter "$loader" --set-rpath "$(dirname "$(find "$dir/root" -name libc.so.6)")" "$dir/made/$program"
    "$dir/made/$program" --version >&2 || "$dir/made/$program" -v >&2
done
rm -rf "$dir-tools"
mv "$dir/made" "$dir/bin"
echo "$dir/bin"
