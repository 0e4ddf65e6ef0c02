"""The broker of the demo: what the stage, the story and the consumer need to know of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from bridge.commands.demo.consumer import Consumer, StoredMessage
from bridge.commands.embedded import Server


class Broker(ABC):
    """A server of the demo's own, where the bridge publishes, and the words that are true of it."""

    name: str
    kind: str
    """The name, with what matters about it."""
    store: str
    """What keeps the messages."""
    id_header: str
    """Where a message has its id, besides its body."""
    copies: str
    """Who drops copies, by that id."""
    seconds: int
    """How long the demo takes with it, about."""
    server: Server

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """The variables by which the bridge finds it."""

    @abstractmethod
    def consumer(self, show: Callable[[StoredMessage], None]) -> Consumer:
        """A consumer; `show` is called with each message as it arrives."""
