"""A child process with a directory of its own, that dies with us."""

import os
import shutil
import signal
import subprocess  # starting processes is what this module is for
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

DIRECTORY_PREFIX = f"expiry-bridge-{os.getpid()}-"
"""Of every temporary directory: it names its owner, so that left-overs can be distinguished from those of others."""

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


class Child(Protocol):
    """What of `subprocess.Popen` a process needs."""

    pid: int

    def poll(self) -> int | None:
        """See there."""

    def wait(self, timeout: float | None = None) -> int:
        """See there."""

    def send_signal(self, number: int, /) -> None:
        """See there."""

    def kill(self) -> None:
        """See there."""


class Process(ABC):
    """A child process with its own directory. Dies with the *thread* that started it: start it from a lasting one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: Child | None = None
        self._directory: Path | None = None
        self.paused = False
        """Whether it stands still since `pause()`: it answers no one."""

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
        self.paused = False
        self._child = self._spawn()

    def _spawn(self) -> Child:
        guard = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with (self.directory / "stdout").open("ab") as stdout, (self.directory / "stderr").open("ab") as stderr:
            return subprocess.Popen(
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
        self.paused = True
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after `pause()`."""
        self.paused = False
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
        return file.read_text("utf-8", errors="replace") if file and file.exists() else ""

    def _started(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child
