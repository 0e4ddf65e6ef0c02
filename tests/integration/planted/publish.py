"""What a message that is published finds to be wrong with NATS. For Kafka, that is in `kafka.py`."""

from nats.js.api import DiscardPolicy

from tests.integration.ground import Ground
from tests.integration.planted.scenes import NATS_PERMISSIONS, PUBLISH, Fault, Scene, Scenes
from tests.integration.planted.streams import FULL, OF_OTHERS, SMALL

scene = Scenes()


@scene(Fault("NATS/test publish", "fail", "the user may not publish to expired.0._check", NATS_PERMISSIONS))
def a_user_whose_rights_nobody_tells(ground: Ground) -> Scene:
    """And that may only make streams."""
    account = ground.account(permissions='{ publish: "$JS.API.>" }')
    account.stream()
    return Scene(account.settings, account.allow, flags=PUBLISH)


@scene(
    OF_OTHERS,
    SMALL,
    Fault(
        "NATS/test publish",
        "fail",
        "no stream binds expired.0._check",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*'",
    ),
)
def a_stream_that_the_message_does_not_find(ground: Ground) -> Scene:
    """And does not fit into."""
    account = ground.account()
    account.stream(subjects=["orders.>"], max_msg_size=100)
    return Scene(account.settings, account.apply, flags=PUBLISH)


@scene(
    SMALL,
    Fault(
        "NATS/test publish",
        "fail",
        "EXPIRY refuses it: message size exceeds maximum allowed (error 10054)",
        "nats stream edit EXPIRY --max-msg-size=-1",
    ),
)
def a_stream_that_the_message_does_not_fit_into(ground: Ground) -> Scene:
    """Nor would any other."""
    account = ground.account()
    account.stream(max_msg_size=100)
    return Scene(account.settings, account.apply, flags=PUBLISH)


@scene(
    FULL,
    Fault(
        "NATS/test publish",
        "fail",
        "EXPIRY refuses it: maximum messages exceeded (error 10077)",
        "nats stream edit EXPIRY --max-msgs=-1 --max-bytes=-1",
    ),
)
def a_stream_that_has_no_room_for_the_message(ground: Ground) -> Scene:
    """Nor for any other."""
    account = ground.account()
    account.stream(max_msgs=1, discard=DiscardPolicy.NEW)
    account.work(lambda jetstream: jetstream.publish("expired.0.x"))
    return Scene(account.settings, account.apply, flags=PUBLISH)


@scene(
    OF_OTHERS,
    Fault(
        "NATS/test publish",
        "fail",
        "another stream than EXPIRY binds expired.0._check",
        "name it in BRIDGE_NATS_STREAM (nats stream find --subject=expired.0._check), or change BRIDGE_NATS_SUBJECT",
    ),
)
def a_stream_beside_the_right_one(ground: Ground) -> Scene:
    """The message finds the right one."""
    account = ground.account()
    account.stream(subjects=["orders.>"])
    account.stream(name="RIGHT")
    settings = account.settings
    return Scene(settings, lambda _: settings.update(nats_stream="RIGHT"), flags=PUBLISH)
