"""What a cluster must be for the bridge: each primary what a single Redis must be, and all of them a whole.

What is found of all primaries alike is one row. Where they differ there is one for each finding, which names them.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bridge.commands.check.findings import Finding, Level, Row, failure, passed, warning
from bridge.commands.check.redis.server import AREA, CHECKS, NAMES_SHOWN, safely, unusable
from bridge.errors import NotConnected, Refused
from bridge.redis.admin.cluster_state import ClusterState, state_of
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.nodes import Nodes, ask
from bridge.redis.protocol.slots import SLOTS
from bridge.settings import Settings

REMEDY = "start its nodes, or let BRIDGE_REDIS_URL name some that are there"
REMEDY_ONE = "start it, or let a replica take over; then check again"
_LEVELS = [Level.FAIL, Level.WARN, Level.PASS]
_DURATION = re.compile(r"\b(\d+) ms\b")


async def check_cluster(settings: Settings) -> list[Row]:
    """All rows about the cluster; only the first where none of it can be reached. Raises ConfigurationError."""
    nodes = Nodes(settings)
    try:
        return await _examine(nodes)
    except (NotConnected, Refused) as error:
        return [Row(AREA, "connection", unusable(error, settings, REMEDY))]
    finally:
        await nodes.close()


async def _examine(nodes: Nodes) -> list[Row]:
    primaries = await nodes.find()
    _, errors = await ask(primaries, Inspector.connect)
    reached = {name: inspector for name, inspector in primaries.items() if name not in errors}
    unreached = {name: unusable(error, nodes.settings, REMEDY_ONE) for name, error in errors.items()}
    rows = by_node("connection", unreached, len(primaries))
    if not reached:
        return rows or [
            Row(
                AREA,
                "connection",
                failure("no primary has any slots", "make it a cluster: redis-cli --cluster create …"),
            )
        ]
    user = next(iter(reached.values())).user
    rows.append(Row(AREA, "connection", passed(f"{_named(reached)}, as user {user}")))
    texts, _ = await ask(reached, Inspector.cluster_nodes)
    if texts:
        state = state_of({(reached[name].endpoint.host, reached[name].endpoint.port): texts[name] for name in texts})
        rows.append(Row(AREA, "cluster", judged(state)))
    for check, examine in CHECKS.items():
        found = await asyncio.gather(*(safely(examine, inspector) for inspector in reached.values()))
        rows += by_node(check, dict(zip(reached, found, strict=True)), len(reached))
    return rows


def judged(state: ClusterState) -> Finding:
    """Whether all keys are served, and go on to be when a primary is lost."""
    one, count = next(iter(state.primaries), "HOST:PORT"), len(state.primaries)
    found = f"{count} primar{'ies serve' if count > 1 else 'y serves'} all {SLOTS} slots"
    if state.unserved:
        return failure(
            f"{state.unserved} of {SLOTS} slots are served by no primary: usually a cluster then refuses writes",
            f"redis-cli --cluster fix {one}",
        )
    if state.failing:
        return failure(f"other nodes cannot reach {_named(state.failing)}", REMEDY_ONE)
    if state.moving:
        return warning(
            f"{found}; on their way to another one: {state.moving}",
            f"let that finish; if it was interrupted, redis-cli --cluster fix {one}",
        )
    if state.alone:
        return warning(
            f"{found}; without a replica, so that keys and ledger can be lost: {_named(state.alone)}",
            f"add one to each: redis-cli --cluster add-node HOST:PORT {state.alone[0]} --cluster-slave",
        )
    return passed(f"{found}, each has a replica")


def by_node(check: str, findings: Mapping[str, Finding | None], primaries: int) -> list[Row]:
    """The rows of one check of so many primaries, the worst first. Durations are no difference: the longest is told."""
    groups = defaultdict[tuple[str, ...], dict[str, Finding]](dict)
    for name, finding in findings.items():
        if finding is not None:
            groups[finding.level, _DURATION.sub("", finding.found), finding.remedy][name] = finding
    rows = []
    for group in sorted(groups.values(), key=lambda group: _LEVELS.index(next(iter(group.values())).level)):
        finding = max(group.values(), key=lambda finding: [int(ms) for ms in _DURATION.findall(finding.found)])
        everywhere, names = len(group) == primaries, _named(group)
        if not everywhere and names not in finding.found:
            finding = Finding(finding.level, f"{names}: {finding.found}", finding.remedy)
        rows.append(Row(AREA, check, finding, tuple(group), "every node" if everywhere else names))
    return rows


def _named(names: Iterable[str]) -> str:
    listed: Sequence[str] = list(names)
    more = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
