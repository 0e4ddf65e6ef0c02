"""Bridges that need not import what they are made of: copies of a process that has done so already.

Importing takes most of a second of processor time, and a run of all tests starts hundreds of bridges. So each session
has one process that only imports them, and copies itself (`fork`) on demand. A copy has its own process group, working
directory, environment, streams and coverage, and then does what `python -m bridge` does. Its parent is who asked for
it: the copy is made by a process between them that ends at once, and the kernel gives orphans to whoever has declared
to adopt them (`PR_SET_CHILD_SUBREAPER`). That is Linux; elsewhere, and where the start matters, none is a copy.

A copy is also what can be given other limits than users have (`limits.py`).
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 0.005
COMMANDS = ("run", "check", "status", "dead", "verify")
"""Those of the command line that copies can do. The demo starts processes of its own, and is no copy."""
MODULES = (
    "coverage",
    "bridge.cli.main",
    "tests.support.limits",
    *(f"bridge.commands.{command}" for command in COMMANDS),
    *(f"bridge.sinks.{sink}" for sink in ("jetstream", "kafka", "redis", "stdout")),
)


class Copy:
    """A child process that `subprocess` has not started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        with self._lock:
            if self._status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._status = os.waitstatus_to_exitcode(status) if pid else None
            return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            time.sleep(POLL_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """The hard way."""
        self.send_signal(signal.SIGKILL)


class Original:
    """The process that is copied. It ends with the one that started it, or with `close()`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def copy(
        self, arguments: Sequence[str], environment: Mapping[str, str], directory: Path, limits: Mapping[str, Any]
    ) -> Copy:
        """One more of it, that runs `bridge.cli` with these arguments; its output goes into files in the directory.

        `limits`: those of the service, as `tests.support.limits.written` writes them.
        """
        asked = {
            "arguments": arguments,
            "environment": environment,
            "directory": str(directory),
            "limits": limits,
            "parent": os.getpid(),
        }
        with self._lock:
            process = self._process = self._process or self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            return Copy(int(process.stdout.readline()))

    def close(self) -> None:
        """End it. Its copies go on; a further one begins with another original."""
        if self._process is not None:
            self._process.communicate()  # its input ends, and so it does
            self._process = None

    @staticmethod
    def _started() -> subprocess.Popen[bytes]:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "COVERAGE_"))
        }
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-P", __file__]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


ORIGINAL = Original()


# In the original.


def _serve() -> None:
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()  # what is never looked at is never copied
    requests = os.fdopen(os.dup(0), "rb")
    for line in requests:
        between = os.fork()
        if not between:
            if os.fork():
                os._exit(0)
            requests.close()
            _become(**json.loads(line))
        os.waitpid(between, 0)


def _become(
    arguments: list[str], environment: dict[str, str], directory: str, limits: dict[str, Any], parent: int
) -> NoReturn:
    while os.getppid() != parent:
        time.sleep(0)  # the one between is just ending
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setpgid(0, 0)
    os.write(1, b"%d\n" % os.getpid())
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    written = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, (name, flags) in enumerate([(os.devnull, os.O_RDONLY), ("stdout", written), ("stderr", written)]):
        descriptor = os.open(name, flags, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = ["bridge", *arguments]
    if environment.get("COVERAGE_PROCESS_CONFIG"):
        start: Any = import_module("coverage").process_startup
        start(force=True)
    chosen = import_module("tests.support.limits").read(limits)
    sys.exit(import_module("bridge.cli.main").main(limits=chosen))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C in a terminal is for the parent
        _serve()
