#!/bin/sh
# What a tenth of its training samples costs a class: PGD training of digits with and without nine tenths of the 8s, as many
# samples in all, evaluated on the same test samples. Writes checkpoints/ and fairness/ in the current folder: ten minutes on two cores.
set -eux
for seed in 0 1 2 3 4; do
    robench train pgd-at:eps=0.15 -d "digits | subset:n=1229,seed=$seed" --seed $seed --out checkpoints/balanced-$seed
    robench train pgd-at:eps=0.15 -d "digits | imbalance:8,keep=0.1,seed=$seed" --seed $seed --out checkpoints/imbalanced-$seed
    for kind in balanced imbalanced; do
        robench eval -m checkpoint:checkpoints/$kind-$seed -d digits --norm linf --eps 0.1 --eps 0.15 -c none --name $kind --out fairness
    done
done
robench report fairness --minority 8
