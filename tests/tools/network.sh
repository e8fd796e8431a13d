#!/bin/sh
# Makes a network namespace with one interface and no way out: sh network.sh NAME ADDRESS/PREFIX
set -eu
ip netns add "$1"
ip -n "$1" link add eth0 type veth peer name eth1
ip -n "$1" addr add "$2" dev eth0
for device in eth0 eth1 lo; do ip -n "$1" link set $device up; done
