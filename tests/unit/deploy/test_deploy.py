"""`deploy/` and `compose.yaml` are true of the code: every setting, port and dependency in them, and how they stop it.

Pure Python, so it holds everywhere. What helm makes of the chart is in `tests/deploy/`.
"""

import asyncio
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bridge
from bridge.commands.embedded import free_port
from bridge.limits import Limits
from bridge.redis.protocol.own_keys import Names
from bridge.settings import Settings, variable
from bridge.telemetry.events import Telemetry
from bridge.telemetry.http import serve_http
from tests.support.deployed import CHART, DEPLOY, UNIT, Document, manifest, parsed
from tests.support.loaded import attempted
from tests.support.schemas import validator
from tests.support.servers import ROOT

DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")  # without line continuations
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SECRETS_IN = "/run/secrets/expiry-bridge"
TEXTS = sorted(
    path
    for path in (*DEPLOY.rglob("*"), ROOT / "compose.yaml")
    if path.is_file() and path.suffix not in {".lock", ".pyc"}
)
IMAGE = "ghcr.io/expiry-bridge/expiry-bridge"
VARIABLES = {variable(name) for name in Settings.model_fields}
DRAIN_SECONDS = Settings().shutdown_timeout + 2 * Limits().close
"""How long a bridge may take to end after SIGTERM, unless it is told otherwise."""


def locked(name: str) -> dict[str, str]:
    """Package → its version and hashes, of one of the lock files."""
    lines = [line for line in (DEPLOY / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    entries = re.findall(r"^([\w.-]+)(==(?:.*\\\n)*.*)", "\n".join(lines), re.MULTILINE)
    return {canonicalize_name(package): entry for package, entry in entries}


def versions(name: str) -> dict[str, str]:
    """Package → its version."""
    return {package: entry.split()[0].removeprefix("==") for package, entry in locked(name).items()}


def services() -> dict[str, Document]:
    """The services of compose.yaml."""
    found: dict[str, Document] = parsed(ROOT / "compose.yaml")["services"]
    return found


def dockerfile_environment() -> dict[str, str]:
    """What the image sets."""
    found = re.search(r"^ENV (PATH=.*)$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    return dict(word.split("=", 1) for word in found[1].split())


def settings_of(environment: Mapping[str, str], directory: Path) -> Settings:
    """The settings of a container with this environment, whose secrets are files in `directory` instead."""
    files = {
        name: directory / value.rpartition("/")[2] for name, value in environment.items() if name.endswith("_FILE")
    }
    for file in files.values():
        file.write_text("s3cret")
    settings, problems = attempted({**dockerfile_environment(), **environment, **{n: str(f) for n, f in files.items()}})
    assert settings is not None, problems
    return settings


# Settings.


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = set(re.findall(r"\bBRIDGE_[A-Z_]*[A-Z]\b", path.read_text()))

    # BRIDGE_PORT is the example of a variable that Kubernetes sets, and the bridge does not know.
    assert named - {"BRIDGE_PORT"} <= VARIABLES


@pytest.mark.parametrize("name", ["bridge", "bridge-kafka"])
def test_the_settings_of_compose_are_accepted_and_name_its_own_servers(name: str, tmp_path: Path) -> None:
    service = services()[name]
    settings = settings_of(service["environment"], tmp_path)

    servers = [settings.effective_redis_url(), *settings.effective_nats_urls(), *settings.kafka_bootstrap_servers]
    hosts = {re.sub(r"^.*://|:\d+(/\d+)?$", "", server) for server in servers}
    assert hosts - {"127.0.0.1"} == set(service["depends_on"])
    assert service["ports"][0].endswith(f":{settings.http_port}")
    assert settings.http_host == "0.0.0.0"  # noqa: S104 - within the container


def test_the_image_has_an_init_so_that_signals_reach_the_bridge_from_its_first_instruction_on() -> None:
    assert re.search(r"apt-get install .* tini ", DOCKERFILE)
    assert 'ENTRYPOINT ["tini", "--", "expiry-bridge"]' in DOCKERFILE


def test_the_two_bridges_of_compose_do_not_stand_by_for_each_other_and_see_the_demos_keys_alone() -> None:
    one, other = (services()[name]["environment"] for name in ("bridge", "bridge-kafka"))

    assert one.get("BRIDGE_NAMESPACE", Settings().namespace) != other["BRIDGE_NAMESPACE"]
    assert one["BRIDGE_KEYS"] == other["BRIDGE_KEYS"] == "demo:*,expiry-bridge-verify:*"
    assert "SET demo:" in services()["writer"]["command"][-1]


def test_the_readers_of_compose_listen_where_the_bridges_publish() -> None:
    assert Settings().nats_subject.startswith("expired.")
    assert services()["reader"]["command"][-1] == "expired.>"
    assert f"--topic={Settings().kafka_topic}" in services()["reader-kafka"]["command"]


def test_the_settings_of_the_manifests_are_accepted_and_their_secrets_are_mounted(tmp_path: Path) -> None:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = settings_of(environment, tmp_path)

    assert container["ports"][0]["containerPort"] == settings.http_port
    assert container["volumeMounts"][0]["mountPath"] == SECRETS_IN
    files = [value for name, value in environment.items() if name.endswith("_FILE")]
    assert files
    assert all(value.startswith(f"{SECRETS_IN}/") for value in files)
    assert not [name for name in environment if f"{name}_FILE" in VARIABLES and "URL" not in name], "a secret, in clear"


def test_the_chart_sets_only_what_there_is(tmp_path: Path) -> None:
    values = parsed(CHART / "values.yaml")

    settings_of(values["env"], tmp_path)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({}, None),
        ({"replica": 1}, "'replica' was unexpected"),
        ({"env": {"REDIS_URL": "redis://redis"}}, "'REDIS_URL' does not match"),
        ({"env": {"BRIDGE_REDIS_PASSWORD": "hunter2"}}, "'BRIDGE_REDIS_PASSWORD' should not be valid"),
        ({"secretFiles": {"BRIDGE_REDIS_PASSWORD": "password"}}, "'BRIDGE_REDIS_PASSWORD' does not match"),
        ({"networkPolicy": {"egressPorts": ["6379"]}}, "'6379' is not of type 'integer'"),
    ],
)
def test_the_chart_takes_its_own_values_and_no_others(wrong: Document, what: str | None) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    problems = [error.message for error in validator(schema).iter_errors(parsed(CHART / "values.yaml") | wrong)]

    assert bool(problems) == bool(what)
    assert what is None or what in problems[0]


# How it is run.


def test_the_image_listens_where_it_can_be_probed_and_runs_as_a_number_that_is_not_root() -> None:
    environment = dockerfile_environment()

    assert environment["BRIDGE_HTTP_HOST"] == "0.0.0.0"  # noqa: S104 - within the container
    assert f"EXPOSE {environment['BRIDGE_HTTP_PORT']}\n" in DOCKERFILE
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert "0" not in user.groups()


async def test_the_health_check_of_the_image_tells_a_live_bridge_from_none() -> None:
    command = json.loads(re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[0])
    assert command[0] == "python"
    port = free_port()
    environment = {"BRIDGE_HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}

    async def status() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command[1:], env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    assert await status() == 1
    async with serve_http(Settings(http_port=port), Telemetry()):
        assert await status() == 0


@pytest.mark.parametrize("name", ["bridge", "bridge-kafka"])
def test_compose_has_the_health_check_of_the_image(name: str) -> None:
    [(times, command)] = re.findall(r"^HEALTHCHECK (.*) CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    check = services()[name]["healthcheck"]
    words = dict(re.findall(r"--([a-z-]+)=(\S+)", times))

    assert [" ".join(word.split()) for word in check.pop("test")] == [
        "CMD",
        *(" ".join(word.split()) for word in json.loads(command)),
    ]
    assert {option.replace("_", "-"): str(value) for option, value in check.items()} == words


def test_whoever_stops_the_bridge_leaves_it_the_time_to_drain() -> None:
    pod = manifest("deployment")["spec"]["template"]["spec"]
    unit = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)

    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    assert unit is not None
    assert int(unit[1]) > DRAIN_SECONDS
    for name in ("bridge", "bridge-kafka"):
        assert int(services()[name]["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS


def test_the_probes_ask_what_a_standby_answers_and_no_budget_holds_up_a_drain() -> None:
    container = manifest("deployment")["spec"]["template"]["spec"]["containers"][0]

    assert {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} == {"/livez"}
    assert container["livenessProbe"]["httpGet"]["port"] == container["ports"][0]["name"]
    assert "minAvailable" not in manifest("poddisruptionbudget")["spec"]


def test_the_network_policy_lets_the_bridge_reach_its_servers() -> None:
    environment = {
        entry["name"]: entry["value"]
        for entry in manifest("deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    ports = {port["port"] for rule in manifest("networkpolicy")["spec"]["egress"] for port in rule["ports"]}

    wanted = {int(port) for name in environment if "URL" in name for port in re.findall(r":(\d+)", environment[name])}
    assert ports == wanted | {53}


def test_nothing_of_kubernetes_selects_other_pods_than_the_deployments() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]

    assert manifest("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert sorted(parsed(DEPLOY / "kubernetes" / "kustomization.yaml")["resources"]) == sorted(
        path.name for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml"
    )


# What is installed.


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_every_locked_dependency_has_its_hashes(name: str) -> None:
    assert all("--hash=sha256:" in entry for entry in locked(name).values())


def test_the_lock_has_what_the_project_needs_in_versions_that_it_allows() -> None:
    found = versions("requirements.lock")
    needed = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["kafka-compression"]]

    for requirement in map(Requirement, needed):
        assert found[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_what_builds_the_package_is_locked_too() -> None:
    found = versions("build.lock")

    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert found[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_chart_and_the_manifests_are_of_this_version() -> None:
    chart = parsed(CHART / "Chart.yaml")
    image = manifest("deployment")["spec"]["template"]["spec"]["containers"][0]["image"]

    assert chart["version"] == chart["appVersion"] == bridge.__version__
    assert image == f"{IMAGE}:{bridge.__version__}"


def test_the_image_has_one_name_everywhere() -> None:
    assert parsed(CHART / "values.yaml")["image"]["repository"] == IMAGE
    assert (
        f"image: {IMAGE}:{bridge.__version__}\n" in parsed(CHART / "Chart.yaml")["annotations"]["artifacthub.io/images"]
    )
    assert {services()[name]["image"] for name in ("bridge", "bridge-kafka")} == {IMAGE}
    assert f"--tag {IMAGE} " in (DEPLOY / "docs" / "start.md").read_text()


# What is left.


def test_the_page_on_uninstalling_names_every_key_of_the_bridge() -> None:
    names = Names(Settings().namespace, 0)
    commands = (
        (DEPLOY / "docs" / "how-to" / "upgrade.md")
        .read_text()
        .partition("redis-cli -n 0 UNLINK")[2]
        .partition("```")[0]
    )

    kept = {names.deadlines, names.outbox, names.dead, names.lease, names.canary, names.shards, names.members}
    kept |= {names.values, names.fields, names.field_prefix + b"*"}
    assert set(re.findall(r"'({.+?)'", commands)) == {name.decode() for name in kept}
