"""Our `autoattack` beside the published package (`pip install --no-deps pyautoattack`): accuracy, passes, CPU time.

    OMP_NUM_THREADS=1 python benchmarks/attacks/published.py [--samples 100] [--seeds 2]

The same points of the bundled digits networks for both. Passes are rows; ours hold the clean and the runner's own.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import torch
from pyautoattack import AutoAttack
from torch import Tensor

import robench
from robench.classifier import Classifier
from robench.registry import load_plugins
from robench.threat import Norm
from robench_plugins.datasets.digits import Digits

EPS: dict[str, dict[Norm, float]] = {
    "digits-pgd-linf": {"linf": 0.12, "l2": 0.5, "l1": 1.5},
    "digits-standard": {"linf": 0.05, "l2": 0.25, "l1": 0.8},
}
NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Counting(torch.nn.Module):
    """A classifier as a module that counts the rows passed forwards and backwards."""

    def __init__(self, classifier: Classifier) -> None:
        """Start at 0."""
        super().__init__()
        self.classifier, self.forwards, self.backwards = classifier, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        self.forwards += len(x)
        logits = self.classifier.logits(x)
        if logits.requires_grad:
            logits.register_hook(self._back)  # type: ignore[no-untyped-call]
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, split = options.samples, Digits().load("test")
    x, y = torch.from_numpy(split.batch(0, count).copy()), torch.from_numpy(split.y[:count].copy())
    print("| network | norm | ε | seed | by | robust accuracy | forwards | backwards | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name, budgets in EPS.items():
        classifier = load_plugins().resolve("models", name).value.load(torch.device("cpu"), torch.float32)
        for norm, eps in budgets.items():
            for seed in range(options.seeds):
                for by, run in (("published", _theirs), ("`autoattack`", _ours)):
                    start = time.process_time()
                    accuracy, forwards, backwards = run(name, classifier, x, y, norm, eps, seed)
                    spent = time.process_time() - start
                    print(
                        f"| {name} | {norm} | {eps} | {seed} | {by} | {accuracy:.2f} | {forwards:,} | {backwards:,} "
                        f"| {spent:.0f} |",
                        flush=True,
                    )


def _theirs(
    name: str, classifier: Classifier, x: Tensor, y: Tensor, norm: Norm, eps: float, seed: int
) -> tuple[float, int, int]:
    module = Counting(classifier)
    attack = AutoAttack(module, eps=eps, norm=NAMES[norm], seed=seed, device="cpu")
    points, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
    right = (classifier.logits(points).argmax(1) == y).double().mean().item()
    return right, module.forwards, module.backwards


def _ours(
    name: str, classifier: Classifier, x: Tensor, y: Tensor, norm: Norm, eps: float, seed: int
) -> tuple[float, int, int]:
    with tempfile.TemporaryDirectory() as folder:
        rows = robench.evaluate(
            name,
            "digits",
            eps=eps,
            norm=norm,
            attacks="autoattack",
            certifiers="none",
            samples=f"0:{len(x)}",
            seed=seed,
            batch_size=len(x),
            out=folder,
        ).evidence
    lost = rows[rows.status.isin(["falsified", "incorrect"])]["sample"].nunique()
    return 1 - lost / len(x), int(rows.forwards.sum()), int(rows.backwards.sum())


if __name__ == "__main__":
    main()
