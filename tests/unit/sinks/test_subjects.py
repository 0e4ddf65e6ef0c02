"""Keys as NATS subjects."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.contracts import Message
from bridge.errors import ConfigurationError
from bridge.sinks.subjects import (
    MAX_SUBJECT_BYTES,
    TOO_LONG,
    IdentifiedSubjects,
    SubjectTemplate,
    covers,
    encode_parts,
    encode_token,
    overlaps,
)

FORBIDDEN = [chr(code) for code in range(0x21)] + [".", "*", ">", "\x7f"]
TOKENS = st.sampled_from(["a", "b", "{db}", "{prefix}", "{key}", "a-{prefix}", "db{db}", "{prefix}-{key}"])
TEMPLATES = st.lists(TOKENS, max_size=4).map(lambda tokens: ".".join(["expired", *tokens]))
PATTERNS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4).flatmap(
    lambda tokens: st.sampled_from([".".join(tokens), ".".join([*tokens, ">"])])
)
SUBJECTS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map(".".join)
NASTY = st.one_of(st.binary(), st.binary(max_size=3), st.text(alphabet="_%:.{}keyprfxdb", max_size=9).map(str.encode))


def is_valid(token: str) -> bool:
    return bool(token) and token.isascii() and not any(character in token for character in FORBIDDEN)


@pytest.mark.parametrize(
    ("part", "token"),
    [
        (b"", "_"),
        (b"share", "share"),
        (b"_", "%5F"),
        (b"_gap", "%5Fgap"),
        (b"a_b", "a_b"),
        (b"a.b*c>", "a%2Eb%2Ac%3E"),
        (b"100%", "100%25"),
        (b"\x00 \t\r\n\x7f", "%00%20%09%0D%0A%7F"),
        ("ü".encode(), "%C3%BC"),
        (b"\xff", "%FF"),
        (b"!\"#$&'()+,-/;<=?@[\\]^`{|}~", "!\"#$&'()+,-/;<=?@[\\]^`{|}~"),
    ],
)
def test_a_token_is_the_part_with_what_nats_forbids_percent_encoded(part: bytes, token: str) -> None:
    assert encode_token(part) == token


@given(st.binary())
def test_any_bytes_give_a_valid_token(part: bytes) -> None:
    token = encode_token(part)
    assert is_valid(token)
    assert token != "_gap"
    assert not token.startswith("_") or not part


@given(NASTY, NASTY)
@example(b"", b"_")
@example(b"%5F", b"_")
def test_no_two_parts_share_a_token(one: bytes, other: bytes) -> None:
    assert (encode_token(one) == encode_token(other)) == (one == other)


@given(NASTY)
@example(b"a::b:")
@example(b"a:_b")
def test_the_parts_of_a_key_are_its_tokens(key: bytes) -> None:
    assert encode_parts(key) == ".".join(encode_token(part) for part in key.split(b":"))


@pytest.mark.parametrize(
    ("template", "key", "subject"),
    [
        ("expired.{db}.{prefix}", b"share:7f3a:x", "expired.3.share"),
        ("expired.{db}.{prefix}", b"share", "expired.3.share"),
        ("expired.{db}.{prefix}", b":share", "expired.3._"),
        ("expired.{db}.{key}", b"share:7f3a::x", "expired.3.share.7f3a._.x"),
        ("expired.{db}.{prefix}.all.{key}", b"{key}:{db}", "expired.3.{key}.all.{key}.{db}"),
        ("expired.db{db}-{prefix}", b"_a", "expired.db3-%5Fa"),
        ("expired", b"share:7f3a", "expired"),
    ],
)
def test_the_template_is_filled_with_db_prefix_and_key(template: str, key: bytes, subject: str) -> None:
    subjects = SubjectTemplate(template, 3)
    assert subjects.of(key) == subject
    assert subjects.of(key) == subject  # from the cache


@pytest.mark.parametrize(
    ("template", "gap", "published", "provisioned"),
    [
        ("expired.{db}.{prefix}", "expired.3._gap", ["expired.3.*"], ["expired.*.*"]),
        ("expired.{db}.{key}", "expired.3._gap", ["expired.3.>"], ["expired.*.>"]),
        ("expired.{key}.end", "expired._gap.end", ["expired.>"], ["expired.>"]),
        ("expired.{prefix}.x{db}", "expired._gap.x3", ["expired.*.x3"], ["expired.*.*"]),
        ("expired.{db}", "expired.3._gap", ["expired.3", "expired.3._gap"], ["expired.*", "expired.*._gap"]),
        ("expired", "expired._gap", ["expired", "expired._gap"], ["expired", "expired._gap"]),
    ],
)
def test_the_gap_record_and_the_stream_have_subjects_of_their_own(
    template: str, gap: str, published: list[str], provisioned: list[str]
) -> None:
    subjects = SubjectTemplate(template, 3)
    assert (subjects.gap, subjects.published, subjects.provisioned) == (gap, published, provisioned)


@pytest.mark.parametrize(
    ("template", "subject", "filter_", "gap", "published", "provisioned"),
    [
        (
            "expired.{db}.{prefix}",
            "expired.3.a.ID",
            "expired.3.a.*",
            "expired.3._gap.ID",
            "expired.3.*.*",
            "expired.*.*.*",
        ),
        (
            "expired.{db}.{key}.{id}",
            "expired.3.a.b.ID",
            "expired.3.a.b.*",
            "expired.3._gap.ID",
            "expired.3.>",
            "expired.*.>",
        ),
        (
            "expired",
            "expired.ID",
            "expired.*",
            "expired._gap.ID",
            "expired.*,expired._gap.*",
            "expired.*,expired._gap.*",
        ),
    ],
)
def test_with_the_id_as_the_last_token_every_message_has_a_subject_of_its_own(
    template: str, subject: str, filter_: str, gap: str, published: str, provisioned: str
) -> None:
    subjects = IdentifiedSubjects(template, 3)
    message = Message("ID", b"a:b", b"", "")
    assert subjects.of_message(message) == subject
    assert subjects.filter(b"a:b") == filter_
    assert subjects.of_message(message._replace(key=b"_gap", gap=True)) == gap
    assert (",".join(subjects.published), ",".join(subjects.provisioned)) == (published, provisioned)
    assert subjects.without_key(message) == f"{template.replace('{db}', '3').removesuffix('.{id}')}.{{id}}"


@given(TEMPLATES, NASTY, NASTY)
def test_no_two_ids_share_a_subject_and_the_stream_binds_each(template: str, one: bytes, other: bytes) -> None:
    subjects = IdentifiedSubjects(template, 3)
    left, right = Message("a" * 32, one, b"", ""), Message("b" * 32, other, b"", "")
    gap = left._replace(id="c" * 32, gap=True)
    found = {subjects.of_message(message) for message in (left, right, gap)}
    assert len(found) == 3
    for bound in (subjects.published, subjects.provisioned):
        assert all(any(covers(pattern, subject) for pattern in bound) for subject in found)
    assert covers(subjects.filter(one), subjects.of_message(left))


@given(TEMPLATES, NASTY, st.integers(0, 20))
def test_the_stream_binds_every_subject_and_no_key_has_that_of_the_gap_or_of_a_test(
    template: str, key: bytes, db: int
) -> None:
    subjects = SubjectTemplate(template, db)
    subject = subjects.of(key)
    assert all(map(is_valid, subject.split(".")))
    assert subject not in {subjects.gap, subjects.check}
    for bound in (subjects.published, subjects.provisioned):
        assert any(covers(pattern, subject) for pattern in bound)
        assert any(covers(pattern, subjects.gap) for pattern in bound)
        assert any(covers(pattern, subjects.check) for pattern in bound)
    assert all(any(covers(wide, narrow) for wide in subjects.provisioned) for narrow in subjects.published)


@pytest.mark.parametrize(
    "template",
    ["", ".", "a..b", "a b", "a.*", "a.>", "a.{other}", "a.{", "$JS.{key}", "{prefix}.a", "x{key}", "{db}.{prefix}"],
)
def test_a_template_that_cannot_work_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_NATS_SUBJECT"):
        SubjectTemplate(template, 0)


@given(PATTERNS, PATTERNS, SUBJECTS)
def test_covering_and_overlapping_agree_with_matching(one: str, other: str, subject: str) -> None:
    if covers(one, other) and covers(other, subject):
        assert covers(one, subject)
    if covers(one, subject) and covers(other, subject):
        assert overlaps(one, other)


@pytest.mark.parametrize(
    ("one", "other", "covered", "overlapping"),
    [
        ("a.*", "a.b", True, True),
        ("a.*", "a.>", False, True),
        ("a.>", "a.*", True, True),
        ("a.>", "a", False, False),
        ("a.*.c", "a.b.*", False, True),
        ("a.b", "a.c", False, False),
        ("a", "a.b", False, False),
        ("a.b", "a", False, False),
        (">", "a.b", True, True),
    ],
)
def test_patterns_cover_and_overlap(one: str, other: str, *, covered: bool, overlapping: bool) -> None:
    assert covers(one, other) == covered
    assert overlaps(one, other) == overlaps(other, one) == overlapping


@pytest.mark.parametrize("template", ["expired.{db}.{prefix}", "expired.{db}.{key}"])
def test_a_key_that_is_too_long_for_any_subject_is_neither_encoded_nor_kept(template: str) -> None:
    subjects = SubjectTemplate(template, 0)
    tracemalloc.start()
    found = {subjects.of(b"%d" % number + b"\x00" * 100_000) for number in range(800)}
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {TOO_LONG}
    assert len(TOO_LONG) > MAX_SUBJECT_BYTES
    assert kept < 1_000_000
