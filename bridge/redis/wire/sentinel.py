"""Which server the sentinels consider the primary.

All are asked in parallel, each for a second at most, so that dead ones cost no more than that. They need not agree: the
configuration of each has an epoch, which a failover raises, and the answer of the highest epoch is the newest. No
majority is needed: a single remaining sentinel can still say where the primary is. A missing answer proves nothing. An
answer is only a claim: `primary.py` checks it.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.errors import BridgeError, ErrorKind, NotConnected, Refused
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import Address, Endpoint

RIGHTS = "+sentinel|get-master-addr-by-name +sentinel|master +client|setname"
"""What the bridge's user needs at the sentinels, as rules of their ACL."""


class Sentinel(Endpoint):
    """One sentinel. Its login is not Redis's."""

    @classmethod
    def of_redis(cls, redis: Endpoint, address: Address) -> "Sentinel":
        """The sentinel at an address of the URL, which names it instead of `redis`."""
        tls = redis.settings.redis_sentinel_tls
        return cls(
            redis.settings,
            *address,
            path=None,
            db=0,
            tls=redis.tls if tls == "as-redis" else tls == "on",
            limits=redis.limits,
            clock=redis.clock,
        )

    @property
    def title(self) -> str:
        """See `Endpoint`."""
        return f"Sentinel at {self}"

    @property
    def login(self) -> str:
        """See `Endpoint`."""
        return "BRIDGE_REDIS_SENTINEL_USERNAME and BRIDGE_REDIS_SENTINEL_PASSWORD (or …_PASSWORD_FILE)"

    @property
    def logins(self) -> None:
        """See `Endpoint`: a provider is for Redis."""
        return

    def credentials(self) -> tuple[str | None, str | None]:
        """See `Endpoint`."""
        return self.settings.redis_sentinel_username, self.settings.secret("redis_sentinel_password")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one sentinel says about the service."""

    sentinel: str
    address: Address
    """That of the primary; after a promotion, at once that of the promoted replica."""
    epoch: int
    """That of its configuration."""
    flags: frozenset[str]
    """Those of the primary: `master`, and what else the sentinel knows, such as `s_down`."""
    quorum: int
    """How many sentinels have to find the primary down before a failover."""
    others: int
    """Sentinels that it knows besides itself."""
    replicas: int


class Sentinels:
    """Those of `BRIDGE_REDIS_URL`."""

    def __init__(self, redis: Endpoint) -> None:
        """`redis`: what the URL says of the server that they name."""
        url = redis.settings.redis_address()
        self.service = url.service
        self._clock = redis.clock
        named = [Sentinel.of_redis(redis, address) for address in url.sentinels]
        self._clients = [(sentinel, sentinel.client(redis.limits.sentinel_connections)) for sentinel in named]

    async def ask(self) -> list[Answer | BridgeError]:
        """What each says, in the order of the URL; NotConnected or Refused if it does not answer."""
        return await asyncio.gather(*(self._ask(*pair) for pair in self._clients))

    async def primary(self) -> Address:
        """Where the primary is, by the newest answer. Raises NotConnected or Refused where there is none."""
        heard = await self.ask()
        answers = [answer for answer in heard if isinstance(answer, Answer)]
        if answers:
            return newest(answers)
        errors = [error for error in heard if isinstance(error, BridgeError)]
        refusals = [error for error in errors if isinstance(error, Refused)]
        if refusals:
            raise refusals[0]
        raise NotConnected(f"no sentinel answers: {'; '.join(map(str, errors))}")

    async def news(self, seconds: float) -> None:
        """See `primary.Finder`: they have to be asked."""
        await self._clock.sleep(seconds)

    async def close(self) -> None:
        """Give the connections back."""
        for _, client in self._clients:
            await client.aclose()

    async def _ask(self, sentinel: Sentinel, client: Redis) -> Answer | BridgeError:
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        pipeline.execute_command("SENTINEL", "MASTER", self.service)
        try:
            async with conversation(sentinel, sentinel.limits.sentinel):
                try:
                    address, state = await replies(pipeline)
                except ResponseError as error:
                    raise self._refused(sentinel, str(error)) or error from error
            return _answer(sentinel, address, state)
        except (NotConnected, Refused) as error:
            return _for_sentinels(error)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            return NotConnected(f"{sentinel.title} does not answer as a sentinel does ({type(error).__name__})")

    def _refused(self, sentinel: Sentinel, answer: str) -> Refused | None:
        """What an answer means that only a sentinel gives, or only a server that is none."""
        if "No such master" in answer:
            return Refused(
                f"{sentinel.title} monitors no service '{self.service}'",
                "check the service in BRIDGE_REDIS_URL"
                f" (redis-cli -h {sentinel.host} -p {sentinel.port} SENTINEL MASTERS lists them)",
            )
        if "unknown command" in answer.lower():
            return Refused(f"{sentinel.title} is no sentinel", "check the hosts and ports in BRIDGE_REDIS_URL")
        return None


def _for_sentinels(error: NotConnected | Refused) -> NotConnected | Refused:
    """A sentinel's users have other rights than Redis's."""
    if error.kind is not ErrorKind.DENIED:
        return error
    return Refused(error.found, f"check the ACL of its user there (ACL SETUSER … {RIGHTS})", ErrorKind.DENIED)


def newest(answers: Sequence[Answer]) -> Address:
    """The primary with the highest epoch; among several, the one that most sentinels name."""
    votes = Counter((answer.epoch, answer.address) for answer in answers)
    return max(votes, key=lambda vote: (vote[0], votes[vote], vote[1]))[1]


def _answer(sentinel: Sentinel, address: Sequence[bytes] | None, state: Sequence[bytes]) -> Answer | BridgeError:
    if address is None:  # it was removed between the two commands
        return NotConnected(f"{sentinel.title} does not know the primary now")
    words = [word.decode(errors="replace") for word in state]
    fields = dict(zip(words[::2], words[1::2], strict=True))
    return Answer(
        sentinel=str(sentinel),
        address=_address(*address),
        epoch=int(fields.get("config-epoch", 0)),
        flags=frozenset(fields.get("flags", "").split(",")),
        quorum=int(fields.get("quorum", 0)),
        others=int(fields.get("num-other-sentinels", 0)),
        replicas=int(fields.get("num-slaves", 0)),
    )


def _address(host: bytes, port: bytes) -> Address:
    """Raises ValueError where nothing could be connected to."""
    name, number = host.decode(), int(port)
    name.encode("idna")  # as it is resolved
    if not name or not name.isprintable() or not 0 < number < 1 << 16:
        raise ValueError("no address")
    return name, number
