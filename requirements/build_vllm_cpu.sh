#!/bin/sh
# Prints the path of a CPU wheel of vLLM 0.6.3, built from its published source, so that the pinned
# engine runs on a machine without a GPU. Takes 2 to 8 minutes on two cores; the wheel is kept in
# Waypost's cache until this script changes. Run from the repository root, after `make env`.
#
# Needs g++ and libnuma-dev (`make system`). vLLM's own CMake build stops where torch was built with
# CUDA and no CUDA toolkit matches, so the C++ files of its CPU backend are compiled here directly:
# for AVX2, since the AVX512 part needs a newer oneDNN.
set -eu
version=0.6.3
cache=${WAYPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/waypost}/wheels
digest=$(sha256sum requirements/build_vllm_cpu.sh | cut -c 1-12)
kept=$cache/vllm-$version-$digest
wheel=$kept/vllm-$version+cpu-py3-none-any.whl
if [ -f "$wheel" ]; then
    echo "$wheel"
    exit 0
fi

echo "Building vLLM $version for the CPU (2 to 8 minutes, once)" >&2
. requirements/uv_sources.sh
uv=$PWD/.venv/bin/uv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$uv" venv --quiet --python .venv/bin/python "$work/venv"
python=$work/venv/bin/python
PATH=$work/venv/bin:$PATH
export PATH
"$uv" pip install --quiet --python "$python" "torch==2.4.0" "numpy<2" pip "setuptools<75" \
    setuptools_scm wheel jinja2 packaging ninja "cmake<4"
cd "$work"
VLLM_TARGET_DEVICE=empty "$python" -m pip download --quiet --no-deps --no-binary :all: \
    --no-build-isolation "vllm==$version" >&2
tar xzf "vllm-$version.tar.gz"
cd "vllm-$version"

# Its fallback for a CPU without bfloat16 instructions cuts the lower half of a float off, and after
# thirty layers the model says something else. Rounded to the nearest, as other devices do:
types=csrc/cpu/cpu_types_x86.hpp
sed -i -e 's/^  ai = _mm256_srli_epi32(ai, 16);$/  ai = _mm256_add_epi32(ai, _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), _mm256_and_si256(_mm256_srli_epi32(ai, 16), _mm256_set1_epi32(1))));\n&/' \
    -e 's/^  \*ptr = \*(v_ptr + 1);$/  (void)v_ptr; *ptr = c10::BFloat16(v);/' $types
[ "$(grep -c -e 'set1_epi32(0x7FFF)' -e 'c10::BFloat16(v);' $types)" -eq 2 ]

torch=$("$python" -W ignore -c 'import os, torch; print(os.path.dirname(torch.__file__))')
abi=$("$python" -W ignore -c 'import torch; print(int(torch._C._GLIBCXX_USE_CXX11_ABI))')
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
mkdir "$work/objects"
for source in activation attention cache layernorm pos_encoding torch_bindings utils; do
    echo "$source"
done | xargs -P "$(nproc)" -I '{}' g++ -c -fPIC -O2 -std=c++17 -fopenmp -mavx2 -mfma -mf16c \
    -DVLLM_CPU_EXTENSION -DTORCH_EXTENSION_NAME=_C -DPy_LIMITED_API=0x03080000 \
    -D_GLIBCXX_USE_CXX11_ABI="$abi" -Icsrc -I"$torch/include" \
    -I"$torch/include/torch/csrc/api/include" -I"$headers" 'csrc/cpu/{}.cpp' \
    -o "$work/objects/{}.o"
g++ -shared "$work"/objects/*.o -L"$torch/lib" -ltorch -ltorch_cpu -lc10 -lnuma -lgomp \
    -o vllm/_C.abi3.so

# "cpu" in the version is what makes vLLM 0.6.3 choose its CPU backend when it runs
sed -i "s/version=get_vllm_version()/version=\"$version+cpu\"/" setup.py
printf '__version__ = "%s+cpu"\n__version_tuple__ = (0, 6, 3, "cpu")\n' "$version" >vllm/_version.py
VLLM_TARGET_DEVICE=cpu VLLM_USE_PRECOMPILED=1 "$python" setup.py -q bdist_wheel >build.log 2>&1 \
    || { cat build.log >&2; exit 1; }
mkdir -p "$kept"
cp dist/*.whl "$kept/unfinished"
mv "$kept/unfinished" "$wheel"
echo "$wheel"
