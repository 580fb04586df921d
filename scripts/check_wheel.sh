#!/usr/bin/env bash
# Build the wheel, install it into a new environment as a user would, and use it from another directory: run it,
# train with the example's optimizer, and type-check code that imports it.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$project/.venv/bin/python" -m build --wheel --outdir "$work/dist" "$project" >/dev/null
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "$work"/dist/*.whl
"$work/venv/bin/pip" install -q "$project/examples/my_optimizer"
"$work/venv/bin/pip" check
mkdir "$work/elsewhere"
cd "$work/elsewhere"
"$work/venv/bin/ffn-train" epochs=2 hydra.run.dir=run
"$work/venv/bin/ffn-train" -m epochs=2 seed=0,1 hydra.sweep.dir=sweep
"$work/venv/bin/ffn-lecture" topic=layer >/dev/null
"$work/venv/bin/ffn-predict" run=run split=test out=predictions.csv
"$work/venv/bin/ffn-export" run=run to=model.py
"$work/venv/bin/ffn-train" optimizer=lion lr=0.001 epochs=2 hydra.run.dir=example_run
"$work/venv/bin/ffn-train" -m optimizer=lion lr=0.001,0.0003 epochs=2 hydra.sweep.dir=example_sweep
for file in predictions.csv model.py; do test -s "$file"; done
for run in run example_run; do test -s "$run/summary.json"; done
for sweep in sweep example_sweep; do test "$(ls "$sweep"/*/summary.json | wc -l)" = 2; done

# Strict mypy refuses an `ignore` that hides no error: this passes only where mypy sees that the types are swapped.
cat >user.py <<'PYTHON'
from ffn_bench.rules import RULES, Rule
from ffn_bench.surfaces import SURFACES, Surface
swapped: tuple[Rule, Surface] = SURFACES["beale"], RULES["adam"]  # type: ignore[assignment]
PYTHON
"$project/.venv/bin/mypy" --strict --config-file= --cache-dir=/dev/null --python-executable "$work/venv/bin/python" \
    user.py "$project/examples/my_optimizer/my_optimizer"
echo "wheel: installed, run, extended and type-checked from another directory"
