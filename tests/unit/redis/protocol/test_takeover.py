"""What can be taken over of what a standby has heard."""

from collections.abc import Sequence

import pytest

from bridge.limits import Limits
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import Kind, channels
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place
from bridge.redis.protocol.takeover import Inheritance, inherit

NAMES = Names("redis-expiry", 0, 0)
GONE = next(channel for channel, kind in channels(0).items() if kind is Kind.GONE)
PLACE, FIRST, SECOND = NAMES.mark(7, 1), NAMES.mark(7, 2), NAMES.mark(7, 3)
BOUNDARY = NAMES.boundary("next", 1)


def inherited(*heard: bytes | tuple[bytes, Sequence[bytes]]) -> Inheritance | None:
    """Of hints behind the place: ends of keys, marks among them; and what is announced: a mark, and keys."""
    place = Place(PLACE, 0, b"scope")
    inbox, announcements = Inbox(Limits().wire, []), dict[int, Announcement]()
    inbox.put([(GONE, PLACE)])
    for index, hint in enumerate(heard, 1):
        if isinstance(hint, tuple):
            announcements[index] = Announcement(hint[0], place, emptied=not hint[1], keys=hint[1])
        inbox.put([(NAMES.announcements, b"") if isinstance(hint, tuple) else (GONE, hint)])
    return inherit(place, BOUNDARY, announcements, inbox, NAMES)


def test_what_was_announced_is_known() -> None:
    found = inherited((FIRST, [b"a"]), FIRST, b"a", (SECOND, [b"b"]), SECOND, BOUNDARY)

    assert found is not None
    assert [announcement.mark for announcement in found.announcements] == [FIRST, SECOND]


def test_what_another_program_does_may_come_in_between() -> None:
    assert inherited((FIRST, [b"a"]), b"another", FIRST, BOUNDARY) is not None


def test_a_batch_that_has_only_emptied_the_ledger_leaves_no_mark() -> None:
    assert inherited(NAMES.deadlines, (FIRST, []), SECOND, BOUNDARY) is not None


@pytest.mark.parametrize(
    "behind",
    [
        (SECOND, BOUNDARY),
        (BOUNDARY,),
        ((SECOND, [b"b"]), SECOND, BOUNDARY),
    ],
    ids=["a later mark", "the boundary", "a later announcement"],
)
def test_an_announcement_whose_mark_does_not_follow_is_a_hole(behind: Sequence[bytes]) -> None:
    assert inherited((FIRST, [b"a"]), b"a", *behind) is None


def test_so_is_a_key_of_the_bridge_that_was_deleted() -> None:
    assert inherited(NAMES.lease, BOUNDARY) is None
