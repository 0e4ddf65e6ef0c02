"""The image and `compose.yaml` as their user has them, in containers. `make containers` builds them and runs this.

Not among the other tests (`norecursedirs`): it takes an engine for containers, and root.
"""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import bridge
from tests.support.servers import ROOT

IMAGE = "ghcr.io/expiry-bridge/expiry-bridge"
TRIED = ("redis", "nats", "bridge", "writer", "reader", "prometheus")
"""All services but Kafka's, which come up later, and Grafana."""
OF_KAFKA = ("kafka", "bridge-kafka", "reader-kafka")
MINUTE = 60.0
pytestmark = pytest.mark.timeout(300)
VERIFY = ("expiry-bridge", "verify", "--json", "--keys", "50", "--rate", "50", "--ttl-min", "1s", "--ttl-max", "3s")


def run(*command: str, check: bool = True) -> str:
    """What the command prints. Raises CalledProcessError, with what it printed, where it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if check and done.returncode:
        raise AssertionError(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def compose(*arguments: str) -> str:
    """Likewise, of Compose."""
    return run("podman-compose", "--profile", "watch", "--profile", "kafka", *arguments)


def inspected(kind: str, name: str) -> Any:  # noqa: ANN401 - whatever podman says
    """What podman knows of a container or an image."""
    [about] = json.loads(run("podman", kind, "inspect", name))
    return about


def container(service: str) -> str:
    """The name of a service's container."""
    return run("podman", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.service={service}").split()[0]


def log(service: str) -> str:
    """All that a service has printed."""
    command = ["podman", "logs", container(service)]  # whose standard error is the container's
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def within(seconds: float, condition: Callable[[], object], what: Callable[[], str]) -> None:
    """Return when `condition()` is true. Raises TimeoutError, which says `what`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what())
        time.sleep(0.5)


def answers(path: str, port: int = 8080) -> bool:
    """Whether the port of this machine answers with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def provided(name: str) -> bool:
    """Whether there is an image whose name ends so."""
    return name in run("podman", "images", "--format", "{{.Repository}}")


def verified() -> dict[str, Any]:
    """What `expiry-bridge verify` reports, run inside of the bridge's container."""
    found: dict[str, Any] = json.loads(run("podman", "exec", container("bridge"), *VERIFY))
    return found


@pytest.fixture(scope="module", autouse=True)
def deployment() -> Iterator[None]:
    """What compose.yaml describes, running."""
    compose("down", "--volumes")
    compose("up", "--detach", "--no-build", *TRIED)
    try:
        yield
    finally:
        compose("down", "--volumes")


def test_messages_arrive_within_a_minute() -> None:
    within(MINUTE, lambda: answers("/readyz"), lambda: log("bridge"))
    within(MINUTE, lambda: "demo:" in log("reader"), lambda: log("reader"))


def test_the_image_says_what_it_is_and_runs_as_nobody_with_nothing_to_write_on() -> None:
    about = inspected("container", container("bridge"))
    labels = inspected("image", IMAGE)["Labels"]

    assert about["Config"]["User"] == "65532:65532"
    assert about["HostConfig"]["ReadonlyRootfs"]
    assert about["EffectiveCaps"] in (None, [])
    assert labels["org.opencontainers.image.version"] == bridge.__version__
    assert labels["org.opencontainers.image.source"] == "https://github.com/expiry-bridge/expiry-bridge"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"]


def test_the_list_of_what_is_in_the_image_is_in_the_image() -> None:
    found = run("podman", "exec", container("bridge"), "find", "/opt/expiry-bridge", "-name", "sbom.cdx.json")

    assert ".dist-info/sboms/" in found


def test_the_health_check_finds_it_healthy() -> None:
    name = container("bridge")

    within(MINUTE, lambda: not run("podman", "healthcheck", "run", name).strip(), lambda: log("bridge"))


def test_verify_misses_nothing() -> None:
    report = verified()

    assert report["delivered"] == 50
    assert report["missed"] == 0


def test_a_bridge_that_is_killed_goes_on_where_it_was() -> None:
    name = container("bridge")
    run("podman", "kill", name)
    within(MINUTE, lambda: not inspected("container", name)["State"]["Running"], lambda: log("bridge"))
    run("podman", "start", name)

    within(MINUTE, lambda: answers("/readyz"), lambda: log("bridge"))

    assert verified()["missed"] == 0


def test_a_redis_that_is_restarted_comes_back_with_what_the_bridge_owes() -> None:
    run("podman", "restart", container("redis"))

    within(MINUTE, lambda: answers("/readyz"), lambda: log("bridge"))

    assert verified()["missed"] == 0


def test_prometheus_watches_it() -> None:
    def up() -> bool:
        query = "http://127.0.0.1:9090/api/v1/query?query=up%7Bjob%3D%22expiry-bridge%22%7D"
        try:
            with urllib.request.urlopen(query, timeout=5) as response:
                results: Sequence[Any] = json.load(response)["data"]["result"]
        except OSError:
            return False
        return bool(results) and results[0]["value"][1] == "1"

    within(MINUTE, up, lambda: log("prometheus"))


@pytest.mark.skipif(not provided("apache/kafka"), reason="NOT CHECKED: the profile kafka. Here is no image of it.")
def test_messages_arrive_in_kafka_as_well() -> None:
    compose("up", "--detach", "--no-build", *OF_KAFKA)

    within(MINUTE, lambda: answers("/readyz", port=8081), lambda: log("bridge-kafka") + log("kafka"))
    within(MINUTE, lambda: "demo:" in log("reader-kafka"), lambda: log("reader-kafka"))


def test_a_bridge_that_is_stopped_drains() -> None:
    name = container("bridge")

    run("podman", "stop", "--time", "30", name)

    assert inspected("container", name)["State"]["ExitCode"] == 0
    assert '"drained": true' in log("bridge").replace('":true', '": true')
