"""Fixtures that all tests share: real servers, and the two guards (nothing leaks in, nothing is left behind)."""

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest
import structlog
from hypothesis import HealthCheck, configuration, settings

from bridge.commands.embedded import DIRECTORY_PREFIX
from tests.support.brokers.kafka import KafkaServer, keep_transactions_here
from tests.support.brokers.kafka import version as kafka_version
from tests.support.brokers.kafka_access import secure_server
from tests.support.flaky import Reruns
from tests.support.kinds import EACH_KIND, KINDS
from tests.support.order import slow_first
from tests.support.servers import ROOT, NatsServer, Redis8Server, RedisServer, ValkeyServer, require, version
from tests.support.warm import ORIGINAL

PR_SET_CHILD_SUBREAPER = 36
TCP_LISTEN = "0A"
GRACE_SECONDS = 3.0
SERVERS = (RedisServer, Redis8Server, ValkeyServer, NatsServer)
WITH_KAFKA = {"shared_kafka", "secure_kafka"}
"""Fixtures that start a Kafka."""
UNMEASURED = ("chaos", "cluster", "unmeasured")
"""Marks of tests that run without coverage, they and their bridges: it costs a third more, and where much is done in
the test's own process, three times as much. Others see the same lines.
"""


def unmeasured(item: pytest.Item) -> bool:
    return not item.get_closest_marker("measured") and any(item.get_closest_marker(mark) for mark in UNMEASURED)


# Else it would be in the working directory, which is another one for each test (see `isolated`).
configuration.set_hypothesis_home_dir(str(ROOT / ".cache" / "hypothesis"))
# No test is about how fast it is: the machine may be busy.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    """What may be run once more: see there."""
    config.pluginmanager.register(Reruns())


def pytest_report_header() -> list[str]:
    """What the tests run against."""
    servers = [f"{server.__name__}: {version(server)}" for server in SERVERS]
    return [*servers, f"KafkaServer: {kafka_version()}"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what asks for a Kafka by a fixture; what asks for it while it runs is marked where it is written."""
    if WITH_KAFKA & {*getattr(item, "fixturenames", ())}:
        item.add_marker("kafka")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the slow ones first, and on one kind of Redis what is not marked `both_kinds`."""
    _choose_kinds(config, items)
    items[:] = slow_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _choose_kinds(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which kind, the name of the test decides. With BOTH_KINDS=1, or where a single test is asked for, both."""
    if os.environ.get("BOTH_KINDS") == "1" or any("::" in argument for argument in config.args):
        return
    kept, left = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("redis_kind")  # type: ignore[attr-defined]
        name = item.nodeid.partition("[")[0]
        other = (
            kind in KINDS
            and item.get_closest_marker("both_kinds") is None
            and kind is not KINDS[crc32(name.encode()) % 2]
        )
        (left if other else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Trace what is imported in the first of the processes alone: it is the same in all."""
    with untraced(unless=os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Trace nothing of what is not measured."""
    with untraced(unless=not unmeasured(item)):
        return (yield)


@contextmanager
def untraced(*, unless: bool) -> Iterator[None]:
    """Without the tracer of coverage, if there is one."""
    tracer = None if unless else sys.gettrace()
    if tracer is None:
        yield
        return
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


@pytest.fixture(params=EACH_KIND)
def redis_kind(request: pytest.FixtureRequest) -> type[RedisServer]:
    """For tests that start servers of their own, as in `redis_kind(appendonly=True)`: see above for which kind."""
    kind: type[RedisServer] = request.param
    require(kind)
    return kind


@pytest.fixture
def redis_server(redis_kind: type[RedisServer]) -> Iterator[RedisServer]:
    """A fresh Redis, or Valkey."""
    with redis_kind() as server:
        yield server


@pytest.fixture
def one_redis() -> Iterator[RedisServer]:
    """A fresh Redis, for what is no matter of the kind."""
    require(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A fresh NATS server with JetStream."""
    require(NatsServer)
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared_kafka() -> Iterator[KafkaServer]:
    """One Kafka for the session, because it takes seconds to start: see `kafka_server`."""
    require(KafkaServer)
    with KafkaServer() as server:
        with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
            thread.submit(lambda: asyncio.run(keep_transactions_here(server))).result()
        yield server


@pytest.fixture
def kafka_server(request: pytest.FixtureRequest, shared_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """A Kafka that runs. What other tests left in it is there, so use a topic of your own."""
    assert request.node.get_closest_marker("kafka"), "mark it `kafka`, so that it runs where the one Kafka does"
    yield shared_kafka
    if shared_kafka.running:
        shared_kafka.resume()
    else:
        shared_kafka.start()


@pytest.fixture(scope="module")
def shared_second_broker(shared_kafka: KafkaServer) -> Iterator[KafkaServer]:
    """Another broker of that Kafka, which gets its topics from the module's tests."""
    with KafkaServer(joins=shared_kafka) as server:
        yield server


@pytest.fixture(scope="session")
def secure_kafka(certificates: Path) -> Iterator[KafkaServer]:
    """A Kafka with rights, for the session: see `tests/support/brokers/kafka_access.py`."""
    require(KafkaServer)
    with secure_server(certificates) as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca`, and what it signed: `server` (for 127.0.0.1) and `client`. A key and a certificate each.

    `locked.key` is the client's key, with the password `hunter2`. `expired` is of the same authority, and over;
    `stranger` is its own authority. Both are for 127.0.0.1.
    """
    directory = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)  # noqa: S607 - the PATH's

    def make(name: str, *options: str) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", *options)

    make("ca")
    for name in ("server", "client"):
        make(name, "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
    make("stranger", "-addext", "subjectAltName=IP:127.0.0.1")
    request = ["-subj", "/CN=expired", "-addext", "subjectAltName=IP:127.0.0.1", "-out", "expired.csr"]
    openssl(
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "expired.key",
        *request,
    )
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-copy_extensions", "copy", "-days", "-1"]
    openssl("x509", "-req", "-in", "expired.csr", "-out", "expired.pem", *signed)
    openssl("pkcs8", "-topk8", "-in", "client.key", "-out", "locked.key", "-passout", "pass:hunter2")
    return directory


@pytest.fixture(autouse=True)
def isolated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep the user's own settings out (no BRIDGE_* variable, no `.env`), and a test's logs to itself."""
    if unmeasured(request.node):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    for name in [name for name in os.environ if name.upper().startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()  # a test that configured logs has written to a stream that pytest closes
    logging.getLogger().handlers = [
        handler for handler in logging.getLogger().handlers if type(handler) is not logging.StreamHandler
    ]


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail the session if a process, a temporary directory or a listening socket outlives the tests."""
    if sys.platform != "linux":
        yield  # there is no /proc to look at
        return
    # The children of a child that died become ours, and so cannot hide.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = {*_living_children(), *_listening_sockets()}
    yield
    ORIGINAL.close()
    deadline = time.monotonic() + GRACE_SECONDS  # who is being killed may need a moment
    while (left := _left_behind(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, f"left behind by the tests: {', '.join(left)}"


def _left_behind(before: set[str]) -> list[str]:
    directories = (str(path) for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*"))
    return sorted({*_living_children(), *_listening_sockets(), *directories} - before)


def _living_children() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (process / "stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            # A zombie has ended; an adopted one is ours only because of the subreaper.
            if int(parent) == os.getpid() and state != "Z":
                yield f"process {name}) {(process / 'cmdline').read_text().replace(chr(0), ' ')}".strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked


def _listening_sockets() -> Iterator[str]:
    """Sockets of this process; others have ended, or are reported as children."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            own.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # the one that listed the directory
    for table in (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, address, _, state, *_, inode = line.split()[:10]
            if state == TCP_LISTEN and f"socket:[{inode}]" in own:
                yield f"listening socket on port {int(address.rpartition(':')[2], 16)}"
