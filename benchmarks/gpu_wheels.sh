#!/usr/bin/env bash
# What `make gpu` needs beside a CUDA machine's own PyTorch and Transformers, as wheels in a folder to take along: that
# machine may have no network. PYTHON_VERSION is that machine's; numbers come from constraints.txt.
#
#     benchmarks/gpu_wheels.sh                # fills wheels/
set -euo pipefail
cd "$(dirname "$0")/.."
PACKAGES="bitsandbytes cleanlab datasets dill multiprocess pydantic pydantic_core annotated-types typing-inspection"
PACKAGES+=" RapidFuzz termcolor httpx"
platforms=(--platform any)
for glibc in 39 35 34 31 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
rm -rf wheels
grep -iE "^(${PACKAGES// /|})==" constraints.txt | xargs "${PYTHON:-python3}" -m pip download --quiet --no-deps \
    --only-binary=:all: --implementation cp --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --dest wheels
ls -sh wheels
