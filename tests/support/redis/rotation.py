"""Logins that change, as those of clouds do: a user for each, who is deleted when it ends, with all its connections.

`expiry-bridge` learns of them through `BRIDGE_REDIS_CREDENTIALS_PROVIDER`: `PROVIDER` in a test's own process,
`from_file` in a process of its own, which reads them from `LOGIN_FILE`.
"""

import os
import threading
from pathlib import Path

from redis.asyncio import Redis
from redis.credentials import CredentialProvider

SECRET = "hunter2"
NAME = "tests.support.redis.rotation:PROVIDER"
FROM_FILE = "tests.support.redis.rotation:from_file"


class Provider(CredentialProvider):
    """Gives what it was told to."""

    def __init__(self) -> None:
        self.gives: object = ()
        """An exception is raised."""
        self.answers = threading.Event()
        self.answers.set()

    def get_credentials(self) -> tuple[str, str]:
        """See redis-py."""
        self.answers.wait()
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives  # type: ignore[return-value]  # a test may have it give anything


class _FromFile(CredentialProvider):
    async def get_credentials_async(self) -> tuple[str, str]:
        user, password = Path(os.environ["LOGIN_FILE"]).read_text().split()  # noqa: ASYNC240 - small
        return user, password


def from_file() -> CredentialProvider:
    """User and password, as the file has them now."""
    return _FromFile()


PROVIDER = Provider()


class Users:
    """Who may log in to one server."""

    def __init__(self, owner: Redis) -> None:
        """`owner`: a client with all rights."""
        self._owner = owner
        self.number = 0

    @property
    def login(self) -> tuple[str, str]:
        """The last one."""
        return f"user-{self.number}", f"{SECRET}-{self.number}"

    async def add(self) -> tuple[str, str]:
        """One more, beside the former one."""
        self.number += 1
        user, password = self.login
        await self._owner.acl_setuser(
            user, enabled=True, passwords=[f"+{password}"], keys=["*"], channels=["*"], categories=["+@all"]
        )
        return user, password

    async def end_former(self) -> None:
        """The one before: the server closes its connections."""
        await self._owner.acl_deluser(f"user-{self.number - 1}")

    async def connections(self, user: str, kind: str | None = None) -> list[dict[str, str]]:
        """Those that are logged in as `user`; `kind`: `pubsub` for those that listen."""
        return [client for client in await self._owner.client_list(kind) if client["user"] == user]

    async def are_renewed(self) -> bool:
        """What listens has the last login, and nothing else was used with the former one for a second."""
        listens = await self.connections(self.login[0], "pubsub")
        return bool(listens) and all(
            int(one["idle"]) and "pubsub" not in one["flags"]
            for one in await self.connections(f"user-{self.number - 1}")
        )
