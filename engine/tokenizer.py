"""Text to tokens and back, through the `tokenizers` library.

Control tokens (`<|im_start|>` and the like) come from the chat template only. The same characters
inside a message or a document are data: `Tokenizer.as_data` puts a separator inside each such
string before the template is rendered, and `Tokenizer.encode` splits there, so the pieces can never
meet as one control token, while the model still reads every character.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import tokenizers

from engine.errors import ModelCorrupt

SEPARATOR = "\ufdd0"
"""A Unicode noncharacter: never text, never whitespace, so templates carry it through unchanged."""


class Tokenizer:
    """A model's tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()  # a tokenizer.json may carry its trainer's own limits
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        special = sorted(
            token.content
            for token in tokenizer.get_added_tokens_decoder().values()
            if token.special and token.content
        )
        # Looks ahead, so that overlapping control strings are all found; the first character stands
        # alone.
        self._special_start = (
            re.compile(f"(?=(?:{'|'.join(map(re.escape, special))}))(.)", re.DOTALL)
            if special
            else None
        )
        self.special_tokens = frozenset(special)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Load a `tokenizer.json`.

        Raises:
            ModelCorrupt: the file is missing or is no tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare Exception for every cause
            raise ModelCorrupt(file.parent, f"{file.name} cannot be read: {error}") from error

    def as_data(self, text: str) -> str:
        """Return `text` marked so that `encode` reads control-token strings in it as plain text."""
        if self._special_start is None:
            return text
        return self._special_start.sub(rf"\1{SEPARATOR}", text)

    def encode(self, prompt: str) -> list[str]:
        """Return the tokens of a rendered prompt; control tokens in it count, none are added."""
        pieces = [piece for piece in prompt.split(SEPARATOR) if piece]
        return [
            token
            for piece in pieces
            for token in self._tokenizer.encode(piece, add_special_tokens=False).tokens
        ]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return each text's number of tokens, read as data, without beginning or end tokens."""
        marked = [self.as_data(text) for text in texts]
        plain = [text for text in marked if SEPARATOR not in text]
        counts = iter(self._tokenizer.encode_batch_fast(plain, add_special_tokens=False))
        return [
            len(self.encode(text)) if SEPARATOR in text else len(next(counts)) for text in marked
        ]

    def encode_passages(self, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
        """Return the token ids an embedder reads: data, cut to `max_tokens`, with its own frame.

        Args:
            texts: passages or queries.
            max_tokens: most ids per text, the frame (such as `[CLS]` and `[SEP]`) included.
        """
        room = max_tokens - self._tokenizer.num_special_tokens_to_add(False)
        encodings = self._tokenizer.encode_batch(
            [self.as_data(text).replace(SEPARATOR, " ") for text in texts],
            add_special_tokens=False,
        )
        framed = []
        for encoding in encodings:
            encoding.truncate(room)
            framed.append(self._tokenizer.post_process(encoding).ids)
        return framed

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens left out."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the ids of tokens; a token outside the vocabulary is left out."""
        found = (self._tokenizer.token_to_id(token) for token in tokens)
        return [token_id for token_id in found if token_id is not None]

    def stream_decoder(self) -> "StreamDecoder":
        """Return a decoder for one answer that arrives token by token."""
        return StreamDecoder(self)

    def token_of(self, token_id: int) -> str | None:
        """Return the vocabulary entry of an id; None outside the vocabulary."""
        return self._tokenizer.id_to_token(token_id)


class StreamDecoder:
    """Turns token ids into text as they arrive; the pieces join to exactly the full decode.

    Text is held back while its last character is incomplete: a byte-level token may end inside a
    UTF-8 character, and byte-fallback tokens (`<0xE4>`) only become text together with their
    neighbours.
    """

    _BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []  # ids already emitted that the next ones are decoded behind
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """Take one token id; return the text that is now certain, often empty."""
        token = self._tokenizer.token_of(token_id)
        if token is None or token in self._tokenizer.special_tokens:
            return ""  # without text: bytes before and after it are neighbours
        self._pending.append(token_id)
        if self._BYTE_TOKEN.fullmatch(token):
            return ""
        text = self._new_text()
        return "" if text.endswith("\ufffd") else self._emit(text)

    def flush(self) -> str:
        """Return the text still held back, at the end of the answer."""
        return self._emit(self._new_text())

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._pending)[len(before) :]

    def _emit(self, text: str) -> str:
        if text:  # a token without text must not displace the context
            self._context, self._pending = self._pending, []
        return text
