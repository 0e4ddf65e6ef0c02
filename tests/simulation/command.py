"""The command line of the simulation."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.plan import Plan, plan
from tests.simulation.shrink import Shrinker
from tests.simulation.world import Outcome, run

WORKERS = 2


def judged(seed: int) -> Outcome:
    """One seed, without its log where nothing is wrong."""
    outcome = run(plan(seed))
    outcome.log = []
    return outcome


def outcomes(seeds: Sequence[int], workers: int) -> Iterator[Outcome]:
    """What becomes of each, in order."""
    if workers == 1:
        yield from map(judged, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(judged, seeds, chunksize=10)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--seed", type=int, help="that one alone")
    parser.add_argument("--replay", type=Path, help="that trace alone, which --save has written")
    parser.add_argument("--shrink", action="store_true", help="make it as small as it can be and still fail")
    parser.add_argument("--save", type=Path, help="write its plan there, e.g. .cache/small.json")
    parser.add_argument("--trace", action="store_true", help="with its log")
    parser.add_argument("--each", action="store_true", help="report each seed, not only those that break a promise")
    parser.add_argument("--stop", action="store_true", help="at the first seed that breaks a promise")
    parser.add_argument("--workers", type=int, default=WORKERS)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return one(plan(options.seed), options)
    if options.replay is not None:
        return one(Plan.from_json(options.replay.read_text("utf-8")), options)
    begun, failed, seconds = time.monotonic(), 0, 0.0
    seeds = range(options.first, options.first + options.seeds)
    for outcome in outcomes(seeds, options.workers):
        seconds += outcome.virtual_seconds
        failed += bool(outcome.violations)
        if outcome.violations or options.each:
            report(outcome)
        if outcome.violations and options.stop:
            break
    took = time.monotonic() - begun
    sys.stdout.write(f"{len(seeds)} seeds, {failed} failed, {seconds / 60:.0f} virtual minutes in {took:.1f} s\n")
    return bool(failed)


def one(what: Plan, options: argparse.Namespace) -> int:
    """A single run."""
    outcome = run(what)
    if outcome.violations and options.shrink:
        outcome = Shrinker(outcome, lambda said: sys.stderr.write(f"{said}\n")).shrink()
    if options.trace:
        sys.stdout.writelines(f"{line}\n" for line in outcome.log)
    if options.save is not None:
        options.save.write_text(outcome.plan.as_json() + "\n", "utf-8")
    report(outcome)
    return bool(outcome.violations)


def report(outcome: Outcome) -> None:
    """What a run has come to, and how to run it again."""
    verdict = "; ".join(f"{name}: {said[0][:1500]}" for name, said in outcome.violations.items()) or "holds"
    sys.stdout.write(
        f"seed {outcome.plan.seed} ({outcome.digest}, {outcome.virtual_seconds:.1f} s, {outcome.steps} steps,"
        f" {outcome.counts}): {verdict}\n"
        f"  python -m tests.simulation --seed {outcome.plan.seed} --trace\n"
    )
    sys.stdout.flush()
