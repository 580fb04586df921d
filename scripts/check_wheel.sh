#!/usr/bin/env bash
# Build the wheel, install it into a new environment as a user would, and run it from another directory.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$project/.venv/bin/python" -m build --wheel --outdir "$work/dist" "$project" >/dev/null
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "$work"/dist/*.whl
"$work/venv/bin/pip" check
mkdir "$work/elsewhere"
cd /
"$work/venv/bin/ffn-train" epochs=2 "hydra.run.dir=$work/elsewhere/run"
"$work/venv/bin/ffn-train" -m epochs=2 seed=0,1 "hydra.sweep.dir=$work/elsewhere/sweep"
"$work/venv/bin/ffn-lecture" topic=layer >/dev/null
test -s "$work/elsewhere/run/summary.json"
test "$(ls "$work"/elsewhere/sweep/*/summary.json | wc -l)" = 2
echo "wheel: installed and run from another directory"
