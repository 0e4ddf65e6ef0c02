"""What a seed means: how many bridges, which server and broker, which users, and which faults, how often."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from bridge.limits import BacklogLimits, EpochLimits, Limits, WireLimits
from tests.simulation.broker import Faults
from tests.simulation.network import Conditions
from tests.simulation.writer import Habits

STRIKES = {
    "cut": 0.5, "deafen": 0.3, "stall": 0.2, "kill": 0.3, "stop": 0.1, "pause": 0.2, "freeze": 0.1, "pause_writes": 0.2,
    "mute": 0.1, "flush_scripts": 0.1, "broker_away": 0.15, "busy": 0.1, "no_memory": 0.1, "evict": 0.2,
    "clock_forward": 0.05, "restart": 0.08, "trap": 1.5,
}  # fmt: skip
"""Faults that may lose nothing, and how often in a second at most."""
LOSSY = {"delete_own": 0.05, "flush": 0.05, "restart_empty": 0.05, "restart_old": 0.1, "clock_back": 0.05}
"""Faults with which Redis itself loses something."""


@dataclass(frozen=True)
class Plan:
    """All that a run depends on, besides the code."""

    seed: int
    seconds: float = 10.0
    """Of the safety phase."""
    bridges: int = 2
    kind: str = "redis"
    broker: str = "jetstream"
    settings: Mapping[str, object] = field(default_factory=dict)
    batch: int = 500
    """Keys in one script of a bridge, at most."""
    backlog: int = 500_000
    """Notifications that a bridge keeps, at most."""
    disorder: float = 0.0
    step: float = 1e-6
    """Seconds that one callback takes."""
    cycle_share: float = 0.5
    """Of what is past its deadline, how much one turn of the active expiry finds."""
    flags: str = ""
    """Of notifications, in the server's configuration file."""
    network: Conditions = field(default_factory=Conditions)
    publishing: Faults = field(default_factory=Faults)
    habits: Habits = field(default_factory=Habits)
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
        epoch = EpochLimits(batch_keys=most, found_keys=min(most, 250), touch_keys=most, scan_keys=most)
        backlog = BacklogLimits(events=self.backlog // 2)
        return Limits(epoch=epoch, wire=WireLimits(backlog_hints=self.backlog), backlog=backlog)

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
        kind=rng.choice(["redis", "redis", "valkey"]),
        broker=rng.choice(["jetstream", "kafka"]),
        settings={
            "outbox_limit": rng.choice([2, 10, 1_000_000, 1_000_000]),
            "scan_interval": rng.choice([900, 900, 900, 0.05]),
        },
        batch=rng.choice([500, 500, 500, 1, 2, 5]),
        backlog=rng.choice([500_000, 500_000, 500_000, 50]),
        disorder=rng.choice([0.0, 0.0, 0.3]),
        step=10 ** rng.uniform(-6, -4.3),
        cycle_share=rng.choice([0.0, 0.1, 0.5, 1.0]),
        flags=rng.choice(["Egxe", "", "AKE"]),
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
            lasting=10 ** rng.uniform(-1, 0.5),
        ),
        strikes=strikes,
        flurry=often(0.6),
    )
    return tight(drawn, rng) if rng.random() < 0.4 else drawn


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
