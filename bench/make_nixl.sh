#!/bin/bash
# Puts NIXL's released wheel into DIRECTORY/nixl for host_cells. Usage: make_nixl.sh DIRECTORY.
# Without what it names as needed but loads only for tensors (torch and all of CUDA, 5 GB).
set -euo pipefail
directory=${1:?directory}
if [ ! -x "$directory/nixl/bin/python" ]; then
    mkdir -p "$directory"
    python3 -m venv "$directory/nixl"
    "$directory/nixl/bin/pip" install --quiet --no-deps nixl-cu12==1.5.1 numpy
fi
"$directory/nixl/bin/python" -c "import nixl_cu12._api"
echo "NIXL in $directory/nixl"
