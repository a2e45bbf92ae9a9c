"""Peak memory of an evaluation of a memory-mapped dataset, for N and for 10 N samples.

    python benchmarks/memory.py [--samples 2000]

Each evaluation (an attack and a certifier, batches of 256 pictures of 3x32x32) runs in a process of its own. Peak
RSS counts pages of the mapped file too, which the system may take back at any time; the anonymous part, sampled
every 20 ms, is what the evaluation really needs.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
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
    print(f"{'samples':>9}{'file MiB':>10}{'peak RSS MiB':>14}{'anonymous MiB':>15}")
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.samples, 10 * options.samples):
            file = Path(folder) / f"{count}.npz"
            draw = np.random.default_rng(0)
            np.savez(file, x=draw.random((count, *SHAPE), dtype=np.float32), y=draw.integers(0, 10, count))
            command = [sys.executable, __file__, "--file", str(file)]
            peak, anonymous = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            print(f"{count:>9}{file.stat().st_size / 2**20:>10.1f}{peak:>14}{anonymous:>15}")


def _evaluate(file: Path) -> None:
    import torch

    import robench

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    anonymous = [0]
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            anonymous[0] = max(anonymous[0], int(fields["RssAnon"].split()[0]))
            time.sleep(0.02)

    watcher = threading.Thread(target=sample)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        robench.evaluate(
            model.eval(), f"npz:{file}", eps=0.001, attacks=["fgsm"], certifiers=["ibp"], batch_size=256, out=folder
        )
    done.set()
    watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{peak / 1024:.0f} {anonymous[0] / 1024:.0f}")


if __name__ == "__main__":
    main()
