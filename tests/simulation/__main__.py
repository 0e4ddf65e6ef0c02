"""Run the simulation: see `command.py`."""

import os
import sys


def fixed_hashes() -> None:
    """Start again where the order of sets of bytes would differ from run to run: before anything else is imported."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])  # noqa: S606 - ourselves


if __name__ == "__main__":
    fixed_hashes()
    from tests.simulation.command import main

    sys.exit(main(sys.argv[1:]))
