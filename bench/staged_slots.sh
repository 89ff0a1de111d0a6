#!/bin/bash
# How the rate of staged transfers depends on length and number of slots, on the cost profiles: blocks of 64 KiB between
# two NPUs over RoCE, and from host memory here to an NPU there over HCCS, which is the relay. Writes a table.
# usage: staged_slots.sh DIRECTORY_OF_THE_BINARIES RECORD.csv
set -eu
bench=$1/transfer_engine_bench
record=$2
echo "# staged_slots.sh; GB/s of model time, GB = 1e9 bytes; a batch of 64 MiB in blocks of 64 KiB" > "$record"
echo "profile,local,slot_bytes,slots,write,read" >> "$record"
row() {
    local profile=$1 local_memory=$2 slot_bytes=$3 slots=$4 flags=()
    [ "$local_memory" = host ] && flags=(--nouse_vram)
    MOONCAKE_TRANSFER_STAGED_SLOT_BYTES=$slot_bytes MOONCAKE_TRANSFER_STAGED_SLOTS=$slots \
        "$bench" --profile "$profile" --aggregate 1 --slowdown 20 --block_size 65536 --batch_bytes 67108864 \
        "${flags[@]}" --record "${record%.csv}-part" > /dev/null 2>&1
    awk -F, -v head="$profile,$local_memory,$slot_bytes,$slots" \
        '$4 == "write" { write = $8 } $4 == "read" { read = $8 } END { print head "," write "," read }' \
        "${record%.csv}-part.csv" | tee -a "$record"
    rm -f "${record%.csv}-part.csv" "${record%.csv}-part.svg"
}
for kind in "a2-roce device" "a2-hccs host"; do
    for slot_bytes in 1048576 2097152 4194304 8388608; do
        row $kind $slot_bytes 8
    done
    for slots in 2 4 16; do
        row $kind 4194304 $slots
    done
done
