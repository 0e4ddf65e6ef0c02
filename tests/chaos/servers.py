"""Servers with a clock or a disk of their own, where the machine has what that takes."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bridge.commands.embedded import DIRECTORY_PREFIX
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.stored import StoredExpiration
from tests.support.servers import RedisServer, ValkeyServer

DISK_MIB = 16


def faketime() -> Path | None:
    """Libfaketime (Debian, Ubuntu: `libfaketime`), if it is installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


class ClockedValkey(ValkeyServer):
    """Its clock can be set. Debian's Redis has an allocator with which libfaketime hangs."""

    def environment(self) -> Mapping[str, str]:
        """See `Process`. The clock that only runs on stays the machine's."""
        set_clock(self, 0)
        return {
            **os.environ,
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(_clock_of(self)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def set_clock(server: RedisServer, seconds: float) -> None:
    """Set the clock of a `ClockedValkey`, so far ahead of the machine's."""
    new = _clock_of(server).with_suffix(".new")
    new.write_text(f"{seconds:+.3f}s\n")
    new.replace(_clock_of(server))


def _clock_of(server: RedisServer) -> Path:
    return server.directory / "clock"


class Stepped(Deployment):
    """A scene whose Redis may have been set back behind a deadline before its notification was handled.

    Such an expiration is announced without its deadline: once, like any other.
    """

    async def stored(self, least: int = 0) -> list[StoredExpiration] | None:
        """See `Scene`."""
        stored = await super().stored(least)
        ids = {message.id for message in stored or ()}
        undated = {message.key: message.id for message in stored or () if message.deadline_ms is None}
        for id_, (key, deadline) in list(self.expected.items()):
            if id_ not in ids and key in undated:
                del self.expected[id_]
                self.expected[undated[key]] = key, deadline
        return stored


@cache
def can_mount() -> bool:
    """Whether this process may have disks of its own."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    try:
        with small_disk():
            return True
    except subprocess.CalledProcessError:
        return False


@contextmanager
def small_disk() -> Iterator[Path]:
    """A directory on a disk of its own, of `DISK_MIB`."""
    with tempfile.TemporaryDirectory(prefix=DIRECTORY_PREFIX) as directory:
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", directory)
        try:
            yield Path(directory)
        finally:
            _run("umount", "--lazy", directory)


def _run(name: str, *arguments: str) -> None:
    subprocess.run([shutil.which(name) or name, *arguments], check=True, capture_output=True)
