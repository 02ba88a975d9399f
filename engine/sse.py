"""Server-sent events, as far as OpenAI's protocol uses them."""

from collections.abc import AsyncIterator

_DONE = "[DONE]"


async def events(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the data of each event until the end mark or the end of the stream."""
    async for line in lines:
        if not line.startswith("data:"):
            continue  # comments, event names and the empty lines between events
        data = line.removeprefix("data:").strip()
        if data == _DONE:
            return
        yield data
