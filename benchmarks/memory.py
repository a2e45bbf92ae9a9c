"""Peak memory of an evaluation of a dataset that is read a batch at a time, for N and for 10 N samples.

    python benchmarks/memory.py [--samples 2000]

Each evaluation (an attack and a certifier, batches of 256 pictures of 3x32x32) runs in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPE = (3, 32, 32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file is not None:
        _evaluate(options.file)
        return
    print(f"{'samples':>9}{'file MiB':>10}{'peak RSS MiB':>14}")
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.samples, 10 * options.samples):
            file = Path(folder) / f"{count}.npz"
            draw = np.random.default_rng(0)
            np.savez(file, x=draw.random((count, *SHAPE), dtype=np.float32), y=draw.integers(0, 10, count))
            command = [sys.executable, __file__, "--file", str(file)]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{count:>9}{file.stat().st_size / 2**20:>10.1f}{peak / 1024:>14.0f}")


def _evaluate(file: Path) -> None:
    import torch

    import robench

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    with tempfile.TemporaryDirectory() as folder:
        robench.evaluate(
            model.eval(), f"npz:{file}", eps=0.001, attacks=["fgsm"], certifiers=["ibp"], batch_size=256, out=folder
        )
    # Not ru_maxrss: a process inherits its parent's.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]))


if __name__ == "__main__":
    main()
