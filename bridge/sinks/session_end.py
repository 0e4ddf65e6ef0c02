"""The end of a session: once, for a reason that stays."""

import asyncio


class SessionEnd:
    """Why a session ended, as soon as it has."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """None while the session lasts."""
        self._happened = asyncio.Event()

    def set(self, reason: str) -> bool:
        """The session has ended. False: it had ended before, and that reason stays."""
        if self.reason is not None:
            return False
        self.reason = reason
        self._happened.set()
        return True

    async def wait(self) -> str:
        """See `Session.ended`."""
        await self._happened.wait()
        return self.reason or ""
