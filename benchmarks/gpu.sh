#!/bin/sh
# Is the kit right, fast and true on a GPU? Half an hour answers it; what it measures: docs/performance.md.
#   sh benchmarks/gpu.sh FOLDER                           on a GPU, with the images of CIFAR-10 in data/ or $RKDKIT_DATA
#   sh benchmarks/gpu.sh FOLDER --tiny --device cpu       a rehearsal of a few minutes
# Run again, it goes on where it was stopped. It needs torch and what the kit imports, and says what else is missing.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 \
    exec "${PYTHON:-python3}" "$root/benchmarks/gpu/answer.py" "$@"
