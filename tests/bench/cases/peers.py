"""What is lost, how late the rest is, and at what cost, where the listener crashes: the bridge beside its peers."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import DELAYS, Bar, Chart, number
from tests.bench.control import FIGURE, controlled
from tests.bench.figures import percentile
from tests.bench.patterns import span_end
from tests.bench.peers import Peer, peers
from tests.bench.stage import KEY, PATIENCE, SUBJECT, JetStreamStage, in_seconds, staged_with_nats, until
from tests.bench.usage import Usage
from tests.bench.worker import Worker
from tests.support.servers import wait_until

RATE: Final = 500
SECONDS: Final = 20.0
TTL_SECONDS: Final = 10.0
"""Longer than the outage, even on a slow machine: a bridge also loses a key that is set and expires within it."""
SHORTEST_SECONDS: Final = 2 * TTL_SECONDS
"""Half of it is the time that costs are those of: keys are set and expire in all of that."""
DOWN_SECONDS: Final = 2.0
LEAD_SECONDS: Final = 3.0
"""For the writer to start."""
QUIET_SECONDS: Final = 5.0
"""After so long without another one the rest is lost, once Redis has expired all keys, and the last clean-up is due."""
TWICE_SECONDS: Final = 1.0
"""For what comes again once all is there."""
GAP_SUBJECT: Final = "expired.0._gap"
BOUNDS_MS: Final = (10.0, 100.0, 1_000.0, 10_000.0, math.inf)
"""Of `DELAYS`, but for the last, which are lost."""


@dataclass(frozen=True)
class Load:
    """Keys that expire at an even pace."""

    rate: int
    seconds: float

    @property
    def count(self) -> int:
        """All of them."""
        return round(self.rate * self.seconds)

    def deadline_ms(self, number: int, begin_ms: int) -> int:
        """Of one of them, where the first has `begin_ms`."""
        return begin_ms + number * 1000 // self.rate


async def crashed(peer: Peer, load: Load) -> Figures:
    """Half way, the process that listens is killed, and started again a little later."""
    figures = Figures()
    async with staged_with_nats() as stage, AsyncExitStack() as stack:
        listeners = await peer.start(stage, stack)
        begin_ms = in_seconds(TTL_SECONDS + LEAD_SECONDS)
        crash_ms = begin_ms + load.seconds * 500
        writer = stack.enter_context(
            Worker(
                "writer",
                port=stage.server.port,
                key=KEY,
                kind=peer.writes,
                begin_ms=begin_ms,
                count=load.count,
                rate=load.rate,
                ttl_seconds=TTL_SECONDS,
                clean_up_seconds=peer.clean_up_seconds,
            )
        )
        await until(begin_ms)
        pids = {f"listener_{number}": listener.pid for number, listener in enumerate(listeners)}
        usage = Usage.begin(**pids, redis=stage.server.pid, broker=stage.nats.pid)
        async with controlled(figures):
            await until(crash_ms)
            figures |= _costs(peer, usage, load.count // 2)
            listeners[0].kill()
            await asyncio.sleep(DOWN_SECONDS)
            listeners[0].start()
            await until(begin_ms + load.seconds * 1000)
        if (await writer.found())["late_seconds"] > TTL_SECONDS / 2:
            raise RuntimeError("the machine is too busy to set keys in time")
        await _complete(stage, peer, load.count)
        if stopped := [listener for listener in listeners if not listener.running]:
            raise RuntimeError(f"{peer.name} ended\n{stopped[0].log()}")
        delivered = await _delivered(stage)
        figures["missed"] = await _missed(stage)
    return figures | judged(delivered, load, begin_ms)


def _costs(peer: Peer, usage: Usage, events: int) -> Figures:
    """Of one expiration, while all was well: the start of a process is none of it."""
    used = usage.per_event(events)
    listeners = sum(value for name, value in used.items() if name.startswith("listener_"))
    return {
        f"{peer.part}_cpu_us": listeners,
        "redis_cpu_us": used["redis_cpu_us"],
        "broker_cpu_us": used["broker_cpu_us"],
    }


async def _complete(stage: JetStreamStage, peer: Peer, count: int) -> None:
    """Return when all is stored, or when no key is left: then what is missing will not come."""

    async def all_expired() -> bool:
        return int((await stage.redis.info("stats"))["expired_keys"]) >= count

    await wait_until(all_expired, "Redis to expire all keys", PATIENCE)
    end_ms = time.time() * 1000
    if peer.clean_up_seconds:
        end_ms = span_end(end_ms, peer.clean_up_seconds)
    stored, since_ms = 0, end_ms

    async def ended() -> bool:
        nonlocal stored, since_ms
        now = await stage.stored()
        if now > stored:
            stored, since_ms = now, max(time.time() * 1000, since_ms)
        return now >= count or time.time() * 1000 > since_ms + QUIET_SECONDS * 1000

    await wait_until(ended, "all that comes to be stored", PATIENCE)
    await asyncio.sleep(TWICE_SECONDS)


async def _delivered(stage: JetStreamStage) -> list[tuple[str, float]]:
    """Each message: its key, and when it was stored (Unix ms)."""
    return [(_key(body), at_ms) for body, at_ms in await stage.read(SUBJECT, await stage.stored())]


async def _missed(stage: JetStreamStage) -> int:
    """How many notifications a bridge has missed, by its gap records."""
    gaps = await stage.read(GAP_SUBJECT, await stage.stored(GAP_SUBJECT))
    return sum(json.loads(body)["data"]["missed"] or 0 for body, _ in gaps)


def _key(body: bytes) -> str:
    """Of an event of the bridge, or of a message that is nothing but the key."""
    return str(json.loads(body)["subject"]) if body.startswith(b"{") else body.decode()


def judged(delivered: Sequence[tuple[str, float]], load: Load, begin_ms: int) -> Figures:
    """What of that load is missing, what came again, and how late the first message of each key was."""
    deadlines = {KEY % number: load.deadline_ms(number, begin_ms) for number in range(load.count)}
    first: dict[str, float] = {}
    for key, at_ms in delivered:
        first.setdefault(key, at_ms)
    if first.keys() - deadlines.keys():
        raise RuntimeError("a key was announced that was not set")
    late = [at_ms - deadlines[key] for key, at_ms in first.items()]
    if min(late, default=0.0) < -1.0:
        raise RuntimeError("a key was announced before its deadline")
    classes = Counter(next(index for index, bound in enumerate(BOUNDS_MS) if one <= bound) for one in late)
    return {
        "events": load.count,
        "lost": load.count - len(first),
        "twice": len(delivered) - len(first),
        "late_p50_ms": percentile(late, 50) if late else math.nan,
        "late_p99_ms": percentile(late, 99) if late else math.nan,
        **{f"delay_{index}": classes[index] for index in range(len(BOUNDS_MS))},
    }


def _said(ms: float) -> str:
    return f"{number(ms)} ms" if ms < 1_000 else f"{number(ms / 1_000)} s"


class Peers:
    """See `Case`."""

    name = "peers"
    title = "A crash, beside peers"
    question = (
        f"{RATE} keys a second are set with a TTL of {TTL_SECONDS:.0f} s and expire, for {SECONDS:.0f} s; half way the"
        f" process that listens is killed with SIGKILL, and started again {DOWN_SECONDS:.0f} s later. Late is from the"
        " deadline to the broker's timestamp, of what is delivered; processor time is that of one expiration before the"
        " crash, the SET included. There are no other keys, which favours those that rely on Redis's notifications (see"
        " *Lag*)."
    )
    runs = 1
    seconds = 300.0

    def __init__(self, clean_up_seconds: float | None = None) -> None:
        self._peers = peers() if clean_up_seconds is None else peers(clean_up_seconds)

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`. The rate is a part of the question, so the scale does not change it."""
        load = Load(RATE, max(SECONDS * min(scale, 1.0), SHORTEST_SECONDS))
        yield {peer.name: partial(crashed, peer, load) for peer in self._peers}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`. Of peers, nothing is asked: `table` shows them."""
        verdicts = []
        for peer in self._peers:
            if peer.part == "bridge":
                found = medians[peer.name]
                verdicts += [
                    Verdict(f"{peer.name}: lost", found["lost"], "", at_most=0.0),
                    Verdict(f"{peer.name}: notifications missed, by its gap record", found["missed"], ""),
                    Verdict(f"{peer.name}: delivered twice", found["twice"], "", at_most=0.0),
                    Verdict(f"{peer.name}: late, p99", found["late_p99_ms"] / 1000, "s"),
                ]
        return verdicts

    def table(self, medians: Medians) -> Sequence[Sequence[str]]:
        """See `Tabled`. The last figure is the control: where it is high, the machine was busy."""
        rows = [["", "lost", "twice", "late, p50", "late, p99", "client, µs", "Redis, µs", "control, p99", "good at"]]
        for peer in self._peers:
            found = medians[peer.name]
            lost = f"{found['lost']:,.0f} of {found['events']:,.0f}"
            late = [_said(found[f"late_{percent}_ms"]) for percent in ("p50", "p99")]
            cost = [number(found[f"{part}_cpu_us"]) for part in (peer.part, "redis")]
            rows.append(
                [peer.name, lost, f"{found['twice']:,.0f}", *late, *cost, f"{number(found[FIGURE])} ms", peer.good_at]
            )
        return rows

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = []
        for peer in self._peers:
            found = medians[peer.name]
            counts = [*(found[f"delay_{index}"] for index in range(len(BOUNDS_MS))), found["lost"]]
            shares = {name: count / found["events"] * 100 for name, count in zip(DELAYS, counts, strict=True) if count}
            said = f"{found['lost'] / found['events']:.0%} lost" if found["lost"] else "none lost"
            bars.append(Bar(peer.name, shares, said))
        title = f"The listener crashes and is back {DOWN_SECONDS:.0f} s later: how late expirations arrive, in %"
        return [Chart(self.name, title, "%", bars)]
