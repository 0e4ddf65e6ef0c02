"""What can be set about Kafka's topics."""

import pytest
from pydantic import ValidationError

from bridge.settings import Settings


def test_what_a_topic_is_created_with_may_be_left_to_the_broker() -> None:
    settings = Settings(kafka_partitions=-1, kafka_replication=-1, kafka_retention_hours=-1)
    assert (settings.kafka_partitions, settings.kafka_replication, settings.kafka_retention_hours) == (-1, -1, -1)


def test_the_defaults_give_six_partitions_and_leave_the_rest_to_the_broker() -> None:
    settings = Settings()
    assert (settings.kafka_partitions, settings.kafka_replication, settings.kafka_retention_hours) == (6, -1, -1)
    assert settings.kafka_compression == "none"


@pytest.mark.parametrize("name", ["kafka_partitions", "kafka_replication", "kafka_retention_hours"])
@pytest.mark.parametrize("value", [0, -2, 2**31, "many", 1.5])
def test_a_number_that_kafka_would_not_take_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({name: value})


def test_a_compression_that_kafka_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kafka_compression": "brotli"})


@pytest.mark.parametrize("broker", ["", "a b", "kafka://h:1", "h:", "h:0", "h:65536", "[::1", "::1", "u@h:1"])
def test_what_is_no_address_of_a_broker_is_refused(broker: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"kafka_bootstrap_servers": f"h:9092,{broker}"})
