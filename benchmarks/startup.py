"""CPU seconds of commands that only list things, beside a bare interpreter.

    python benchmarks/startup.py [--repeat 7]

User and system time of a fresh process each, least of `--repeat` after one run that warms the disk's cache.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import robench": ["-c", "import robench"],
    "robench --help": ["-m", "robench", "--help"],
    "robench plugins": ["-m", "robench", "plugins"],
    "robench plugins show pgd": ["-m", "robench", "plugins", "show", "pgd"],
    "robench eval --help": ["-m", "robench", "eval", "--help"],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    print(f"{'command':<28}{'CPU s':>8}")
    for name, arguments in COMMANDS.items():
        _seconds(arguments)
        print(f"{name:<28}{min(_seconds(arguments) for _ in range(repeat)):>8.3f}")


def _seconds(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
