"""What the commands print: plain lines in a file, columns and colours on a terminal, and no text is markup."""

import io
import json
import re
from contextlib import redirect_stdout

import pytest
from rich.text import Text

from bridge.commands.screen import Cell, Screen, duration, print_json

ROWS: list[list[Cell]] = [
    ["pass", "clock", "[red]not[/red] markup"],
    [Text("fail", "red"), "a longer name", "word " * 40],
]


class Terminal(io.StringIO):
    """A terminal of 60 columns."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return screen


def test_a_file_gets_plain_lines_that_are_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()

    screen.rows(ROWS, indent=2)
    screen.say()
    with screen.waiting("Something"):
        screen.say("done", style="bold")

    first, second, empty, last = capsys.readouterr().out.split("\n")[:-1]
    assert first == "  pass  clock          [red]not[/red] markup"
    assert second == "  fail  a longer name  " + " ".join(["word"] * 40)
    assert (empty, last) == ("", "done")


def test_a_bar_is_for_terminals_only_and_leaves_the_screen_as_it_was(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    with Screen().progress("Delivered", 10, shown=True) as done:
        done(3)
    assert capsys.readouterr().out == ""

    with redirect_stdout(terminal):
        with Screen().progress("Delivered", 10, shown=False) as done:
            done(3)
        assert terminal.getvalue() == ""
        with Screen().progress("Delivered", 10, shown=True) as done:
            done(3)
    assert "Delivered" in terminal.getvalue()
    assert "3/10" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")


def test_a_terminal_gets_colours_and_lines_that_fit(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        screen = Screen()
        screen.rows(ROWS, indent=2)
        screen.say()
        with screen.waiting("Something"):
            screen.say("done", style="bold")

    text = terminal.getvalue()
    assert "[red]not[/red] markup" in text
    assert "\x1b[31mfail" in text
    assert "\x1b[1mdone" in text
    assert "Something …" in text
    assert len(text[: text.index("done")].splitlines()) > len(ROWS) + 2


def test_a_line_that_is_to_be_copied_is_one_line_also_on_a_terminal(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        Screen().whole("command " * 40, indent=4)

    assert terminal.getvalue() == "    " + "command " * 40 + "\n"


@pytest.mark.parametrize(("term", "live"), [("xterm-256color", True), ("dumb", False)])
def test_a_live_view_needs_a_terminal_that_can_move_its_cursor(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, term: str, *, live: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    with redirect_stdout(terminal):
        assert Screen().live is live


def test_an_output_that_lacks_a_character_gets_another() -> None:
    written = io.BytesIO()
    output = io.TextIOWrapper(written, encoding="ascii")

    with redirect_stdout(output):
        Screen().say("✓ 5 of 5")

    assert written.getvalue() == b"? 5 of 5\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0042, "4 ms"), (1.25, "1.2 s"), (119, "119.0 s"), (150, "2.5 min"), (9_000, "2.5 h"), (259_200, "3.0 days")],
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_json_for_programs_is_harmless_on_a_terminal_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"k\u202e": "a\x1b[31m\x9b31m\u2066é\x7f😀\n", "n": [1, None, 0.5]}
    print_json(value)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"[\n -~]+", printed)
    assert json.loads(printed) == value
