"""The demo's story, act by act: what is done to the servers, and what is said about it.

Nothing is claimed that was not just seen: each count and each duration printed was measured.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from time import monotonic, time

from rich.text import Text

from bridge import __version__
from bridge.commands.demo.consumer import Consumer, StoredMessage, Tally
from bridge.commands.demo.stage import PATIENCE, Stage
from bridge.commands.screen import Screen
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.ledger_state import read_state
from bridge.redis.admin.trial import set_expiring

NAME = "expiry-bridge"
UNDISTURBED = {
    "share:7f3a": 600,
    "share:c01d": 700,
    "share:2be8": 800,
    "session:91be": 900,
    "session:0e77": 1000,
    "session:5ac2": 1100,
    "reservation:1042": 1200,
    "reservation:1043": 1300,
    "reservation:1044": 1400,
    "cart:5512": 1500,
    "cart:5513": 1600,
    "code:4711": 1700,
}
WHILE_KILLED = {
    "share:b52e": 700,
    "session:44aa": 850,
    "reservation:1045": 1000,
    "cart:5514": 1150,
    "code:4712": 1300,
}
WHILE_NONE = {"share:e4d7": 700, "cart:5516": 900}
WHILE_FROZEN = {
    "share:9d10": 800,
    "session:c3f5": 1100,
    "reservation:1046": 1400,
    "cart:5515": 1700,
    "code:4713": 2000,
}
"""Key → time to live in ms."""

KEY_WIDTH = max(map(len, [*UNDISTURBED, *WHILE_KILLED, *WHILE_NONE, *WHILE_FROZEN]))
VIA_WIDTH = len("notification")
BODY_WIDTH = 95
NO_BREAK = "\N{NO-BREAK SPACE}"


class Story:
    """Tells it on `screen`, with the processes of `stage`."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._broker = stage.broker
        self._screen = screen
        self._shown: set[str] = set()
        """The ids of the messages that were shown."""
        self._redis = Inspector(stage.settings)

    async def tell(self) -> bool:
        """Run the whole story. Returns whether nothing was missing. Raises BridgeError if it cannot be run."""
        started = monotonic()
        try:
            await self._open()
            async with self._broker.consumer(self._show) as consumer:
                await self._all_is_well(consumer)
                await self._a_bridge_is_killed(consumer)
                await self._none_is_left(consumer)
                await self._the_broker_freezes(consumer)
                await consumer.complete()
                return self._conclude(consumer, monotonic() - started)
        finally:
            await self._redis.close()

    # The acts.

    async def _open(self) -> None:
        stage, broker, say = self._stage, self._broker, self._screen.say
        say(f"expiry-bridge {__version__}: the demo, which takes about {broker.seconds} seconds", style="bold")
        say("Redis tells its subscribers once that a key has expired: a subscriber that is away never learns of it.")
        say("The bridge makes a durable message of it. This demo kills bridges, and freezes their broker.")
        say("Will any message be missing?")
        say()
        with self._screen.waiting(f"Starting Valkey, {broker.name} and two bridges"):
            await stage.start()
        server = await self._redis.server()
        valkey = f"Valkey {server.version if server else ''} on port {stage.valkey.port}"
        say(f"Ready: {valkey}, {broker.kind} on port {broker.server.port}, and two bridges.")
        say("They are the demo's own, in temporary directories; nothing of yours is touched.")

    async def _all_is_well(self, consumer: Consumer) -> None:
        key, ttl_ms = next(iter(UNDISTURBED.items()))
        self._head("1. All is well: keys expire, messages arrive")
        self._note(f"{len(UNDISTURBED)} keys are set, as by any service: SET {key} value PX {ttl_ms}, and so on.")
        await set_expiring(self._redis, UNDISTURBED)
        tally = await self._watch(consumer, UNDISTURBED, "Keys expire")
        self._result(tally, f"Lag: from the key's deadline until the {self._broker.store} had stored its message.")
        if tally.messages:
            self._in_full(tally.messages[0])

    async def _a_bridge_is_killed(self, consumer: Consumer) -> None:
        stage, keys, count = self._stage, WHILE_KILLED, len(WHILE_KILLED)
        self._head("2. The bridge is killed while keys expire")
        with self._screen.waiting("The other bridge begins to listen"):
            await stage.until(stage.stands_by, "the other bridge does not stand by")
        await self._set(keys)
        killed = time()
        stage.bridge.kill()
        self._note(
            f"{count} keys are set. Another bridge stands by, and listens. Then the one that works is killed (kill -9)."
        )
        await stage.until(stage.taken_over, "the other bridge does not take over")
        at, hot = stage.takeover
        way = "goes on exactly where the dead one was: no gap opens" if hot else "has taken over"
        self._note(f"{_seconds(max(at - killed, 0))} later the other one {way}.")
        tally = await self._watch(consumer, keys, "Keys expire")
        heard = sum(message.via == "notification" for message in tally.messages)
        self._result(tally, f"{heard} via notification: a bridge has heard each of them expire.")

    async def _none_is_left(self, consumer: Consumer) -> None:
        """The story of a single bridge, which the ledger brings to a good end."""
        stage, keys, count = self._stage, WHILE_NONE, len(WHILE_NONE)
        expired = await self._set(keys)
        stage.standby.kill()
        killed = monotonic()
        with self._screen.waiting("Keys expire, and no one listens"):
            await stage.until(lambda: self._expired(expired + count), "the keys do not expire")
        subscribers = await self._redis.subscribers()
        stage.bridge.start()
        self._note(
            f"It is killed as well. {count} keys expire, and {subscribers} subscribers listen. A bridge starts again:"
        )
        tally = await self._watch(consumer, keys, "The bridge starts, and sweeps what has expired")
        swept = sum(message.via == "sweep" for message in tally.messages)
        self._result(
            tally,
            f"{swept} via sweep, {_seconds(monotonic() - killed)} after the kill: the ledger knew their deadlines.",
        )

    async def _the_broker_freezes(self, consumer: Consumer) -> None:
        stage, broker, keys, count = self._stage, self._broker, WHILE_FROZEN, len(WHILE_FROZEN)
        await stage.ready()
        self._head("3. The broker freezes while keys expire")
        expired = await self._set(keys)
        broker.server.pause()
        frozen = monotonic()
        self._note(
            f"{count} keys are set. Then {broker.name} is frozen (SIGSTOP):"
            " its connections stay open, and nothing answers."
        )
        with self._screen.waiting("Keys expire, and the broker takes nothing"):
            await stage.until(lambda: self._expired(expired + count), "the keys do not expire")
            undelivered = count - consumer.tally(keys).delivered
            await stage.until(lambda: self._waiting(undelivered), "the expirations do not get into the outbox")
        self._note(f"All {count} have expired; {undelivered} wait in the bridge's outbox, which is in Redis as well.")
        with self._screen.waiting("The bridge has yet to notice"):
            await stage.until(self._unready, "the bridge does not notice that the broker is frozen")
        noticed = _seconds(monotonic() - frozen)
        self._note(
            f"{noticed} after the freeze the bridge has noticed: /readyz answers 503. Now {broker.name} goes on."
        )
        broker.server.resume()
        resumed = monotonic()
        await self._watch(consumer, keys, "The bridge connects again")
        delay = _seconds(monotonic() - resumed)
        await stage.until(lambda: self._waiting(0), "the outbox does not get empty")
        await consumer.complete()  # copies come last
        tally = consumer.tally(keys)
        copies = [f"Copies in the {broker.store}: {tally.duplicates}, each under the id of the first."]
        self._result(
            tally,
            f"{delay} after {broker.name} went on. The outbox is empty: what leaves it was acked.",
            f"{await stage.retried()} were sent again, under their ids, by which {broker.copies} drops copies.",
            *(copies if tally.duplicates else ()),
        )

    def _conclude(self, consumer: Consumer, seconds: float) -> bool:
        acts = {"all is well": UNDISTURBED, "bridge killed": WHILE_KILLED, "both killed": WHILE_NONE}
        acts["broker frozen"] = WHILE_FROZEN
        acts["in all"] = UNDISTURBED | WHILE_KILLED | WHILE_NONE | WHILE_FROZEN
        rows = [["", "set", "delivered", "missed", "duplicates", "lag p50", "lag max"]]
        for name, keys in acts.items():
            tally = consumer.tally(keys)
            counts = (len(keys), tally.delivered, len(tally.missing), tally.duplicates)
            rows.append([name, *map(str, counts), *map(_seconds, tally.lags)])
        self._head("Summary")
        self._screen.rows(rows, indent=3, right=range(1, 7))
        self._screen.say()
        total = consumer.tally(acts["in all"])
        good = not total.missing and not total.surplus
        if good:
            text = f"{len(total.keys)} keys expired, and {total.delivered} are in the {self._broker.store}."
            self._screen.say(f"Nothing got lost: {text} Took {seconds:.0f} s.", style="bold green")
            self._screen.say(f"Next: `{program()} check` says what your own servers need for that.")
        else:
            missing = ", ".join(total.missing) or "nothing"
            self._screen.say(f"Missing: {missing}. Messages too many: {total.surplus}.", style="bold red")
        return good

    # What the acts need.

    async def _set(self, keys: Mapping[str, int]) -> int:
        """Set the keys; return when the ledger knows them, with the number of keys that had expired before."""
        before = await self._redis.expired_keys()
        await set_expiring(self._redis, keys)

        async def recorded() -> bool:  # on a slow machine the first may have expired by now
            gone = await self._redis.expired_keys() - before
            return (await read_state(self._redis)).ledger_size + gone >= len(keys)

        await self._stage.until(recorded, "the keys do not get into the ledger")
        return before

    async def _expired(self, total: int) -> bool:
        return await self._redis.expired_keys() >= total

    async def _waiting(self, count: int) -> bool:
        return (await read_state(self._redis)).outbox_expirations == count

    async def _unready(self) -> bool:
        return (await self._stage.get("/readyz"))[0] == HTTPStatus.SERVICE_UNAVAILABLE

    async def _watch(self, consumer: Consumer, keys: Mapping[str, int], awaited: str) -> Tally:
        """Show what arrives for the keys, until all has, or for as long as patience lasts."""
        self._screen.say(f"{'key':{KEY_WIDTH}}   {'via':{VIA_WIDTH}}   {'lag':>8}", indent=5, style="dim")
        with self._screen.waiting(awaited):
            return await consumer.of(keys, PATIENCE)

    # How it looks.

    def _head(self, text: str) -> None:
        self._screen.say()
        self._screen.say(text, style="bold cyan")

    def _note(self, text: str) -> None:
        self._screen.say(text, indent=3)

    def _show(self, message: StoredMessage) -> None:
        via = Text(f"{message.via:{VIA_WIDTH}}", "yellow" if message.via == "sweep" else "green")
        lag = "?" if message.lag is None else _seconds(message.lag)
        again = "   once more, under the same id" if message.id in self._shown else ""
        self._shown.add(message.id)
        self._screen.say(Text.assemble(f"{message.key:{KEY_WIDTH}}   ", via, f"   {lag:>8}{again}"), indent=5)

    def _result(self, tally: Tally, first: str, *others: str) -> None:
        mark, style = ("✗", "bold red") if tally.missing else ("✓", "bold green")
        count = f"{mark} {tally.delivered} of {len(tally.keys)} arrived"
        self._screen.say(Text.assemble((count, style), ". " if first[0].isupper() else ", ", first), indent=3)
        for line in others:
            self._note(f"  {line}")

    def _in_full(self, message: StoredMessage) -> None:
        self._note(f"The first in full, {message.place}, {self._broker.id_header} {message.id}:")
        # To be wrapped between its fields, not within one.
        body = json.dumps(json.loads(message.body), separators=(", ", f":{NO_BREAK}"))
        for line in textwrap.wrap(body, BODY_WIDTH, subsequent_indent=" ", break_on_hyphens=False):
            self._screen.say(line.replace(NO_BREAK, " "), indent=5, style="dim")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def program() -> str:
    """What to type: its name, where the shell finds it, else the path by which it was called."""
    called = sys.argv[0]
    return called if Path(called).name == NAME and shutil.which(NAME) is None else NAME
