#!/usr/bin/env bash
# One piece of the embedded model's training, on a machine that has torch and nothing else.
#
#   piece.sh PACK OUT [MINUTES] [more arguments of sam2_model.training.demo]
#
# PACK is the folder `make training-pack` writes: wheels of the few packages that training
# imports, and the prepared materials. Nothing is fetched. OUT keeps the run: the same
# command goes on with it, until the last stage is done.
set -euo pipefail
pack=${1:?PACK, the folder that "make training-pack" writes}
out=${2:?OUT, the folder that keeps the run}
minutes=${3:-8}
shift $(($# < 3 ? $# : 3))
project=$(cd "$(dirname "$0")/../.." && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --target "$site" "$pack"/wheels/*.whl
PYTHONPATH="$site:$project" PYTHONUNBUFFERED=1 python3 -m sam2_model.training.demo \
    --materials "$pack/materials" --out "$out" --minutes "$minutes" \
    --workers "$(($(nproc) > 2 ? $(nproc) - 2 : 1))" "$@"
