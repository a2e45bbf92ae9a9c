"""An evaluation that takes its time, for tests that kill it. Importable, so that other processes can run it."""

import time
from dataclasses import dataclass

import torch

from oracles.nets import blobs, trained
from robench.api import evaluate
from robench.contracts import Attack, Proposal
from robench.evaluation import _execute


@dataclass(frozen=True)
class Slow(Attack):
    """Random points, at leisure."""

    def perturb(self, classifier, x, y, threat, stream):
        time.sleep(0.02)
        return Proposal(x + stream.uniform(x.shape[1:], -threat.eps, threat.eps, dtype=x.dtype))


def long_evaluation(out):
    torch.set_num_threads(1)
    _execute.COMMIT_SECONDS = 0.0  # a part for every chunk
    return evaluate(trained((), steps=20), blobs(), eps=["0.1"], attacks=[Slow()], batch_size=4, out=out, resume=True)
