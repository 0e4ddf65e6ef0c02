"""What can be wrong with NATS, with an account and with a user."""

from tests.integration.doctor import SECRET
from tests.integration.ground import Ground, WithoutJetStream
from tests.integration.planted.scenes import NATS_PERMISSIONS, Fault, Scene, Scenes, by_hand

scene = Scenes()


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "the user may not ask about streams",
        f"{NATS_PERMISSIONS}; or create the stream, and set BRIDGE_NATS_PROVISION=false",
    )
)
def a_user_that_may_not_ask_about_streams(ground: Ground) -> Scene:
    """Nor make any."""
    account = ground.account(permissions='{ publish: { deny: "$JS.API.>" } }')
    return Scene(account.settings, account.allow)


@scene(Fault("NATS/JetStream", "fail", "the user may not receive answers", NATS_PERMISSIONS))
def a_user_that_may_not_receive_answers(ground: Ground) -> Scene:
    """To its own questions."""
    account = ground.account(permissions='{ subscribe: { deny: "_INBOX.>" } }')
    return Scene(account.settings, account.allow)


@scene(Fault("NATS/permissions", "fail", "user of-<account> may not publish to expired.0.*", NATS_PERMISSIONS))
def a_user_that_may_not_publish(ground: Ground) -> Scene:
    """What it is there for."""
    account = ground.account(permissions='{ publish: { deny: "expired.>" } }')
    return Scene(account.settings, account.allow, {"account": account.name})


@scene(
    Fault(
        "NATS/permissions",
        "warn",
        "user of-<account> may not publish to all of expired.0.*: other messages become dead letters",
        NATS_PERMISSIONS,
    )
)
def a_user_that_may_publish_a_part(ground: Ground) -> Scene:
    """Not even gap records."""
    allowed = '["expired.0.share", "$JS.API.>", "$SYS.REQ.USER.INFO"]'
    account = ground.account(permissions=f"{{ publish: {allowed} }}")
    return Scene(account.settings, account.allow, {"account": account.name})


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "not enabled for this account",
        "enable it in the server's configuration: accounts { NAME { jetstream: enabled } }",
    )
)
def an_account_without_jetstream(ground: Ground) -> Scene:
    """On a server that has it."""
    account = ground.account(jetstream="")
    return Scene(account.settings, lambda _: account.server.set(account.name, "enabled", ""))


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "this account has 1 streams, and may not have more",
        "raise max_streams in the account's jetstream { }, in the server's configuration; or delete a stream",
    )
)
def an_account_without_room_for_a_stream(ground: Ground) -> Scene:
    """Beside the one that it has."""
    account = ground.account("{ max_streams: 1 }")
    account.stream(name="OTHER", subjects=["orders.>"])
    return Scene(account.settings, lambda _: account.server.set(account.name, "{ max_streams: 2 }", ""))


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "full: it holds <number> of the 5000 bytes that this account may store",
        "raise max_file in the account's jetstream { }, in the server's configuration; or delete old messages",
    )
)
def an_account_without_room_for_messages(ground: Ground) -> Scene:
    """After a first one."""
    account = ground.account("{ max_file: 5000 }")
    account.stream()
    account.work(lambda jetstream: jetstream.publish("expired.0.x", b"x" * 2000))
    return Scene(account.settings, lambda _: account.server.set(account.name, "{ max_file: 500000 }", ""))


@scene(
    Fault(
        "NATS/connection",
        "fail",
        "NATS at 127.0.0.1:<port> refuses the credentials",
        "check BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD, BRIDGE_NATS_TOKEN, BRIDGE_NATS_CREDS_FILE,"
        " BRIDGE_NATS_NKEY_SEED or the user in BRIDGE_NATS_URL",
    )
)
def nats_with_another_password(ground: Ground) -> Scene:
    """Than the one that the settings have."""
    account = ground.account()
    settings = account.settings | {"nats_password": "the-old-one"}
    return Scene(settings, lambda _: settings.update(nats_password=SECRET), {"port": account.server.port})


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "the NATS server has no JetStream",
        "start it with --jetstream; or set BRIDGE_NATS_DOMAIN where it is behind a leaf node, BRIDGE_NATS_API_PREFIX"
        " where it is imported",
        by_hand=True,
    ),
    Fault(
        "NATS/connection",
        "warn",
        "127.0.0.1:<port>, nats-server <number>.<number>.<number>, takes up to 2048 bytes: messages of longer keys",
        "max_payload: 4096 (or more) in the server's configuration",
        by_hand=True,
    ),
)
def nats_that_only_passes_on_what_is_small(ground: Ground) -> Scene:
    """It keeps nothing."""
    server = ground.stack.enter_context(WithoutJetStream("max_payload: 2048"))
    return Scene(ground.with_redis(nats_url=server.url), by_hand, {"port": server.port})
