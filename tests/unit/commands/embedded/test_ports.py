"""Servers of tests that run side by side must not be given each other's ports."""

import subprocess
import sys

from bridge.commands.embedded import free_port

MANY = 250
ANOTHER = f"""
from bridge.commands.embedded import free_port
print(*(free_port() for _ in range({MANY})), flush=True)
input()
"""


def test_no_two_processes_are_given_the_same_port() -> None:
    others = [
        subprocess.Popen([sys.executable, "-c", ANOTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        given = [free_port() for _ in range(MANY)]
        for other in others:
            assert other.stdout is not None
            given += map(int, other.stdout.readline().split())
    finally:
        for other in others:
            other.communicate("\n")
    assert len(set(given)) == len(given) == 4 * MANY
