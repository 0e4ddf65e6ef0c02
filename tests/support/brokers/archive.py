"""Archive the classes of Kafka, so that each start of one takes half the time: `.ci/bootstrap` runs this.

The JVM writes the archive when a broker ends in order. It ignores one of another Java, or of jars that were moved.
"""

import signal
import sys
from collections.abc import Sequence

from bridge.commands.embedded import EmbeddedKafka
from bridge.commands.embedded.kafka import SERVER

SECONDS = 120.0
"""Until it has ended, and the archive is written."""


class Recorded(EmbeddedKafka):
    """One whose JVM writes the archive at its end."""

    def java(self, *arguments: str) -> Sequence[str]:
        """See `EmbeddedKafka`."""
        program, *rest = super().java(*arguments)
        return [program, *([f"-XX:ArchiveClassesAtExit={self.archive()}"] if arguments[0] == SERVER else []), *rest]


def main() -> int:
    """The exit status: 1 where there is none afterwards."""
    Recorded.archive().unlink(missing_ok=True)
    with Recorded() as server:
        server.send_signal(signal.SIGTERM)
        server.wait(SECONDS)
    return int(not Recorded.archive().exists())


if __name__ == "__main__":
    sys.exit(main())
