#!/bin/sh
# `packaging/install.sh` as a person runs it, in namespaces of its own: it ends with a Ready node, and running it again
# changes nothing. Uses the binary that was built for the other tests.
set -eu
cd "$(dirname "$0")/.."
name=skinst$$
dir=/tmp/$name
cleanup() {
    # A story that failed left its server running.
    ip netns exec $name "$SKIFF_TEST_BINARY" uninstall --data-dir $dir/data --write-kubeconfig $dir/none >&2 || true
    ip netns del $name 2>/dev/null || true
    rm -rf $dir
}
trap cleanup EXIT
mkdir -p $dir/etc $dir/bin $dir/run $dir/data
sh tests/tools/network.sh $name 10.89.0.1/24

# What it writes outside its data directory is covered by folders of the test.
cat >$dir/story <<STORY
set -eu
hostname installed
mkdir -p /etc/skiff /run/skiff-test
mount --bind $dir/etc /etc/skiff
mount --bind $dir/bin /usr/local/bin
export SKIFF_BINARY=$SKIFF_TEST_BINARY
sh packaging/install.sh --data-dir $dir/data
first=\$(cat /run/skiff.pid)
sh packaging/install.sh --data-dir $dir/data
[ "\$first" = "\$(cat /run/skiff.pid)" ]
# A restart beside what the first run left (addresses on lo, devices) finds the same address, with no default route.
kill "\$first"
while [ -d /proc/\$first ]; do sleep 0.1; done
sh packaging/install.sh --data-dir $dir/data
first=\$(cat /run/skiff.pid)
nodes=\$(KUBECONFIG=/etc/skiff/skiff.yaml "$SKIFF_TEST_KUBECTL" get nodes -o wide)
echo "\$nodes"
case \$nodes in *' 10.89.0.1 '*) ;; *) exit 1 ;; esac
# While it runs: the server and all that it started are ended with the rest.
/usr/local/bin/skiff uninstall --data-dir $dir/data
[ ! -e $dir/data ]
# It has ended; its parent may take a moment to notice.
if grep -v '^State:.*Z' /proc/\$first/status 2>/dev/null | grep '^State:' >&2; then exit 1; fi
if pgrep -f "[c]ontainerd.*$dir" >&2; then exit 1; fi
rm -f /run/skiff.pid /var/log/skiff.log
STORY
nsenter --net=/run/netns/$name unshare --mount --uts --propagation private sh $dir/story
echo "install: 1 passed, 0 failed"
