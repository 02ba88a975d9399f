"""A chat model that says what a test wants, when it wants: an OpenAI-compatible server.

The real engine serves it like any hosted model (`openai:<url>#scripted`), so that everything
between a question and the model is real, and only the words and their times are chosen. It does
not imitate tools, several choices, log probabilities, or anything but streamed chat.
"""

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

NAME = "scripted"
FINGERPRINT = "int8-scripted"
"""What it says that it answers with."""
Script = Callable[[str], str]


class ScriptedModel:
    """Serves `/v1/chat/completions` on a port of this machine.

    Attributes:
        script: Makes the answer from the last message of the prompt.
        may_begin: Cleared, no answer begins.
        may_end: Cleared, answers stop after half of their words.
        failing: HTTP status to refuse with instead; None = answer.
        prompts: Messages of every request.
        begun: How many answers have begun.
        cancelled: How many answers the engine hung up on.
    """

    def __init__(self, port: int = 0) -> None:
        self.script: Script = lambda prompt: "Yes. It is so [1]."
        self.may_begin = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_begin.set()
        self.may_end.set()
        self.failing: int | None = None
        self.prompts: list[list[dict[str, Any]]] = []
        self.begun = 0
        self.cancelled = 0
        self._port = port
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def source(self) -> str:
        """How the engine's settings name it."""
        return f"openai:http://127.0.0.1:{self._port}/v1#{NAME}"

    async def begun_answers(self, count: int, *, within_s: float = 30.0) -> None:
        """Wait until so many answers have begun."""
        async with asyncio.timeout(within_s):
            while self.begun < count:
                self._changed.clear()
                await self._changed.wait()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.prompts.append(body["messages"])
        if self.failing is not None:
            return web.json_response({"error": {"message": "no"}}, status=self.failing)
        words = self.script(str(body["messages"][-1]["content"])).split(" ")
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            await self.may_begin.wait()
            self.begun += 1
            self._changed.set()
            for number, word in enumerate(words):
                if number >= len(words) // 2:
                    await self.may_end.wait()
                text = word if number == 0 else f" {word}"
                await answer.write(_event({"content": text}, None))
            usage = {"prompt_tokens": 10, "completion_tokens": len(words)}
            await answer.write(_event({}, "stop", usage=usage))
            await answer.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            self._changed.set()
            raise
        return answer


def _event(delta: dict[str, str], finish: str | None, **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": NAME,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()
