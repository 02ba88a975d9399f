"""A chat stream is read the same however its bytes arrive and whatever its text holds."""

import json
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from engine.openai_stream import chat_deltas


def event(content: str | None, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    chunk = {"model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


async def read(body: bytes, size: int) -> str:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return "".join([delta.text async for delta in chat_deltas(pieces())])


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5),
    size=st.integers(1, 50),
)
async def test_any_text_survives_any_splitting(texts: list[str], size: int) -> None:
    body = b"".join(event(text) for text in texts) + event(None, "stop") + b"data: [DONE]\n\n"
    assert await read(body, size) == "".join(texts)


async def test_line_separators_inside_text_end_no_event() -> None:
    text = "one\u2028two\u2029three\x0bfour\x0cfive\x85six"
    assert await read(event(text) + event(None, "stop"), 7) == text
