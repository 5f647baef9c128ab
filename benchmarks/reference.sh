#!/bin/sh
# The reference board: what augmentations are worth where lesions are few, and whether the board can tell.
#
#     sh benchmarks/reference.sh WORK      # about two CPU-hours; killed at any moment, it continues
#     dbtbench leaderboard --workspace WORK --results results
#
# A phantom cohort on 8 x 64 x 64 whose lesions are faint and differ in kind, size and density: of the training
# patients with a lesion generators and detectors know 4, of those without all. docs/detection.md says why
# these lesions, and docs/evaluation.md what came out. The variables below change its size; with
# SEEDS=10 it keeps the first five and adds the others.
set -eu
work=$1
patients=${PATIENTS:-560}
recipe=${RECIPE:-demo}              # of the detector: 250 steps, operating points at 1/8 to 1 false positives
ddpm=${DDPM:---recipe demo --set steps=1000}
seeds=${SEEDS:-5}
curve=${CURVE:-0.03 0.1 0.3}        # shares of the patients of the ceiling, more-real
measured=${MEASURED:-default}       # recipe of realism and privacy
mkdir -p "$work"

dbtbench data phantom --out "$work/phantom" --preset tiny --patients "$patients" --seed 2026 \
    --mix normal=0.1,cancer=0.9 --conspicuity 2.5=1,4=1 --lesion-size 14=1,20=1,26=1,32=1
dbtbench data import bcs-dbt "$work/phantom" --name reference --few-lesions 4 --workspace "$work"

for generator in classic texture paste; do
    dbtbench generate $generator --workspace "$work"
done
for training in 0 1; do             # a training is a source of luck, too
    dbtbench generate ddpm $ddpm --set seed=$training --name "ddpm-$training" --workspace "$work"
done

shares=""
for share in $curve; do
    shares="$shares --arms more-real:$share"
done
dbtbench evaluate --task detection --recipe "$recipe" --seeds "$seeds" --workspace "$work" \
    --arms chance --arms blob --arms untrained \
    --arms classic --arms texture --arms paste --arms ddpm-0 --arms ddpm-1 --arms classic+ddpm-0 \
    --arms ddpm-0:shuffled-boxes --arms ddpm-0:normals-only \
    $shares --arms more-real
drawn="--aug classic --aug texture --aug paste --aug ddpm-0 --aug ddpm-1"
dbtbench evaluate --task realism --recipe "$measured" $drawn --workspace "$work"
dbtbench evaluate --task privacy --recipe "$measured" $drawn --workspace "$work"
dbtbench leaderboard --workspace "$work"
