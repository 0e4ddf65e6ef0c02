"""Lint the Lua scripts as Redis gets them: `python -m tests.support.lua`, a part of `make check`.

Writes them into `.cache/lua`, so that the lines that luacheck names can be looked at. Where there is no luacheck, that
is an error in CI, and a warning elsewhere.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bridge.redis.ledger import assembly
from bridge.sinks.redis import script as append
from tests.support.servers import ROOT

TARGET: Final = ROOT / ".cache" / "lua"
OWN: Final = ROOT / ".cache" / "tools" / "bin" / "luacheck"


def luacheck() -> str | None:
    """The program, if the machine or `.cache` has it."""
    return shutil.which("luacheck") or (str(OWN) if OWN.exists() else None)


def write(target: Path) -> None:
    """All scripts, put together."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in assembly.names():
        (target / f"{name}.lua").write_text(assembly.script(name), encoding="utf-8")
    (target / "append.lua").write_text(append.text(), encoding="utf-8")


def main() -> int:
    """The exit status."""
    program = luacheck()
    if program is None:
        sys.stderr.write("!! WARNING: the Lua scripts were NOT linted: no luacheck (Debian: lua-check; `make setup`)\n")
        return 1 if os.environ.get("CI") else 0
    write(TARGET)
    return subprocess.run(
        [program, "--config", ROOT / ".luacheckrc", "--no-color", "--quiet", TARGET], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
