"""`python -m bots slack` as a process of its own, beside a fake Slack."""

from pathlib import Path

from tests.bots.app_process import START_DEADLINE_S, STOP_DEADLINE_S, AppProcess
from tests.fakes.slack_server import SlackServer


class SlackProcess(AppProcess):
    """The app over Socket Mode.

    Args of the constructor:
        slack: the Slack that `PARLEY_SLACK__BASE_URL` names.
    """

    def __init__(
        self,
        slack: SlackServer,
        *,
        home: Path,
        database_url: str,
        engine_url: str,
        fresh: bool = False,
        **environment: str,
    ) -> None:
        platform = {
            "PARLEY_SLACK__BASE_URL": slack.base_url,
            "PARLEY_SLACK__BOT_TOKEN": slack.bot_token,
            "PARLEY_SLACK__APP_TOKEN": slack.app_token,
        }
        super().__init__(
            "slack",
            home=home,
            database_url=database_url,
            engine_url=engine_url,
            fresh=fresh,
            **platform | environment,
        )
        self._slack = slack

    @property
    def opened(self) -> int:
        return self._slack.sockets.opened

    async def connected(self, opened: int) -> None:
        sockets = self._slack.sockets
        await self._slack.until(
            lambda: sockets.opened > opened and sockets.connections,
            "a socket of the app",
            within_s=START_DEADLINE_S,
        )

    async def disconnected(self) -> None:
        await self._slack.until(
            lambda: not self._slack.sockets.connections, "no sockets", within_s=STOP_DEADLINE_S
        )
