"""Relief: when a session has to end soon, another session of the same bridge takes over, and no gap opens.

A session has to end when its login ends. It should end when the password or certificate that it was opened with was
replaced. The other session has its own connections and ears, opened with the present password or certificate. It
listens beside the first one until it has heard the mark of the stored place. Then the first one handles what it has
received, and ends. What follows is a takeover like any other (`epoch/standby.py`), and a hot one.

Guarantees: a session that works is not given up before the other one works, on the same server, and can take over hot.
"""

from dataclasses import dataclass
from hashlib import blake2b

from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.attempt import Ears, listen
from bridge.redis.epoch.shard import Shard
from bridge.redis.epoch.standby import Standby
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.source.phases import Phase, Phases
from bridge.redis.source.preparation import prepare
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.primary import Primary


@dataclass(frozen=True, slots=True)
class Relief:
    """A session that can take over."""

    reason: str
    """Why it takes over."""
    primary: Primary
    ledger: Ledger
    ears: Ears

    async def drop(self) -> None:
        """Close it: it is not needed."""
        self.ears.subscription.end("the session is not needed")
        await self.primary.leave()


class Reliefs:
    """Those of one source."""

    def __init__(self, shard: Shard, phases: Phases) -> None:
        self._shard = shard
        self._phases = phases
        self._clock = shard.runtime.clock
        self._limits = shard.runtime.limits

    async def ready(self, primary: Primary) -> Relief:
        """Return when the session has to be relieved, and another one is ready for that."""
        limits, shown = self._limits.source, _shown(primary.endpoint)
        while True:
            await self._clock.tick(limits.relief_check)
            reason = self._reason(primary.endpoint, shown)
            if reason is None:
                continue
            try:
                return await self._open(reason, primary)
            except (NotConnected, Refused) as error:
                self._shard.telemetry.relief_failed(reason, str(error))
            await self._clock.sleep(limits.relief_retry)

    def _reason(self, endpoint: Endpoint, shown: bytes) -> str | None:
        """Why the session has to be relieved now, or should be. The latter can wait for the end of an open gap."""
        binding = endpoint.binding
        if binding is not None and binding.ends_at is not None:
            left = binding.ends_at - binding.told_at
            if self._clock.monotonic() >= binding.ends_at - min(self._limits.source.relief_lead, left / 4):
                return "the login is about to end"
        quiet = self._phases.now in {Phase.WATCHING, Phase.STANDING_BY}
        return "its password or certificate was replaced" if quiet and _shown(endpoint) not in {shown, b""} else None

    async def _open(self, reason: str, former: Primary) -> Relief:
        """Open the other session. Raises NotConnected or Refused; then nothing of it stays open."""
        shard, primary = self._shard, former.beside()
        ears: Ears | None = None
        try:
            ledger = Ledger(primary.commands, shard.names, self._limits.ledger, shard.others)
            await prepare(shard, primary, ledger)
            _require_better(former.endpoint, primary.endpoint)
            ears = await listen(primary.client, primary.endpoint, shard.names, shard.runtime.instance)
            await self._caught_up(ears, ledger)
        except BaseException:
            if ears is not None:
                ears.subscription.end("the session is given up")
            await primary.leave()
            raise
        return Relief(reason, primary, ledger, ears)

    async def _caught_up(self, ears: Ears, ledger: Ledger) -> None:
        """Return when a takeover by that session would be hot. Raises NotConnected if it never will be."""
        patience = self._limits.epoch.mark
        standby = Standby(ears, self._shard.names, self._clock, patience)
        until = self._clock.monotonic() + patience
        while not (standby.present and standby.held(await ledger.place())):
            if self._clock.monotonic() >= until:
                raise NotConnected("another session could not go on where this one is")
            await self._clock.sleep(self._limits.source.standby_poll)


def _require_better(former: Endpoint, found: Endpoint) -> None:
    """Raise NotConnected unless that session is on the same server, with a login that ends later."""
    old, new = former.binding, found.binding
    if old is None or new is None or old.run_id is None or new.run_id != old.run_id:
        raise NotConnected("another server answers there now")
    if old.ends_at is not None and new.ends_at is not None and new.ends_at <= old.ends_at:
        raise NotConnected("the new login ends no later than the one in use")


def _shown(endpoint: Endpoint) -> bytes:
    """A digest of the credentials and certificates that a new connection would use; empty if they are unreadable."""
    settings = endpoint.settings
    digest = blake2b()
    try:
        url = settings.redis_address()
        secrets = (settings.secret("redis_password"), settings.secret("redis_tls_key_password"))
        words = (url.username, url.password, settings.redis_username, *secrets)
        files = (settings.redis_tls_ca_file, settings.redis_tls_cert_file, settings.redis_tls_key_file)
        contents = [b"" if path is None else path.read_bytes() for path in files]
    except (OSError, Refused):
        return b""
    for part in (*((word or "").encode() for word in words), *contents):
        digest.update(b"%d:%b" % (len(part), part))
    return digest.digest()
