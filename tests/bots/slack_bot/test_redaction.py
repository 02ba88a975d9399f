"""No token in any line of a log."""

import io
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from bots.redaction import redact, redact_logs
from bots.settings import SlackSettings
from bots.slack_bot.redaction import TOKENS as PATTERN
from engine.logs import JsonFormatter

TOKENS = (
    "xoxb-123-456-abcDEF",
    "xoxp-1-2-3",
    "xapp-1-A0B-9-deadbeef",
    "xoxe.xoxb-1-abc",
    "xoxe-1-abcdef",
)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the root logger's only handler writes."""
    root, stream = logging.getLogger(), io.StringIO()
    kept, level = root.handlers[:], root.level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root.handlers, root.level = [handler], logging.DEBUG
    yield stream
    root.handlers, root.level = kept, level


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_hidden_wherever_they_stand(token: str) -> None:
    assert token not in redact(f"a {token}, b", PATTERN)
    assert redact(f"a {token} b", PATTERN) == "a [hidden] b"


@pytest.mark.parametrize(
    "text",
    ["wss://x.example/link/?ticket=abc-1&app_id=A", "GET /r?code=12.34&state=s-1", "Bearer abc"],
)
def test_addresses_lose_their_secrets(text: str) -> None:
    shown = redact(text, PATTERN)
    assert all(secret not in shown for secret in ("abc", "12.34", "s-1"))


def test_ordinary_text_is_left_alone() -> None:
    text = "no socket: the address was refused (408); next try in 0.5 s"
    assert redact(text, PATTERN) == text


def test_every_part_of_a_record_is_redacted(written: io.StringIO) -> None:
    redact_logs(PATTERN, SlackSettings(signing_secret=SecretStr("s1gning-secret")))
    logger = logging.getLogger("slack_sdk.web.async_client")
    try:
        raise ValueError(f"token={TOKENS[0]}")
    except ValueError:
        logger.exception("sent %s", TOKENS[1], extra={"headers": {"Authorization": TOKENS[2]}})
    logger.debug("checked with s1gning-secret")
    text = written.getvalue()
    assert text.count("\n") == 2
    for secret in (*TOKENS[:3], "s1gning-secret"):
        assert secret not in text
