"""How a verification looks, to people and to programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rich.text import Text

from bridge.commands.screen import Cell, Screen, duration
from bridge.commands.verify.books import NAMED, Books, Falsehood

SKEW_MS = 5.0
"""Clocks that differ by no more are not worth a word."""
CLOCKS = {
    "broker": "from the deadline on Redis's clock to the broker's timestamp",
    "redis": "from the deadline to the moment of reading, both on Redis's clock: the broker keeps no time of its own",
}


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a verification."""

    books: Books
    place: str
    """What was read."""
    interrupted: bool
    left: int
    """Keys that could not be deleted."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        books, lag = self.books, self.books.lag()
        return {
            "ok": books.ok and not self.interrupted,
            "interrupted": self.interrupted,
            "run": books.plan.run,
            "read_from": self.place,
            "keys": books.set,
            "delivered": books.delivered,
            "without_deadline": books.without_deadline,
            "missed": books.awaited,
            "missed_keys": list(islice(books.missed(), NAMED)),
            "duplicates": books.duplicates,
            "false": books.false,
            "false_reasons": {why.name.lower(): count for why, count in books.falsehoods.items()},
            "false_keys": books.false_keys,
            "controls": books.controls,
            "ambiguous": books.ambiguous,
            "lag_ms": lag and {"p50": round(lag.p50, 3), "p99": round(lag.p99, 3), "max": round(lag.max, 3)},
            "lag_clocks": sorted(books.read_clocks),
            "clock_skew_ms": round(books.skew_ms, 3),
            "not_cleaned_up": self.left,
        }

    def show(self, screen: Screen) -> None:
        """For people."""
        screen.say(Text(f"Read from {self.place}, run {self.books.plan.run}", "bold"))
        screen.rows([[Text(label, "cyan"), value] for label, value in self._lines()], indent=2)
        for line in self._notes():
            screen.say(line, style="yellow")
        screen.say(self._verdict())

    def _lines(self) -> Sequence[tuple[str, Cell]]:
        books, lag = self.books, self.books.lag()
        late: Cell = "unknown: nothing was delivered"
        if lag is not None:
            late = f"p50 {_ms(lag.p50)}, p99 {_ms(lag.p99)}, max {_ms(lag.max)}"
        unknown = f", {books.without_deadline} of them without a deadline" if books.without_deadline else ""
        return [
            (
                "fields" if books.plan.fields else "keys",
                f"{books.set} set to expire, {books.controls} deleted or postponed",
            ),
            ("delivered", f"{books.delivered}{unknown}"),
            ("not yet delivered" if self.interrupted else "missed", _count(books.awaited)),
            ("duplicates", str(books.duplicates)),
            ("false", _count(books.false)),
            ("lag", late),
            *(("", CLOCKS[clock]) for clock in sorted(books.read_clocks)),
        ]

    def _notes(self) -> list[str]:
        books, notes = self.books, list[str]()
        if books.awaited:
            notes += _named("Missing" if self.interrupted else "Missed", books.awaited, islice(books.missed(), NAMED))
        if books.awaited and not self.interrupted and not books.falsehoods[Falsehood.MISTAKEN]:
            patterns = "BRIDGE_FIELDS" if books.plan.fields else "BRIDGE_KEYS"
            notes.append(
                "→ is the bridge running, and ready? See `expiry-bridge status` and its /readyz; it must have these"
                f" settings, {patterns} and the broker's above all. Not promised are keys that were set and expired"
                " while it was not there: let them live longer than that (--ttl-min)"
            )
        if books.false:
            reasons = "; ".join(f"{count} {why.value}" for why, count in books.falsehoods.most_common())
            notes += [f"False: {reasons}.", *_named("For", books.false, books.false_keys)]
        if books.falsehoods[Falsehood.MISTAKEN]:
            notes.append("→ is BRIDGE_SOURCE the bridge's own? It is part of every id")
        if books.ambiguous:
            notes.append(
                f"{books.ambiguous} keys were deleted, and announced, because the bridge did not listen just then:"
                " after a gap it cannot tell"
            )
        if abs(books.skew_ms) > SKEW_MS:
            side = "ahead of" if books.skew_ms > 0 else "behind"
            notes.append(
                f"The broker's clock is at least {_ms(abs(books.skew_ms))} {side} Redis's: lags are off by that."
            )
        if self.left:
            notes.append(f"Up to {self.left} keys could not be deleted: they will expire on their own.")
        return notes

    def _verdict(self) -> Text:
        books = self.books
        if self.interrupted:
            return Text("Interrupted: these are the results so far.", "yellow")
        if books.ok:
            return Text("All delivered.", "bold green")
        faults = [f"{books.awaited} missed"] if books.awaited else []
        faults += [f"{books.false} false"] if books.false else []
        return Text(f"Failed: {', '.join(faults)}.", "bold red")


def _named(what: str, count: int, keys: Any) -> list[str]:  # noqa: ANN401 - any iterable of texts
    names = [*keys]
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return [f"{what}: {', '.join(names)}{more}"]


def _count(count: int) -> Cell:
    return Text(str(count), "bold red" if count else "")


def _ms(lag_ms: float) -> str:
    return f"{lag_ms:.1f} ms" if abs(lag_ms) < 1000 else f"{'-' * (lag_ms < 0)}{duration(abs(lag_ms) / 1000)}"  # noqa: PLR2004 - a second
