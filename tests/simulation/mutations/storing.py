"""Rules of the Redis sink: how each id is appended once (`bridge/sinks/redis`)."""

from collections.abc import Mapping, Sequence

from tests.simulation.mutations.files import APPEND, REDIS_SINK, Substitution

STORING: Mapping[str, Sequence[Substitution]] = {
    "appends_are_remembered": (
        (APPEND, "  if new or redis.call('HEXISTS', memory, skipped) == 1 then\n", "  if true then\n"),
    ),
    "appends_are_in_order": ((REDIS_SINK, "self.order = Order.SHARD", "self.order = Order.KEY"),),
}
