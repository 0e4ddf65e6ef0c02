"""The benchmark: `python -m tests.bench`, or `make bench`. Starts its own servers; takes some minutes.

    python -m tests.bench [--case NAME]… [--runs N] [--scale X] [--out DIRECTORY | --publish] [--profile]

Figures of one run are comparable with each other, and with no others: what matters is their ratios. Leave the machine
alone meanwhile. Exit status 1 if a bar is missed, or a case could not be measured: then nothing is published.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.bench import report
from tests.bench.cases import CASES
from tests.bench.machine import machine
from tests.bench.profile import profiled
from tests.bench.runner import Result, run
from tests.support.docs import renew
from tests.support.servers import ROOT

SCRATCH = ROOT / ".cache" / "bench"


def main(arguments: list[str]) -> int:
    """Do what the arguments say. The exit status."""
    given = _parsed(arguments)
    results = asyncio.run(_measured(given.case or list(CASES), given.scale, given.runs))
    publish = given.publish and not any(result.failure for result in results)
    out: Path = report.PUBLISHED if publish else given.out
    stages = asyncio.run(profiled(given.scale)) if given.profile else {}
    found = report.Report(machine(), given.scale, given.runs, results, stages)
    report.write(found, out)
    sys.stdout.write("\n".join(["", *report.tables(found), f"Written to {out}\n"]))
    if publish:
        renew()
    reached = all(verdict.reached for result in results for verdict in result.verdicts)
    return 0 if reached and not any(result.failure for result in results) else 1


async def _measured(names: list[str], scale: float, runs: int | None) -> list[Result]:
    if (this := asyncio.current_task()) is not None:  # as on Ctrl-C: servers are closed, with their files
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    return [await run(CASES[name](), scale, runs, _tell) for name in names]


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--case", action="append", choices=list(CASES), help="only this one; may be given several times"
    )
    parser.add_argument(
        "--runs", type=int, help="how often each variant is measured, instead of as often as its case says"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of keys, such as 0.1")
    parser.add_argument("--out", type=Path, default=SCRATCH, help="where JSON and SVG go (default: %(default)s)")
    parser.add_argument(
        "--publish", action="store_true", help="put them where RESULTS.md shows them, and renew its tables"
    )
    parser.add_argument("--profile", action="store_true", help="also sample where the bridge's processor time goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
