"""`expiry-bridge settings --effective`: the settings in force, secrets masked, each with where it comes from."""

from collections.abc import Mapping

from rich.text import Text

from bridge.commands.screen import Screen, print_json, printable
from bridge.settings import Effective, Settings, effective


def show(settings: Settings, flags: Mapping[str, str], *, as_json: bool) -> int:
    """Print them; `settings` are what `load` made of `flags`. The exit status: 0.

    Raises Refused as `effective` does.
    """
    found = effective(settings, flags)
    if as_json:
        print_json({each.variable: {"value": each.value, "origin": each.origin} for each in found})
    else:
        Screen().rows([_row(each) for each in found])
    return 0


def _row(each: Effective) -> tuple[Text, Text, Text]:
    style = "dim" if each.origin == "default" else ""
    value = "unset" if each.value is None else printable(each.value)
    return Text(each.variable, style), Text(each.origin, style), Text(value, style)
