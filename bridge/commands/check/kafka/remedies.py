"""The commands of Kafka's own tools that fix what `check` finds, as an administrator's shell takes them."""

import shlex

from bridge.settings import Settings
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.topics import new_config

MEGABYTE = 1_048_588
"""Kafka's own default of `max.message.bytes`."""
AGAIN = "run the check again when Kafka is stable"


class Tools:
    """For the topic of these settings or, where it depends on the key, for all that the template can name."""

    def __init__(self, settings: Settings, names: TopicTemplate) -> None:
        self._settings = settings
        self._names = names

    @property
    def user(self) -> str:
        """Whom Kafka takes us for, if nothing in its configuration maps names to others."""
        settings = self._settings
        if settings.kafka_sasl_username is not None:
            return settings.kafka_sasl_username
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            return "<subject of the token>"
        return "ANONYMOUS" if settings.kafka_tls_cert_file is None else "<subject of the certificate>"

    def create(self) -> str:
        """Create the topic as the bridge would."""
        settings = self._settings
        words = ["--create", *self._topic()]
        if settings.kafka_partitions > 0:
            words += ["--partitions", str(settings.kafka_partitions)]
        if settings.kafka_replication > 0:
            words += ["--replication-factor", str(settings.kafka_replication)]
        for name, value in new_config(settings).items():
            words += ["--config", f"{name}={value}"]
        return self._command("kafka-topics.sh", *words)

    def configure(self, name: str, value: object) -> str:
        """Change the topic's configuration."""
        entity = ["--entity-type", "topics", "--entity-name", self._topic()[1]]
        return self._command("kafka-configs.sh", "--alter", *entity, "--add-config", f"{name}={value}")

    def allow(self, operation: str) -> str:
        """Give the bridge's user a right to the topic."""
        who = ["--allow-principal", f"User:{self.user}"]
        return self._command("kafka-acls.sh", "--add", *who, "--operation", operation, *self._topic())

    def transactional(self) -> str:
        """Give the bridge's user the right to its transactional ids."""
        who = ["--allow-principal", f"User:{self.user}", "--operation", "Write", "--operation", "Describe"]
        ids = ["--transactional-id", self._settings.namespace, "--resource-pattern-type", "prefixed"]
        return self._command("kafka-acls.sh", "--add", *who, *ids)

    def least(self) -> list[str]:
        """Give the bridge's user all the rights that it needs, the least of them."""
        operations = ["Write", *(["Create"] if self._settings.kafka_provision else [])]
        if self._settings.kafka_deduplication == "transaction":
            return [*map(self.allow, [*operations, "Read", "DescribeConfigs"]), self.transactional()]
        return [self.allow(operation) for operation in operations]

    def show(self, only: str) -> str:
        """Show those partitions of the topic that `only`, an option, selects."""
        return self._command("kafka-topics.sh", "--describe", *self._topic(), only)

    def replicate(self) -> str:
        """Give the topic's partitions other replicas, which a file says."""
        return self._command("kafka-reassign-partitions.sh", "--reassignment-json-file", "replicas.json", "--execute")

    def _topic(self) -> list[str]:
        if self._names.fixed is not None:
            return ["--topic", self._names.fixed]
        return ["--topic", self._names.stem, "--resource-pattern-type", "prefixed"]

    def _command(self, tool: str, *words: str) -> str:
        settings = self._settings
        start = [tool, "--bootstrap-server", ",".join(settings.kafka_bootstrap_servers)]
        if settings.kafka_security_protocol != "PLAINTEXT":
            start += ["--command-config", "admin.properties"]
        return shlex.join([*start, *words])
