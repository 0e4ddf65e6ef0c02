"""What those who write keys and those who listen for their expirations agree on, where they have no bridge.

Nothing is imported here: a listener that is started again shall lose no time to what only the benchmark needs.
"""

PHANTOM = "phantom:"
"""Before a key: its phantom, which expires, while the key itself stays longer."""
INDEX = "expirations:"
"""Before the end of a span (Unix ms): the set of keys whose phantoms expire in it."""
DUE = "due"
"""The sorted set of those that poll: keys, by their deadlines."""


def span_end(moment_ms: float, seconds: float) -> int:
    """The end of the span of that many seconds in which the moment lies: Unix time in ms."""
    step = round(seconds * 1000)
    return int(moment_ms // step + 1) * step
