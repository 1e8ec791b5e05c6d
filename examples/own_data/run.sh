#!/bin/sh
# From labelled images of one's own to an INT8 file that passed its gate.
#
#   sh run.sh [FOLDER [OPTIONS OF icnet train]]      e.g. sh run.sh runs/own_data --steps 20
#
# Two variables make a quick run of it: DRAW holds options of draw.py (DRAW="--days 3"), GATE options
# of `icnet verify`, e.g. how much INT8 may lose (default: as the command has it).
set -eu
here=$(dirname "$0")
folder=${1:-runs/own_data}
[ $# -eq 0 ] || shift
data="--dataset folder --data $folder/farm"
release=$folder/release
mkdir -p "$release"
set -x # prints each command before it runs

# 1. The data set: images, labels, and what the labels mean. Yours goes here.
python "$here/draw.py" "$folder/farm" ${DRAW:-}
icnet dataset check "$folder/farm"

# 2. The weights that come with the kit, fine-tuned to its classes.
icnet train $data --init shipped --config "$here/farm.toml" --validate none \
    -o "$release/farm.safetensors" "$@"
icnet evaluate "$release/farm.safetensors" $data

# 3. One graph, float32, and its 8-bit forms, calibrated on training images.
icnet export --weights "$release/farm.safetensors" --size 256x512 -o "$release/farm.onnx"
icnet quantize "$release/farm.onnx" $data

# 4. The gate: every file on every runtime that is installed, against PyTorch.
icnet verify "$release" $data ${GATE:-}

# 5. Pictures, labelled by the fastest of the files that passed.
icnet predict "$folder/farm/images/val" --model "$release" -o "$folder/pictures"
