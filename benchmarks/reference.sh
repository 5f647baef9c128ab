#!/bin/sh
# The reference board: what augmentations are worth where lesions are few, and whether the board can tell.
#
#     sh benchmarks/reference.sh WORK      # about four CPU-hours; killed at any moment, it continues
#     dbtbench leaderboard --workspace WORK --results results
#
# A phantom cohort on 8 x 64 x 64. Of the training patients with a lesion generators and detectors know FEW, of
# those without all. docs/detection.md says why these lesions, and docs/evaluation.md what came out. The
# variables below change its size; with SEEDS=10 it keeps the first five and adds the others.
set -eu
work=$1
patients=${PATIENTS:-560}
few=${FEW:-2}
recipe=${RECIPE:---recipe demo --set steps=500}     # of the detector; operating points at 1/8 to 1 false positives
ddpm=${DDPM:---recipe demo --set steps=1000}
zoo=${ZOO:---recipe demo}                           # of the vae, the flow and the gan
seeds=${SEEDS:-5}
curve=${CURVE:-0.03 0.1 0.3}        # shares of the patients of the ceiling, more-real
measured=${MEASURED:-default}       # recipe of realism and privacy
mkdir -p "$work"

dbtbench data phantom --out "$work/phantom" --preset tiny --patients "$patients" --seed 2027 \
    --mix normal=0.1,cancer=0.9 --conspicuity 4.5 --lesion-size 14=1,17=1,20=1 --density b=0.5,c=0.5
dbtbench data import bcs-dbt "$work/phantom" --name reference --few-lesions "$few" --workspace "$work"

# draw NAME GENERATOR SETTINGS: two trainings, for a training is a source of luck, too
draw() {
    name=$1 generator=$2
    shift 2
    for training in 0 1; do
        dbtbench generate "$generator" "$@" --set seed=$training --name "$name-$training" --workspace "$work"
        learned="$learned $name-$training"
    done
}
learned=""
for generator in classic texture paste; do
    dbtbench generate $generator --workspace "$work"
done
draw ddpm ddpm $ddpm
draw inpaint ddpm $ddpm --set background=real       # the same networks, in real volumes
draw vae vae $zoo
draw flow flow $zoo
draw gan gan $zoo

arms="" more=""
for name in classic texture paste $learned; do
    arms="$arms --arms $name"
done
for share in $curve; do
    more="$more --arms more-real:$share"
done
dbtbench evaluate --task realism --recipe "$measured" $arms --workspace "$work"
dbtbench evaluate --task privacy --recipe "$measured" $arms --workspace "$work"
dbtbench evaluate --task detection $recipe --seeds "$seeds" --workspace "$work" \
    --arms chance --arms blob --arms untrained $arms $more --arms more-real \
    --arms inpaint-0+paste --arms ddpm-0:shuffled-boxes --arms ddpm-0:normals-only \
    --arms inpaint-0:shuffled-boxes --arms inpaint-0:normals-only
dbtbench leaderboard --workspace "$work"
