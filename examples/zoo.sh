#!/bin/sh
# The bundled classifiers, made again: a checkpoint folder each in the current folder. About three minutes on one idle core.
set -eux
export OMP_NUM_THREADS=1 # as the bundled ones were made: the nets gain nothing from more, and sums keep their order
robench train standard -d digits --seed 0 --device cpu --out digits-standard
robench train gaussian -d digits --seed 0 --device cpu --out digits-gaussian
robench train pgd-at:epochs=60,eps=0.2,lr=0.005,weight_decay=0.2 -d digits --seed 0 --device cpu --out digits-pgd-linf
robench train pgd-at:eps=0.75,lr=0.005,norm=l2,weight_decay=0.5 -d digits --seed 0 --device cpu --out digits-pgd-l2
robench train ibp -d digits --seed 0 --device cpu --out digits-ibp
robench train aol:epochs=150,offset=0.7,temperature=0.1 -d digits --seed 0 --device cpu --out digits-aol
