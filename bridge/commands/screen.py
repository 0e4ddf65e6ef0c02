"""What the commands print: colours and columns on a terminal, plain lines anywhere else.

Guarantees: a plain line is never wrapped, and ends without blanks; a character that the output cannot show is replaced,
never an error; what is printed is never taken for markup (keys may hold brackets).
"""

import re
import struct
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 10_000
"""Columns of an output that is no terminal: its reader wraps the lines."""
TERMINAL_WIDTH = 110
"""Columns to use of a terminal, at most: longer lines are hard to read."""

Cell = str | Text


class Screen:
    """Standard output."""

    def __init__(self) -> None:
        reconfigure = getattr(sys.stdout, "reconfigure", None)  # there is none where another object took its place
        if reconfigure is not None:
            reconfigure(errors="replace")
        self._terminal = sys.stdout.isatty()
        self._console = Console(
            highlight=False, markup=False, emoji=False, width=None if self._terminal else PLAIN_WIDTH
        )
        if self._console.width > TERMINAL_WIDTH and self._terminal:
            self._console.width = TERMINAL_WIDTH

    def say(self, line: Cell = "", *, indent: int = 0, style: str = "") -> None:
        """One paragraph; without a text an empty line."""
        self.rows([[line or " "]], indent=indent, style=style)

    def rows(
        self, rows: Sequence[Sequence[Cell]], *, indent: int = 0, style: str = "", right: Sequence[int] = ()
    ) -> None:
        """Columns as wide as their contents, those in `right` flush right; on a terminal the last one is wrapped."""
        shown = Padding(_grid(rows, style, right), (0, 0, 0, indent), expand=False)
        if self._terminal:
            self._console.print(shown)
            return
        with self._console.capture() as captured:
            self._console.print(shown)
        # The columns fill their lines with blanks, which do not belong in a file.
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        sys.stdout.flush()

    def whole(self, line: Cell, *, indent: int = 0) -> None:
        """One line, which is for a terminal to wrap: so it can be copied out of it as one line, a command above all."""
        self._console.print(Text.assemble(" " * indent, line), soft_wrap=True)

    @property
    def live(self) -> bool:
        """Whether what was printed can be replaced: on a terminal that knows how to move its cursor."""
        return self._terminal and not self._console.is_dumb_terminal

    @contextmanager
    def watching(self) -> Iterator[Callable[[Cell, Sequence[Sequence[Cell]]], None]]:
        """A headline and columns that each call replaces; what was shown last stays. Only where it is `live`.

        Where the terminal has too few lines, the last one says that there is more.
        """
        with Live(console=self._console, auto_refresh=False, vertical_overflow="ellipsis") as view:

            def show(headline: Cell, rows: Sequence[Sequence[Cell]]) -> None:
                grid = Padding(_grid(rows), (0, 0, 0, 2), expand=False) if rows else ""
                view.update(Group(headline, grid), refresh=True)

            yield show

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show on a terminal that something is awaited; elsewhere nothing."""
        if not self._terminal:
            yield
            return
        with self._console.status(f"{what} …"):
            yield

    @contextmanager
    def progress(self, what: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal, if it is to be `shown`: call what this yields with how many of `total` are done."""
        if not self._terminal or not shown:
            yield lambda _done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)


def _grid(rows: Sequence[Sequence[Cell]], style: str = "", right: Sequence[int] = ()) -> Table:
    columns = max(map(len, rows))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for index in range(columns):
        grid.add_column(no_wrap=index < columns - 1, justify="right" if index in right else "left")
    for row in rows:
        grid.add_row(*row, style=style)
    return grid


def printable(text: str) -> str:
    """Safe on a terminal: an escape sequence in it is not obeyed."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def key_for_people(key: bytes) -> str:
    """A user's key, safe on a terminal."""
    return printable(key.decode(errors="backslashreplace"))


def key_as_json(key: bytes, name: str = "key") -> dict[str, str]:
    """The member that stands for a user's key: `key`, or `key_base64` where it is not UTF-8. Or for a field."""
    try:
        return {name: key.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(key).decode()}


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """One JSON document on standard output, indented, in ASCII.

    Whatever the locale is, it can be shown; and no terminal obeys a control character in it, or turns its text around.
    """
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    sys.stdout.write(re.sub("[^\\n -~]+", _escaped, text) + "\n")


def _escaped(text: re.Match[str]) -> str:
    """As JSON strings have it: in UTF-16."""
    units = text[0].encode("utf-16-be")
    return "".join(f"\\u{unit:04x}" for (unit,) in struct.iter_unpack(">H", units))


def counted(count: int, one: str, many: str = "") -> str:
    """A count and its noun. `many`: the plural, if it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def size(count: int) -> str:
    """Bytes for people, in the unit that fits."""
    for unit, bytes_ in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= bytes_:
            return f"{count / bytes_:.3g} {unit}" if count < 1000 * bytes_ else f"{count / bytes_:,.0f} {unit}"
    return counted(count, "byte")


def from_now(at_ms: int, now_ms: int) -> str:
    """How far a moment is from now, for people."""
    ahead = (at_ms - now_ms) / 1000
    return f"in {duration(ahead)}" if ahead >= 0 else f"{duration(-ahead)} ago"


def duration(seconds: float) -> str:
    """`seconds` (not negative) for people, in the unit that fits."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
