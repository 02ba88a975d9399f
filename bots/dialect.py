"""How a chat platform writes: what every shared sentence is put together with."""

from typing import Protocol


class Dialect(Protocol):
    """One platform's way of writing.

    Arguments are plain text, whoever wrote it; results mean there nothing but what the method says:
    they call nobody and lead nowhere else.
    """

    @property
    def adding(self) -> str:
        """What somebody does to add a document, as the beginning of a sentence."""

    def plain(self, text: str) -> str:
        """Text that is shown as it is."""

    def bold(self, text: str) -> str:
        """Strong text."""

    def italic(self, text: str) -> str:
        """Text that stands back, such as what is being done."""

    def code(self, text: str) -> str:
        """A name as a machine writes it."""

    def link(self, url: str, text: str) -> str:
        """A link without a preview; `text` alone where `url` is no address of the web."""

    def person(self, platform_id: str) -> str:
        """A mention of a person, or of a group, by the platform's id."""

    def command(self, words: str) -> str:
        """A command as people type it, such as `settings`."""
