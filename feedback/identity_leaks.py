"""Answers that say which model wrote them: their comparison is no longer blind.

Chatbot Arena leaves such votes out (`fastchat/serve/monitor/clean_battle_data.py` has its words). A
document or a question may be about a model, so a name counts only where the answer speaks of
itself, and the question did not bring it up.
"""

import re
from collections.abc import Iterable
from typing import Final

from storage.ratings import Battle

KNOWN_NAMES: Final = frozenset(
    {
        *("alpaca", "anthropic", "bard", "chatgpt", "claude", "cohere", "copilot", "deepseek"),
        *("falcon", "gemini", "gemma", "gpt", "grok", "huggingface", "koala", "lamda", "llama"),
        *("mistral", "mixtral", "olmo", "openai", "palm", "qwen", "smollm", "stablelm"),
        *("tinyllama", "vicuna"),
    }
)
"""Families and makers of models."""
MIN_NAME_CHARACTERS: Final = 4
"""Shorter parts of a model's name (`7b`) are words of everyday text."""
_COMMON: Final = frozenset(
    {"base", "chat", "instruct", "int8", "int4", "float16", "float32", "live", "model", "tuned"}
)

_SELF: Final = re.compile(
    r"\b(?:i am|i['’]m|as|my name is|call me|(?:trained|created|developed|made|built) by)\b"  # noqa: RUF001
    r"(?P<claim>(?:[\s,]+[\w.-]+){1,8})",
    re.IGNORECASE,
)
"""Where an answer speaks of itself, and the few words in which its name would come."""


def names_itself(text: str, *, question: str, models: Iterable[str]) -> bool:
    """Whether an answer says which model, or whose, it is.

    Args:
        text: the answer.
        question: what was asked; a name that it brought up may be repeated.
        models: the models that took part, as they are called here.
    """
    names = KNOWN_NAMES | {
        word
        for model in models
        for word in _words(model)
        if len(word) >= MIN_NAME_CHARACTERS and word not in _COMMON
    }
    claimed = {word for found in _SELF.finditer(text) for word in _words(found["claim"])}
    return bool(claimed & names - _words(question))


def blind(battle: Battle) -> bool:
    """Whether a voter could not read from the answers who wrote them."""
    models = (battle.left_model, battle.right_model)
    return not any(
        names_itself(text, question=battle.question, models=models)
        for text in (battle.left_text, battle.right_text)
    )


def _words(text: str) -> set[str]:
    """The words of a text, those that end in a number without it too: SmolLM2 is a SmolLM."""
    words = set(re.split(r"[^a-z0-9]+", text.lower()))
    return words | {word.rstrip("0123456789") for word in words} - {""}
