"""What goes wrong with the fake Slack's Web API, chosen by method, token or channel."""

from dataclasses import dataclass

from aiohttp import web

from tests.fakes.slack_calls import Call
from tests.fakes.wire import Mishap


@dataclass(kw_only=True)
class Fault(Mishap):
    """What goes wrong with matching calls. None matches everything.

    Attributes:
        method: Web API method.
        channel: Channel id in the arguments.
        token: The token of the call.
        error: Slack's error code in an answer with status 200.
        retry_after_s: `Retry-After` header.
    """

    method: str | None = None
    channel: str | None = None
    token: str | None = None
    error: str | None = None
    retry_after_s: float | None = None

    def matches(self, call: Call) -> bool:
        """Whether the call meets it."""
        channel = call.args.get("channel") or call.args.get("channel_id")
        token = call.token.value if call.token is not None else None
        return (
            self.lasts
            and self.method in (None, call.method)
            and self.channel in (None, channel)
            and self.token in (None, token)
        )


def faulty(call: Call, fault: Fault) -> web.Response:
    """The answer that the fault gives instead."""
    call.status = fault.status or 200
    headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    if call.status >= 500:
        return web.Response(status=call.status, text="upstream is away", headers=headers)
    call.answer = {"ok": False, "error": fault.error or "ratelimited"}
    return web.json_response(call.answer, status=call.status, headers=headers)
