"""`expiry-bridge check`, as to values: the rights to read them, and the proof; and a bridge with just those rights."""

import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from redis import Redis

from bridge.redis.admin.acl import acl_rule
from bridge.settings import Settings
from tests.integration.doctor import SOUND, examine
from tests.support.harness.inside import Inside
from tests.support.redis.commands import user_of
from tests.support.servers import Redis8Server, RedisServer, ValkeyServer, require

ROW = "Redis/values"
LOGIN: Mapping[str, Any] = {"redis_username": "bridge", "redis_password": "pw"}
SERVERS = pytest.mark.parametrize("kind", [RedisServer, Redis8Server, ValkeyServer], ids=lambda kind: kind.distribution)


def row(server: RedisServer, status: int = 0, **settings: str) -> Mapping[str, Any]:
    """What `check` says of values."""
    return examine(status, redis_url=server.url, sink="stdout", values="cart:*", **settings)[ROW]


def grant(server: RedisServer) -> None:
    """The rights that the rule has, and no others."""
    settings = Settings(redis_username="bridge", values=["cart:*"])
    with Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "bridge", "reset", "on", ">pw")
        admin.execute_command(*shlex.split(acl_rule(settings)))


def test_nothing_is_said_where_no_values_are_wanted() -> None:
    with RedisServer(SOUND) as server:
        assert ROW not in examine(0, redis_url=server.url, sink="stdout")


@SERVERS
def test_with_the_least_rights_values_are_read_and_proven(kind: type[RedisServer]) -> None:
    require(kind)
    with kind(SOUND) as server:
        grant(server)
        found = row(server, **LOGIN)
        if kind is not RedisServer:  # their rule is made of what any server takes
            assert "hpexpiretime" in found["remedy"]
            with Redis(port=server.port) as admin:
                admin.execute_command(*shlex.split(found["remedy"]))
            found = row(server, **LOGIN)
        assert found["level"] == "pass", found


def test_who_may_not_read_them_is_shown_the_rule() -> None:
    with RedisServer(SOUND) as server, Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "bridge", "on", ">pw", "~*", "&*", "+@all", "-hgetall")
        found = row(server, 1, **LOGIN)
        assert (found["level"], "hgetall cart:*" in found["found"], "+hgetall" in found["remedy"]) == (
            "fail",
            True,
            True,
        )


def test_where_nothing_tells_of_writes_there_is_no_proof() -> None:
    with RedisServer(SOUND) as server, Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", "bridge", "on", ">pw", "~*", "&__key*", "&{expiry*", "+@all")
        found = row(server, **LOGIN)
        assert (found["level"], "value_exact is always false" in found["found"]) == ("warn", True)


def test_a_lead_that_is_longer_than_most_ttls_is_warned_of() -> None:
    with RedisServer(SOUND) as server, Redis(port=server.port) as admin:
        now, _ = admin.time()
        admin.zadd("{expiry-bridge:0:0}:deadlines", {f"key:{number}": (now + 60) * 1000 for number in range(30)})
        found = row(server, values_lead="600")
        assert (found["level"], "BRIDGE_VALUES_LEAD" in found["remedy"]) == ("warn", True)


@SERVERS
async def test_a_bridge_with_the_least_rights_sends_values_that_are_proven(kind: type[RedisServer]) -> None:
    require(kind)
    with kind(SOUND) as server:
        grant(server)
        async with (
            user_of(server) as user,
            Inside(server.port, values=["cart:*"], values_lead=30.0, redis_notifications="verify", **LOGIN) as bridge,
        ):
            await bridge.reconciled()
            await user.set("cart:17", "v", px=900)
            await user.set("other", "v", px=900)
            await bridge.told(2)
    found = {event["data"]["key"]: event["data"] for event in bridge.published}
    assert (found["cart:17"]["value"], found["cart:17"]["value_exact"]) == ("v", True)
    assert "value" not in found["other"]
