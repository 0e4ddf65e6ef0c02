"""Doing what `check` says: its remedies, as the tools that they are written for would carry them out."""

import asyncio
import re
import shlex
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any

import nats
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from redis import Redis

from tests.support.brokers.kafka_rig import KafkaRig

Apply = Callable[[str], None]
"""Carries out one remedy. Fails if it is not what its tool takes."""
_FLAGS = {"ack": ("no_ack", False), "discard-per-subject": ("discard_new_per_subject", True)}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def redis_cli(port: int) -> Apply:
    """At the prompt of `redis-cli`, as a user that may do everything."""

    def apply(remedy: str) -> None:
        command = re.split(r", and | \(or ", remedy)[0]
        with Redis(port=port) as admin:
            admin.execute_command(*shlex.split(command))

    return apply


def nats_cli(**login: Any) -> Apply:  # noqa: ANN401 - of `nats.connect`
    """In a shell that has the tool `nats`: `stream add`, `edit` and `rm`, with the options that remedies have."""

    async def run(command: str) -> None:
        program, area, action, name, *words = shlex.split(command)
        assert (program, area) == ("nats", "stream")
        client = await nats.connect(**login)
        try:
            jetstream = client.jetstream()
            if action == "rm":
                await jetstream.delete_stream(name)
            elif action == "add":
                await jetstream.add_stream(_config(StreamConfig(name=name), words))
            else:
                assert action == "edit"
                await jetstream.update_stream(_config((await jetstream.stream_info(name)).config, words))
        finally:
            await client.close()

    def apply(remedy: str) -> None:
        for command in re.findall(r"nats stream .*?(?=;|$| \()", remedy):
            asyncio.run(run(command))

    return apply


def _config(config: StreamConfig, options: list[str]) -> StreamConfig:
    """The configuration with these options of the command line."""
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        _set(config, name, value)
    return config


def _set(config: StreamConfig, name: str, value: str) -> None:
    match name:
        case "ack" | "discard-per-subject":
            setattr(config, *_FLAGS[name])
        case "subjects":
            config.subjects = value.split(",")
        case "defaults":
            pass
        case "retention":
            config.retention = RetentionPolicy(value)
        case "storage":
            config.storage = StorageType(value)
        case "dupe-window":
            config.duplicate_window = float(value[:-1]) * _SECONDS[value[-1]]
        case "max-age":
            config.max_age = float(value[:-1]) * _SECONDS[value[-1]]
        case "discard":
            config.discard = DiscardPolicy(value)
        case "replicas":
            config.num_replicas = int(value)
        case _:
            field = name.replace("-", "_")
            assert field in {about.name for about in fields(config)}
            setattr(config, field, int(value))


def kafka_tools(rig: KafkaRig) -> Apply:
    """In the shell of an administrator of the rig's Kafka: topics are created and configured, rights are given."""

    async def run(command: str) -> None:
        tool, *words = shlex.split(command)
        options = dict(pairwise(words))
        if tool == "kafka-acls.sh":
            assert options["--allow-principal"] == "User:ann"
            await rig.allow("ann", options["--operation"].lower(), options["--topic"])
        elif tool == "kafka-configs.sh":
            assert options["--entity-name"] == rig.topic
            name, _, value = options["--add-config"].partition("=")
            await rig.configure(**{name: value})
        else:
            assert (tool, options["--topic"]) == ("kafka-topics.sh", rig.topic)
            configs = [value for option, value in pairwise(words) if option == "--config"]
            wanted = dict(config.split("=", 1) for config in configs)
            await rig.create(rig.topic, replicas=None, **wanted)

    def apply(remedy: str) -> None:
        (command, *_) = re.findall(r"kafka-[a-z]+\.sh .*?(?=;|$)", remedy)
        asyncio.run(run(command))

    return apply
