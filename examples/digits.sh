#!/bin/sh
# The main job, end to end: train a classifier, attack and certify it sample by sample, check the evidence, ask
# every witness again, and build the page. Writes checkpoints/, results/ and site/ in the current folder.
set -eux
robench train ibp -d digits --out checkpoints/digits-ibp
robench eval -m checkpoint:checkpoints/digits-ibp -d digits --norm linf --eps 0.05 --eps 0.1 --out results
robench check results
robench replay results
robench leaderboard build results --out site
