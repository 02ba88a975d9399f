"""`python -m bots discord` as a process of its own, beside a fake Discord."""

from pathlib import Path

from tests.bots.app_process import START_DEADLINE_S, STOP_DEADLINE_S, AppProcess
from tests.fakes.discord_server import DiscordServer


class DiscordProcess(AppProcess):
    """The app, pointed at a Discord by its two addresses alone.

    Args of the constructor:
        discord: the Discord that `PARLEY_DISCORD__API_URL` and `…GATEWAY_URL` name.
    """

    def __init__(
        self,
        discord: DiscordServer,
        *,
        home: Path,
        database_url: str,
        engine_url: str,
        fresh: bool = False,
        **environment: str,
    ) -> None:
        platform = {
            "PARLEY_DISCORD__API_URL": discord.api_url,
            "PARLEY_DISCORD__GATEWAY_URL": discord.gateway_url,
            "PARLEY_DISCORD__TOKEN": discord.token,
        }
        super().__init__(
            "discord",
            home=home,
            database_url=database_url,
            engine_url=engine_url,
            fresh=fresh,
            **platform | environment,
        )
        self._discord = discord

    @property
    def opened(self) -> int:
        return self._discord.gateway.identified

    async def connected(self, opened: int) -> None:
        gateway = self._discord.gateway
        await self._discord.until(
            lambda: gateway.identified > opened and gateway.connections,
            "a session of the app",
            within_s=START_DEADLINE_S,
        )

    async def disconnected(self) -> None:
        await self._discord.until(
            lambda: not self._discord.gateway.connections,
            "no sockets",
            within_s=STOP_DEADLINE_S,
        )
