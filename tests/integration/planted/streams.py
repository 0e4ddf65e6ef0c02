"""What can be wrong with a JetStream stream."""

import asyncio

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamSource

from tests.integration.ground import Ground, in_sync
from tests.integration.mends import nats_cli
from tests.integration.planted.scenes import Fault, Scene, Scenes, changed
from tests.support.servers import wait_until

ADD = "nats stream add EXPIRY --subjects='expired.0.*' --storage=file --dupe-window=10m --max-age=7d"
MOVE = (
    "name a new stream in BRIDGE_NATS_STREAM, which the bridge creates (if both bind the same subjects, with another"
    " first token in BRIDGE_NATS_SUBJECT), and let consumers read the old one to its end"
)
OF_OTHERS = Fault(
    "NATS/subjects",
    "fail",
    "EXPIRY binds orders.>, none of expired.0.*",
    "nats stream edit EXPIRY --subjects='orders.>,expired.0.*'; or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM",
)
FULL = Fault(
    "NATS/limits",
    "fail",
    "the stream is full, and refuses what is new (discard=new)",
    "nats stream edit EXPIRY --max-msgs=-1",
)
SMALL = Fault(
    "NATS/message size",
    "warn",
    "up to 100 bytes",
    "nats stream edit EXPIRY --max-msg-size=4096 (or more; -1 for no limit)",
)

scene = Scenes()


@scene(
    Fault(
        "NATS/stream",
        "warn",
        "EXPIRY has interest retention: what no consumer waits for is dropped",
        "nats stream edit EXPIRY --retention=limits",
    ),
    Fault(
        "NATS/subjects",
        "warn",
        "EXPIRY binds expired.0.share, orders.>, not all of expired.0.*: other messages become dead letters",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*'",
    ),
    Fault(
        "NATS/duplicate window",
        "warn",
        "5 s: what is sent again later than that is stored twice",
        "nats stream edit EXPIRY --max-age=7d --dupe-window=10m",
    ),
    Fault(
        "NATS/message size",
        "warn",
        "up to 500 bytes: messages of longer keys become dead letters",
        "nats stream edit EXPIRY --max-msg-size=4096 (or more; -1 for no limit)",
    ),
    Fault(
        "NATS/limits",
        "warn",
        "60 s: a consumer that is down for longer misses messages",
        "nats stream edit EXPIRY --max-age=7d",
    ),
    Fault(
        "NATS/provision",
        "warn",
        "messages are kept for 0.0166667 h (0 = for ever): not what the settings ask for, since an existing stream",
        "nats stream edit EXPIRY --max-age=7d",
    ),
)
def a_stream_that_loses_and_doubles_messages(ground: Ground) -> Scene:
    """In six ways."""
    account = ground.account()
    account.stream(
        retention=RetentionPolicy.INTEREST,
        subjects=["expired.0.share", "orders.>"],
        duplicate_window=5.0,
        max_msg_size=500,
        max_age=60.0,
    )
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "warn",
        "EXPIRY is kept in memory: it is lost when its servers stop",
        f"when its consumers have read it, recreate it: nats stream rm EXPIRY; {ADD} --defaults",
    ),
    Fault(
        "NATS/subjects",
        "warn",
        "EXPIRY binds expired.*.share, not all of expired.0.*",
        "nats stream edit EXPIRY --subjects='expired.*.*'",
    ),
    Fault(
        "NATS/limits",
        "warn",
        "1 messages of a subject: older ones are dropped, whether or not they were consumed",
        "nats stream edit EXPIRY --max-msgs-per-subject=-1",
    ),
)
def a_stream_in_memory(ground: Ground) -> Scene:
    """Which keeps one message of a subject, and binds what overlaps with what it should bind."""
    account = ground.account()
    account.stream(storage=StorageType.MEMORY, max_msgs_per_subject=1, subjects=["expired.*.share"])
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY acks nothing (no_ack): there is no proof of what is stored",
        "nats stream edit EXPIRY --ack",
    ),
    OF_OTHERS,
    Fault(
        "NATS/limits",
        "warn",
        "100 messages: at a burst the oldest are dropped, whether or not they were consumed",
        "nats stream edit EXPIRY --max-msgs=-1",
    ),
)
def a_stream_for_something_else(ground: Ground) -> Scene:
    """That acks nothing, and is small."""
    account = ground.account()
    account.stream(no_ack=True, max_msgs=100, subjects=["orders.>"])
    return Scene(account.settings, account.apply)


@scene(FULL)
def a_stream_that_is_full(ground: Ground) -> Scene:
    """Of one message."""
    account = ground.account()
    account.stream(max_msgs=1, discard=DiscardPolicy.NEW)
    account.work(lambda jetstream: jetstream.publish("expired.0.x"))
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY is sealed: it takes no messages",
        f"when its consumers have read it, recreate it: nats stream rm EXPIRY; {ADD} --defaults",
    )
)
def a_stream_that_is_sealed(ground: Ground) -> Scene:
    """For good."""
    account = ground.account()
    account.stream()

    async def seal(jetstream: JetStreamContext) -> None:
        config = (await jetstream.stream_info("EXPIRY")).config
        await jetstream.update_stream(config.evolve(sealed=True))

    account.work(seal)
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY is a mirror: it takes no messages",
        "name another one in BRIDGE_NATS_STREAM",
    )
)
def a_stream_that_is_a_mirror(ground: Ground) -> Scene:
    """Of the right one."""
    account = ground.account()
    account.stream(name="ORIGIN")
    account.stream(subjects=None, mirror=StreamSource(name="ORIGIN"))
    settings = account.settings
    return Scene(settings, lambda _: settings.update(nats_stream="ORIGIN"))


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY does not exist and cannot be created: stream THEIRS binds some of expired.*.*",
        "set BRIDGE_NATS_STREAM=THEIRS, or change BRIDGE_NATS_SUBJECT",
    )
)
def a_stream_that_another_is_in_the_way_of(ground: Ground) -> Scene:
    """With the same subjects."""
    account = ground.account()
    account.stream(name="THEIRS")
    return Scene(account.settings, changed(account.settings))


@scene(
    Fault("NATS/stream", "fail", "EXPIRY does not exist", f"{ADD} --defaults; or set BRIDGE_NATS_PROVISION=true"),
)
def a_stream_that_nobody_makes(ground: Ground) -> Scene:
    """Neither the bridge."""
    account = ground.account()
    account.settings["nats_provision"] = "false"
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/one message per subject",
        "fail",
        "EXPIRY: max_msgs_per_subject is not 1; it does not refuse what is new of a subject (discard=new,",
        f"{MOVE}; an edit would drop all but the last message of each subject",
    )
)
def a_stream_of_the_other_deduplication(ground: Ground) -> Scene:
    """With a message in it: an edit would drop others."""
    account = ground.account()
    account.stream(subjects=["expired.*.*"])
    account.work(lambda jetstream: jetstream.publish("expired.0.x"))
    account.settings["nats_deduplication"] = "subject"
    return Scene(account.settings, lambda _: account.settings.update(nats_stream="EXPIRY-ONCE"))


@scene(
    Fault(
        "NATS/one message per subject",
        "fail",
        "EXPIRY: max_msgs_per_subject is not 1; it does not refuse what is new of a subject (discard=new,",
        "nats stream edit EXPIRY --max-msgs-per-subject=1 --discard=new --discard-per-subject --dupe-window=10s",
    )
)
def an_empty_stream_of_the_other_deduplication(ground: Ground) -> Scene:
    """Nothing is lost by an edit."""
    account = ground.account()
    account.stream()
    account.settings["nats_deduplication"] = "subject"
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/one message per subject",
        "fail",
        "EXPIRY: it is a work queue: what a consumer has acked is gone, and would be stored again",
        MOVE,
    )
)
def a_work_queue_that_is_to_store_each_message_once(ground: Ground) -> Scene:
    """It forgets what was consumed."""
    account = ground.account()
    each = {"max_msgs_per_subject": 1, "discard": DiscardPolicy.NEW, "discard_new_per_subject": True}
    account.stream(retention=RetentionPolicy.WORK_QUEUE, **each)
    account.settings["nats_deduplication"] = "subject"
    move = {"nats_stream": "EXPIRY-ONCE", "nats_subject": "gone.{db}.{prefix}"}
    return Scene(account.settings, lambda _: account.settings.update(move))


@scene(
    Fault(
        "NATS/replicas",
        "warn",
        "1: an ack is kept by one server only, and lost with it",
        "nats stream edit EXPIRY --replicas=3",
    )
)
def a_stream_on_one_server_of_a_cluster(ground: Ground) -> Scene:
    """That has three."""
    settings = ground.nats_cluster()
    url = settings["nats_url"]
    nats_cli(servers=url)(f"{ADD} --replicas=1 --defaults")

    def apply(remedy: str) -> None:
        nats_cli(servers=url)(remedy)
        asyncio.run(wait_until(lambda: in_sync(url, 3), timeout=30))

    return Scene(settings, apply)
