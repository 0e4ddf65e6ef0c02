"""What a seed means: how many bridges, which server and broker, which users, and which faults, how often."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from bridge.limits import BacklogLimits, DeliveryLimits, EpochLimits, FieldLimits, Limits, WireLimits
from tests.simulation.broker import Faults
from tests.simulation.field_writer import Fielding
from tests.simulation.network import Conditions
from tests.simulation.redis.kinds import KINDS as SERVERS
from tests.simulation.writer import Habits, Rewriting

STRIKES = {
    "cut": 0.5, "deafen": 0.3, "stall": 0.2, "kill": 0.3, "stop": 0.1, "pause": 0.2, "freeze": 0.1, "pause_writes": 0.2,
    "mute": 0.1, "flush_scripts": 0.1, "broker_away": 0.15, "busy": 0.1, "no_memory": 0.1, "evict": 0.2,
    "clock_forward": 0.05, "restart": 0.08, "trap": 1.5,
}  # fmt: skip
"""Faults that may lose nothing, and how often in a second at most."""
LOSSY = {"delete_own": 0.05, "flush": 0.05, "restart_empty": 0.05, "restart_old": 0.1, "clock_back": 0.05}
"""Faults with which Redis itself loses something."""
KINDS = 6
"""Of so many seeds, one has what is not drawn, so that no other seed is another run for it: see below."""
VALUED = 5
"""That one has values."""
CROWDED = 1
"""In that one, the broker refuses much, and the bridge has little room for it."""
HUSHED = 3
"""In that one, bridges die with a batch whose mark is not notified."""
FIELDED = 4
"""In that one, fields of hashes have deadlines, where its server has them."""
VALUES = {"untrack": 0.4, "overflow": 0.2, "flush_elsewhere": 0.1, "displace": 0.1}
"""Faults that may make no value wrong."""


@dataclass(frozen=True)
class Plan:
    """All that a run depends on, besides the code."""

    seed: int
    seconds: float = 10.0
    """Of the safety phase."""
    bridges: int = 2
    kind: str = "redis"
    broker: str = "jetstream"
    shards: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)
    batch: int = 500
    """Keys in one script of a bridge, at most."""
    backlog: int = 500_000
    """Notifications that a bridge keeps, at most."""
    stuck: int = 50_000
    """Refused messages that a bridge keeps in memory, at most."""
    disorder: float = 0.0
    step: float = 1e-6
    """Seconds that one callback takes."""
    cycle_share: float = 0.5
    """Of what is past its deadline, how much one turn of the active expiry finds."""
    confined: bool = False
    """Whether no bridge may listen to other databases: then there is no audit."""
    flags: str = ""
    """Of notifications, in the server's configuration file."""
    network: Conditions = field(default_factory=Conditions)
    publishing: Faults = field(default_factory=Faults)
    habits: Habits = field(default_factory=Habits)
    rewriting: Rewriting | None = None
    """Where values go along."""
    fielding: Fielding | None = None
    """Where fields have deadlines."""
    strikes: Mapping[str, float] = field(default_factory=dict)
    """Faults by name: how often in a second."""
    flurry: float = 0.0
    """How often a strike follows at once."""
    without: frozenset[int] = frozenset()
    """Strikes that are left out, by their numbers: see `shrink.py`."""

    @property
    def limits(self) -> Limits:
        """Of the bridges."""
        most = self.batch
        epoch = EpochLimits(
            batch_keys=most,
            found_keys=min(most, 250),
            part_keys=min(most, 100),
            touch_keys=most,
            scan_keys=most,
            capture_keys=min(most, 250),
            capture_declared=min(most, 16),
            listed_values=2 * most,
        )
        backlog = BacklogLimits(events=self.backlog // 2)
        delivery, wire = DeliveryLimits(stuck=self.stuck), WireLimits(backlog_hints=self.backlog)
        fields = FieldLimits()
        if self.fielding is not None:
            fields = FieldLimits(most=self.fielding.most, read=self.fielding.read, hashes=min(most, 250))
        return Limits(epoch=epoch, wire=wire, backlog=backlog, delivery=delivery, fields=fields)

    def as_json(self) -> str:
        """All of it, for a trace."""
        return json.dumps({**asdict(self), "without": sorted(self.without)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The inverse."""
        said = json.loads(text)
        return cls(
            **{
                **said,
                "network": Conditions(**said["network"]),
                "publishing": Faults(**said["publishing"]),
                "habits": Habits(**said["habits"]),
                "rewriting": said["rewriting"] and Rewriting(**said["rewriting"]),
                "fielding": said["fielding"] and Fielding(**said["fielding"]),
                "without": frozenset(said["without"]),
            }
        )


def plan(seed: int) -> Plan:
    """Of that seed."""
    rng = random.Random(seed)

    def often(most: float) -> float:
        """Half of the seeds do without."""
        return 0.0 if rng.random() < 0.5 else rng.random() * most

    latency = 10 ** rng.uniform(-4, -2)
    strikes = {name: often(2 * most) for name, most in STRIKES.items()}
    if rng.random() < 0.2:
        strikes |= {name: often(2 * most) for name, most in LOSSY.items()}
    drawn = Plan(
        seed,
        seconds=rng.uniform(5, 14),
        bridges=rng.choice([1, 2, 2, 2, 3]),
        kind=rng.choice(["redis", "redis8", "valkey"]),
        broker=rng.choice(["jetstream", "kafka", "subject", "transaction", "redis"]),
        settings={
            "outbox_limit": rng.choice([2, 10, 1_000_000, 1_000_000]),
            "scan_interval": rng.choice([900, 900, 900, 0.05]),
        },
        batch=rng.choice([500, 500, 500, 1, 2, 5]),
        backlog=rng.choice([500_000, 500_000, 500_000, 50]),
        disorder=rng.choice([0.0, 0.0, 0.3]),
        step=10 ** rng.uniform(-6, -4.3),
        cycle_share=rng.choice([0.0, 0.1, 0.5, 1.0]),
        shards=rng.choice([1, 1, 1, 1, 1, 2]),
        flags=rng.choice(["Egxe", "", "AKE"]),
        confined=rng.random() < 0.15,
        network=Conditions(
            latency, latency * rng.uniform(0.1, 3), often(0.05), rng.uniform(0.01, 0.5), often(0.05), often(0.3)
        ),
        publishing=Faults(often(0.2), often(0.05), often(0.2), often(0.1), rng.random()),
        habits=Habits(
            keys=rng.choice([1, 2, 3, 5]),
            pause=10 ** rng.uniform(-1.7, -0.3),
            near=rng.uniform(0, 0.9),
            burst=often(0.4),
            ttl=10 ** rng.uniform(-2, 0.3),
            same=often(0.6),
            crowd=often(0.05),
            provoked=often(0.3),
            once=often(0.5),
            together=often(0.3),
            lasting=10 ** rng.uniform(-1, 0.5),
        ),
        strikes=strikes,
        flurry=often(0.6),
    )
    if rng.random() < 0.4:
        drawn = tight(drawn, rng)
    if drawn.shards > 1:  # each has its part of the limit
        limit = 10 if drawn.settings["outbox_limit"] == 2 else drawn.settings["outbox_limit"]
        drawn = replace(drawn, bridges=max(drawn.bridges, 2), settings={**drawn.settings, "outbox_limit": limit})
    if drawn.confined:  # no audit finds what is muted then
        drawn = replace(drawn, strikes={**drawn.strikes, "mute": rng.choice([0.0, 0.3, 0.3])})
    relieved = random.Random(f"relief of {seed}")
    if relieved.random() >= 0.7:
        drawn = replace(drawn, strikes={**drawn.strikes, "relieve": relieved.random()})
    if seed % KINDS == CROWDED:
        crowd = random.Random(f"crowd of {seed}")
        refusing = replace(drawn.publishing, retryable=crowd.uniform(0.2, 0.7))
        return replace(drawn, publishing=refusing, stuck=crowd.choice([5, 10, 20]))
    if seed % KINDS == HUSHED:
        strikes = {**drawn.strikes, "hush": random.Random(f"hush of {seed}").uniform(0.2, 1)}
        return replace(drawn, bridges=max(drawn.bridges, 2), strikes=strikes)
    if seed % KINDS == FIELDED and SERVERS[drawn.kind].fields:
        return fielded(drawn, random.Random(f"fields of {seed}"))
    return valued(drawn, random.Random(f"values of {seed}")) if seed % KINDS == VALUED else drawn


def fielded(drawn: Plan, rng: random.Random) -> Plan:
    """With fields."""
    settings = {**drawn.settings, "fields": [rng.choice(["user:h*", "user:*", "*"])]}
    fielding = Fielding(
        hashes=rng.choice([1, 2, 4, 8]),
        fields=rng.choice([1, 2, 3, 5]),
        pause=10 ** rng.uniform(-2, -0.7),
        near=rng.uniform(0.2, 0.9),
        early_ms=10 ** rng.uniform(0, 1.7),
        burst=rng.choice([0.0, 0.1, 0.4]),
        ttl=10 ** rng.uniform(-1.5, 0.2),
        same=rng.choice([0.0, 0.3, 0.6]),
        provoked=rng.choice([0.0, 0.1, 0.3]),
        most=rng.choice([500, 500, 6]),
        read=rng.choice([500, 500, 500, 1, 4]),
    )
    if fielding.provoked and rng.random() < 0.5:  # so that what they do about fields stands alone
        drawn = replace(drawn, habits=replace(drawn.habits, pause=0.5, crowd=0.0, burst=0.0))
    return replace(drawn, settings=settings, fielding=fielding)


def valued(drawn: Plan, rng: random.Random) -> Plan:
    """With values."""
    most = rng.choice([65536, 65536, 65536, 8])
    settings = {
        **drawn.settings,
        "values": ["user:*"],
        "values_lead": rng.choice([0.05, 0.05, 0.5, 5.0]),
        "values_max_bytes": most,
        "values_outbox_bytes": rng.choice([1 << 28, 1 << 28, most + 100]),
    }
    rewriting = Rewriting(
        pause=10 ** rng.uniform(-1.7, -0.5),
        near=rng.uniform(0.3, 1),
        before_ms=10 ** rng.uniform(0, 1.7),
        provoked=rng.choice([0.0, 0.2, 0.5]),
    )
    strikes = {name: 2 * most * rng.random() for name, most in VALUES.items() if rng.random() < 0.5}
    return replace(drawn, settings=settings, rewriting=rewriting, strikes={**drawn.strikes, **strikes})


def tight(drawn: Plan, rng: random.Random) -> Plan:
    """One or two keys that live for moments, hints that lag behind, and an epoch that ends every second."""
    habits = Habits(
        keys=rng.choice([1, 1, 2]),
        pause=rng.uniform(0.01, 0.08),
        near=0.8,
        burst=rng.uniform(0, 0.5),
        ttl=10 ** rng.uniform(-2, -0.7),
        same=rng.choice([0.0, 0.6]),
        provoked=rng.choice([0.0, 0.5]),
        once=rng.choice([0.0, 0.0, 0.2]),
        together=rng.choice([0.0, 0.3]),
    )
    network = Conditions(10 ** rng.uniform(-4, -2.3), 10 ** rng.uniform(-4, -2.5), behind=rng.uniform(0, 0.08))
    strikes = {
        "cut": rng.choice([0.1, 0.5]), "deafen": rng.choice([0.1, 1.0]), "trap": rng.choice([0.5, 2.0]),
        "kill": rng.choice([0.1, 0.7]), "pause_writes": 0.1,
    }  # fmt: skip
    settings = {**drawn.settings, "scan_interval": rng.choice([900, 900, 900, 900, 0.02])}
    return replace(
        drawn,
        seconds=rng.uniform(4, 8),
        bridges=rng.choice([1, 2, 2]),
        settings=settings,
        network=network,
        habits=habits,
        strikes=strikes,
        flurry=rng.choice([0.0, 0.5]),
    )
