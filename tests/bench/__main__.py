"""The benchmark: `python -m tests.bench`, or `make bench`. Starts its own servers; takes some minutes.

    python -m tests.bench [--case NAME]… [--variant PART] [--runs N] [--scale X] [--against COMMIT]
                          [--out DIRECTORY | --publish] [--profile]

Figures of one run are comparable with each other, and with no others: what matters is their ratios. Leave the machine
alone meanwhile. Exit status 1 if a bar is missed, or a case could not be measured: then nothing is published.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import report
from tests.bench.builds import of_commit
from tests.bench.case import Figures
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
    on = machine()
    results: list[Result] = []

    def found(stages: Figures) -> report.Report:
        return report.Report(on, given.scale, given.runs, results, stages)

    asyncio.run(_measured(given, results, lambda: report.write(found({}), given.out)))
    publish = given.publish and not any(result.failure for result in results)
    out: Path = report.PUBLISHED if publish else given.out
    complete = found(asyncio.run(profiled(given.scale)) if given.profile else {})
    if publish and given.case and (out / report.FILE).exists():
        report.write(report.joined(report.read(out), complete, list(CASES)), out, given.case)
    else:
        report.write(complete, out)
    sys.stdout.write("\n".join(["", *report.tables(complete), f"Written to {out}\n"]))
    if publish:
        renew()
    reached = all(verdict.reached for result in results for verdict in result.verdicts)
    return 0 if reached and not any(result.failure for result in results) else 1


async def _measured(given: argparse.Namespace, results: list[Result], keep: Callable[[], None]) -> None:
    """Add the result of each case. After each, `keep` is called: what was found is not lost, whatever comes."""
    against = None if given.against is None else of_commit(given.against)
    if (this := asyncio.current_task()) is not None:  # as on Ctrl-C: servers are closed, with their files
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    for name in given.case or CASES:
        results.append(await run(CASES[name](), given.scale, given.runs, _tell, against, given.variant))
        keep()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--case", action="append", choices=list(CASES), help="only this one; may be given several times"
    )
    parser.add_argument(
        "--variant", default="", metavar="PART", help="only variants whose names contain that; then nothing is judged"
    )
    parser.add_argument(
        "--runs", type=int, help="how often each variant is measured, instead of as often as its case says"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of keys, such as 0.1")
    parser.add_argument(
        "--against", metavar="COMMIT", help="measure its bridge in turn with this one, and show both as a pair"
    )
    parser.add_argument("--out", type=Path, default=SCRATCH, help="where JSON and SVG go (default: %(default)s)")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="put them where RESULTS.md shows them, and renew its tables;"
        " of single cases, beside the others that are there",
    )
    parser.add_argument("--profile", action="store_true", help="also sample where the bridge's processor time goes")
    given = parser.parse_args(arguments)
    if given.publish and given.variant:
        parser.error("what is published has all variants: --publish goes with no --variant")
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
