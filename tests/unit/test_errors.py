"""What an error says to people, and what the code reads of it."""

import pytest

from bridge.errors import ErrorKind, NotConnected, Refused, Unusable


@pytest.mark.parametrize("kind", [Refused, NotConnected])
def test_an_error_carries_what_was_found_and_the_remedy_and_says_both_in_one_line(kind: type[Unusable]) -> None:
    error = kind("the user may not write", "allow it to", ErrorKind.DENIED)

    assert (error.found, error.remedy, error.kind) == ("the user may not write", "allow it to", ErrorKind.DENIED)
    assert str(error) == "the user may not write: allow it to"


def test_a_remedy_behind_a_colon_is_set_off_by_a_semicolon() -> None:
    assert str(Refused("Redis is a replica: only a primary expires keys", "name it")) == (
        "Redis is a replica: only a primary expires keys; name it"
    )


def test_without_a_remedy_the_message_is_what_was_found() -> None:
    error = NotConnected("no answer within 5 s")

    assert (str(error), error.remedy, error.kind) == ("no answer within 5 s", "", ErrorKind.OTHER)
