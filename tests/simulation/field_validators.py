"""What is promised of fields of hashes: what was announced, held against their book.

A field that is written within some milliseconds of its deadline, or before the bridge has heard of what was done to it,
may be announced or counted: nobody can know what came first. So these allow that, and no more.
"""

from collections import Counter

from tests.simulation.evidence import Evidence
from tests.simulation.field_book import FieldBook
from tests.simulation.field_lives import Claim, End, FieldLife
from tests.simulation.hints import IDENTITY

SLACK_MS = 5
"""So early a field that is gone counts as due: see `fields.lua`."""
BEHIND_MS = 30_000
"""How long the bridge may take to read a hash of which it has heard."""


def an_expiration_of_a_hash_field_is_announced_once_or_counted(found: Evidence) -> list[str]:
    """What was recorded, and lapses, is claimed or counted; what is claimed is stored, under its one id."""
    book = found.book.fields
    if book is None:
        return []
    problems = [said for at, said in [*book.uncounted, *book.forgotten] if not found.excuse(at, at)]
    ids = {_id(claim) for claim in book.claims}
    problems += [
        f"not stored: {claim}"
        for claim in book.claims
        if _id(claim) not in found.fields and not found.excuse(claim.at, claim.at)
    ]
    problems += [f"never claimed: {told}" for told in found.fields.values() if told.id not in ids]
    for (key, name, deadline), times in Counter((one.key, one.name, one.deadline) for one in book.claims).items():
        lives = [life for life in book.lives[key, name] if life.deadline == deadline]
        claims = [claim for claim in book.claims if (claim.key, claim.name, claim.deadline) == (key, name, deadline)]
        if times > len(lives) and not found.excuse(claims[0].at, claims[-1].at):
            problems.append(f"claimed {times} times: {claims} of {lives}")
    return problems


def no_expiration_of_a_hash_field_is_announced_that_is_known_to_be_none(found: Evidence) -> list[str]:
    """A field that was set again or put off is not announced; nor one of which it was heard that it was taken away."""
    book = found.book.fields
    if book is None:
        return []
    return [
        f"{why}: {claim} of {book.lives[claim.key, claim.name]}"
        for claim in book.claims
        if not found.excuse(claim.at, claim.at) and (why := _why_false(book, claim))
    ]


def _id(claim: Claim) -> str:
    return IDENTITY.of_field(claim.key, claim.name, claim.deadline)


def _why_false(book: FieldBook, claim: Claim) -> str:
    """What contradicts it; nothing if it is true, or cannot be known."""
    lives = [life for life in book.lives[claim.key, claim.name] if life.began_ms <= claim.at]
    of = [life for life in lives if life.deadline == claim.deadline]
    if not of:
        return "it never had that deadline"
    if claim.deadline > claim.at + SLACK_MS:
        return "its deadline is not past"
    if any(life.lapsed(max(claim.at, claim.deadline + 1)) for life in of):
        return ""
    if claim.there:
        return "it is there"
    return (
        "" if lives[-1].lapsed(claim.at) else _why_not_taken(book, claim, lives[-1])
    )  # of a deadline that was not read


def _why_not_taken(book: FieldBook, claim: Claim, last: FieldLife) -> str:
    """Likewise, of a field that was taken away before its deadline, when `last` ended."""
    if not claim.sweep:
        return "" if _other_expired(book, claim, last) else "it was taken away, and nothing of its hash has expired"
    if claim.replaced:
        return "its hash was replaced"
    heard = [
        told
        for told in book.told[claim.key]
        if told.event != "hexpired" and told.epoch == claim.epoch and told.at == last.ended_ms <= claim.deadline
    ]  # what is taken away behind the deadline had another one
    return f"it was taken away, which was heard: {heard}" if heard else ""


def _other_expired(book: FieldBook, claim: Claim, life: FieldLife) -> bool:
    """Whether another field of the hash has expired at about that time, or is there past its deadline: nobody can know
    which one it was.
    """  # noqa: D205 - one paragraph
    if any(
        life.ended_ms - BEHIND_MS <= told.at <= claim.at for told in book.told[claim.key] if told.event == "hexpired"
    ):
        return True
    of = [other for (key, _), lives in book.lives.items() if key == claim.key for other in lives if other is not life]
    return any((other.end is End.LASTS or other.ended_ms >= claim.at) and other.deadline <= claim.at for other in of)
