"""Run a model, for longer than its tests do.

    python -m tests.model [ledger | delivery] [name=value …] [seconds=…] [walks=… seed=…]

The names are those of the rules (True or False) and the bounds in `rules.py`. Says how many states there are, and the
trace of a violation; then the exit status is 1. With `walks`, that many random walks instead of a search.
"""

import ast
import sys
from collections.abc import Hashable
from dataclasses import fields
from typing import Any, TypeVar

from tests.model.delivery import Delivery
from tests.model.ledger import Ledger
from tests.model.rules import Bounds, DeliveryBounds, DeliveryRules, Rules
from tests.model.search import Found, Model, search, walk

S = TypeVar("S", bound=Hashable)
_RUN = {"seconds": 3600, "walks": 0, "seed": 1}


def main(arguments: list[str]) -> int:
    """Do what the arguments say. The exit status."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    said: dict[str, Any] = {name: _value(text) for name, text in given.items()}
    delivery = "delivery" in arguments
    rules = _taken(said, DeliveryRules if delivery else Rules)
    bounds = _taken(said, DeliveryBounds if delivery else Bounds)
    run = {name: int(said.pop(name, default)) for name, default in _RUN.items()}
    words = [word for word in arguments if "=" not in word and word not in {"ledger", "delivery"}]
    if said or words:
        sys.stderr.write(f"unknown: {' '.join([*said, *words])}\n{__doc__}")
        return 2
    if delivery:
        found = _run(Delivery(DeliveryRules(**rules), DeliveryBounds(**bounds)), run)
    else:
        found = _run(Ledger(Rules(**rules), Bounds(**bounds)), run)
    what = "steps" if run["walks"] else "states"
    verdict = found.violation or ("no violation, complete" if found.complete else "no violation, not complete")
    sys.stdout.write(f"{found.states} {what}, depth {found.depth}, {found.seconds:.0f} s: {verdict}\n")
    sys.stdout.writelines(f"    {step}\n" for step in found.trace)
    return 1 if found.violation else 0


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def _taken(said: dict[str, Any], kind: type) -> dict[str, Any]:
    return {field.name: said.pop(field.name) for field in fields(kind) if field.name in said}


def _run(model: Model[S], run: dict[str, int]) -> Found:
    if run["walks"]:
        return walk(model, run["seed"], walks=run["walks"])
    return search(model, seconds=run["seconds"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
