"""The Lua scripts: how they are put together, and that their headers say what they take."""

import re

import pytest

from bridge.redis.ledger import assembly

SCRIPTS = assembly.names()


def code(name: str) -> str:
    """The script, without what comments say."""
    return re.sub("--.*", "", assembly.script(name))


def header(name: str) -> list[str]:
    """The comment that it begins with."""
    return assembly.script(name).partition("\n\n")[0].split("\n")


def taken(name: str, table: str) -> list[str]:
    """The names that the script gives to its keys, or to its arguments."""
    found = re.search(rf"local ([\w,\s]+?) =\s+unpack\({table}", code(name))
    return re.split(r",\s+", found[1]) if found else []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_header_names_keys_arguments_and_replies(name: str) -> None:
    words = {line.removeprefix("-- ").partition(" ")[0] for line in header(name)}
    assert words >= {"KEYS", "ARGV", "Reply"}
    assert ("Error" in words) == ("FENCED" in code(name))


@pytest.mark.parametrize("name", SCRIPTS)
def test_keys_and_arguments_have_the_names_and_the_order_of_the_header(name: str) -> None:
    lines = header(name)
    keys = next(line for line in lines if line.startswith("-- KEYS"))
    assert taken(name, "KEYS") == re.split(", ", keys.removeprefix("-- KEYS  ").partition(";")[0])
    begin = next(number for number, line in enumerate(lines) if line.startswith("-- ARGV"))
    end = next(number for number, line in enumerate(lines) if number > begin and re.match("-- [A-Z]", line))
    if not lines[begin].startswith("-- ARGV  ("):  # a list without an end is gone through by number
        arguments = [found[1] for line in lines[begin:end] if (found := re.match(r"--(?: ARGV|     )  (\w+)", line))]
        assert taken(name, "ARGV") == arguments


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_taken_by_a_fixed_number(name: str) -> None:
    assert re.findall(r"(?:KEYS|ARGV)\[\d", code(name)) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_include_is_put_in_once(name: str) -> None:
    text = assembly.script(name)
    assert "@include" not in text
    defined = re.findall(r"^local function (\w+)", text, re.MULTILINE)
    assert len(defined) == len(set(defined))


def test_a_shared_piece_is_the_same_in_every_script_that_has_it() -> None:
    assert "non local key" in assembly.script("touch")
    assert "non local key" in assembly.script("adopt")
    assert "non local key" not in assembly.script("release")
