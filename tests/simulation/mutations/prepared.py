"""A process that has imported what the simulation stands on, and copies itself (`fork`) for each run.

Importing that takes longer than a seed, and there is a run for each rule, with a `bridge/` of its own. The order of
sets is the same in each.
"""

import gc
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

MODULES = (
    "aiohttp.web",
    "hiredis",
    "lupa.lua51",
    "msgpack",
    "orjson",
    "prometheus_client",
    "pydantic_settings",
    "redis.asyncio.cluster",
    "redis.asyncio.sentinel",
    "structlog",
)


class Done(NamedTuple):
    """What came of a run."""

    returncode: int
    stdout: str
    """And what it wrote to its standard error."""


Simulate = Callable[..., Done]
"""`simulate(place, *arguments)`: `python -m tests.simulation` with these arguments, and the `bridge/` of that place."""


@contextmanager
def prepared() -> Iterator[Simulate]:
    """Until the end of the block, simulations begin at once."""
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def simulate(place: Path, *arguments: str) -> Done:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([str(place), arguments]) + "\n")
            process.stdin.flush()
            return Done(*json.loads(process.stdout.readline()))

        yield simulate


# In that process.


def _serve() -> None:
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()
    while request := sys.stdin.readline():
        place, arguments = json.loads(request)
        reader, writer = os.pipe()
        copy = os.fork()
        if not copy:
            os.close(reader)
            with os.fdopen(writer, "w") as answer:
                json.dump(_run(place, arguments), answer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            sys.stdout.write(said.read() + "\n")
        sys.stdout.flush()
        os.waitpid(copy, 0)


def _run(place: str, arguments: list[str]) -> tuple[int, str]:
    os.chdir(place)
    sys.path.insert(0, place)
    said, status = io.StringIO(), 1
    with redirect_stdout(said), redirect_stderr(said):
        try:
            status = import_module("tests.simulation.command").main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:  # noqa: BLE001 - whoever has asked is told
            traceback.print_exc()
    return status, said.getvalue()


if __name__ == "__main__":
    _serve()
