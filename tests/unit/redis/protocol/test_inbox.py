"""What waits to be handled: in order, and with a bound."""

import pytest

from bridge.limits import WireLimits
from bridge.redis.protocol.inbox import Hint, Inbox


def hint(key: bytes) -> Hint:
    return b"channel", key


def test_what_was_put_in_comes_out_in_order() -> None:
    inbox = Inbox(WireLimits())
    inbox.put([hint(b"a"), hint(b"b")])
    assert inbox.take() == hint(b"a")
    inbox.put([hint(b"c")])
    assert list(inbox) == [hint(b"b"), hint(b"c")]
    assert [inbox.take() for _ in range(len(inbox))] == [hint(b"b"), hint(b"c")]
    assert not inbox
    with pytest.raises(IndexError):
        inbox.take()


@pytest.mark.parametrize(
    ("limits", "keys"),
    [
        (WireLimits(backlog_hints=2), [b"", b"", b""]),
        (WireLimits(backlog_bytes=10), [b"12345", b"67890", b"!"]),
    ],
)
def test_it_is_full_above_its_bound_and_not_once_something_was_taken(limits: WireLimits, keys: list[bytes]) -> None:
    inbox, full = Inbox(limits), list[bool]()
    for key in keys:
        inbox.put([hint(key)])
        full.append(inbox.full)
    inbox.take()
    assert [*full, inbox.full] == [False] * (len(keys) - 1) + [True, False]


def test_what_is_urgent_presses_until_nothing_is_left_and_so_does_as_much_as_a_script_takes() -> None:
    inbox, pressing = Inbox(WireLimits(pressing_hints=3), urgent=[b"urgent"]), list[bool]()
    for hints in ([hint(b"a"), hint(b"b")], [hint(b"c")]):
        inbox.put(hints)
        pressing.append(inbox.pressing)
    assert pressing == [False, True]

    inbox.take()
    inbox.put([])
    inbox.take()
    inbox.put([(b"urgent", b"k")])
    inbox.put([])
    pressing = [inbox.pressing]
    while inbox:
        inbox.take()
        pressing.append(inbox.pressing)
    assert pressing == [True, True, False]

    inbox.put([hint(b"d")])
    assert not inbox.pressing
