"""What `check` says of NATS in places where it would take a broken cluster, or a full disk, to see it."""

import pytest
from nats.js.api import ClusterInfo, DiscardPolicy, PeerInfo, RetentionPolicy, StreamConfig, StreamInfo, StreamState
from nats.js.errors import APIError

from bridge.commands.check.nats.publish import refused
from bridge.commands.check.nats.remedies import NatsTools
from bridge.commands.check.nats.rights import rights
from bridge.commands.check.nats.stream import STREAM_CHECKS
from bridge.settings import Settings

TOOLS = NatsTools.of(Settings(), 0)


def stream(cluster: dict[str, bool] | None = None, **config: object) -> StreamInfo:
    """A stream whose other servers have all of it (True) or not; `{}` stands for a cluster in which it has only one."""
    peers = [PeerInfo(name=name, current=current) for name, current in (cluster or {}).items()]
    about = None if cluster is None else ClusterInfo(leader="n0", name="three", replicas=peers)
    state = StreamState(messages=0, bytes=0, first_seq=0, last_seq=0, consumer_count=0)
    return StreamInfo(StreamConfig(num_replicas=len(peers) + 1).evolve(**config), state, cluster=about)


@pytest.mark.parametrize(
    ("info", "level", "found", "remedy"),
    [
        (stream(), "pass", "1: the server stands alone, and what is acked is kept by it only", ""),
        (stream({}), "warn", "1: an ack is kept by one server only", "nats stream edit EXPIRY --replicas=3"),
        (stream({"n1": True}), "warn", "2: nothing is acked while one", "nats stream edit EXPIRY --replicas=3"),
        (stream({"n1": True, "n2": True}), "pass", "3, all in sync", ""),
        (stream({"n2": False, "n1": False}), "warn", "3, and not in sync: n1, n2", "start these servers"),
    ],
)
def test_replicas_are_judged_by_how_many_keep_what_is_acked(
    info: StreamInfo, level: str, found: str, remedy: str
) -> None:
    told = STREAM_CHECKS["replicas"](info, TOOLS)

    assert told.level == level
    assert told.found.startswith(found)
    assert told.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("config", "level", "found", "remedy"),
    [
        ({}, "warn", "none: messages are kept until an operator deletes them", "nats stream edit EXPIRY --max-age=7d"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "pass", "none: it is a work queue", ""),
        ({"max_msgs": 20_000, "max_age": 7200.0}, "pass", "20000 messages, 2 h", ""),
        ({"max_bytes": 5000}, "warn", "5000 bytes: at a burst", "nats stream edit EXPIRY --max-bytes=-1"),
        (
            {"max_msgs": 20_000, "discard": DiscardPolicy.NEW},
            "warn",
            "20000 messages: when it is full it refuses what is new (discard=new)",
            "nats stream edit EXPIRY --max-msgs=-1",
        ),
        (
            {"max_msgs_per_subject": 5, "discard": DiscardPolicy.NEW, "discard_new_per_subject": True},
            "warn",
            "5 messages of a subject: a full one refuses what is new",
            "nats stream edit EXPIRY --max-msgs-per-subject=-1",
        ),
        (
            {"max_msgs_per_subject": 5},
            "warn",
            "5 messages of a subject: older ones are dropped",
            "nats stream edit EXPIRY --max-msgs-per-subject=-1",
        ),
    ],
)
def test_limits_are_judged_by_what_a_consumer_can_miss(
    config: dict[str, object], level: str, found: str, remedy: str
) -> None:
    told = STREAM_CHECKS["limits"](stream(None, **config), TOOLS)

    assert told.level == level
    assert told.found.startswith(found)
    assert told.remedy == remedy


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (10002, "raise max_file in the account's jetstream { }"),
        (10023, "make room on the server's disk"),
        (10047, "make room on the server's disk"),
        (10077, "nats stream edit EXPIRY --max-msgs=-1 --max-bytes=-1"),
        (1, "look into the log of the NATS server"),
    ],
)
def test_a_message_that_is_refused_is_told_of_with_what_fixes_it(code: int, remedy: str) -> None:
    told = refused(APIError(code=503, description="no", err_code=code), TOOLS)

    assert told.found == f"EXPIRY refuses it: no (error {code})"
    assert told.remedy.startswith(remedy)


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b"{}", b'{"data":{}}', b'{"data":{"user":"a","permissions":1}}'])
def test_what_is_no_answer_about_a_user_is_not_taken_for_one(answer: bytes) -> None:
    with pytest.raises(ValueError, match="no answer about a user"):
        rights(answer)
