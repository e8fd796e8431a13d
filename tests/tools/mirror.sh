#!/bin/sh
# Prints the address from which this machine gets Debian's packages.
set -eu
mirror=$(awk '$1 == "URIs:" && $2 !~ /security/ && /debian/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
[ -n "$mirror" ] || mirror=$(awk '$1 == "deb" && $2 ~ /debian/ && $2 !~ /security/ { print $2; exit }' /etc/apt/sources.list 2>/dev/null || true)
echo "${mirror:-http://deb.debian.org/debian}"
