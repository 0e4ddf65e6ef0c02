"""A Redis, a NATS server and one bridge between them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from signal import SIGTERM

from tests.support.servers import Bridge, NatsServer, RedisServer, require


@dataclass(frozen=True)
class World:
    """A Redis (or Valkey), a NATS server, and a bridge between them."""

    redis: RedisServer
    nats: NatsServer
    bridge: Bridge


def settings_for(redis: RedisServer, nats_server: NatsServer, **more: str) -> dict[str, str]:
    """The BRIDGE_* variables; `more` are further ones, without prefix and in lower case."""
    own = {f"BRIDGE_{name.upper()}": value for name, value in more.items()}
    return {"BRIDGE_REDIS_URL": f"{redis.url}/0", "BRIDGE_NATS_URL": nats_server.url, **own}


@contextmanager
def world(kind: type[RedisServer], config: Mapping[str, str] | None = None, **settings: str) -> Iterator[World]:
    """A world of its own. The bridge may need a moment to be ready."""
    require(kind)
    require(NatsServer)
    with kind(config) as redis, NatsServer() as nats_server, bridged(redis, nats_server, **settings) as bridge:
        yield World(redis, nats_server, bridge)


@contextmanager
def bridged(redis: RedisServer, nats_server: NatsServer, **settings: str) -> Iterator[Bridge]:
    """A bridge that has to drain in the end, unless it was ended before."""
    with Bridge(settings_for(redis, nats_server, **settings)) as bridge:
        yield bridge
        if bridge.running:
            bridge.send_signal(SIGTERM)
            assert bridge.wait(30) == 0, bridge.log()
