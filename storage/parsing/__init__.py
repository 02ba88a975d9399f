"""Parsing: the bytes of one file become typed blocks of text.

Does: decide the format by content, read it in a child process of its own under limits, stream
blocks in reading order. Every file ends with blocks or with `DocumentRejected` and a reason a
person understands.

Does not: store, chunk or embed.

Entry point: `parse`. `Block`, `ParseLimits` and `Progress` are its vocabulary.

Why a process per document: parsers are native code fed with strangers' files. A crash, a leak or an
endless loop costs that document, never the worker, and the kernel enforces memory and CPU limits
that no library honours. The child has a scrubbed environment and dies with its parent.

Why few converters to Markdown: blocks carry pages, heading levels and tables, which a Markdown
detour loses, and most readers here stream, so memory does not grow with the document.
"""

from storage.parsing.blocks import Block, BlockKind, ParseLimits, Progress
from storage.parsing.supervisor import parse

__all__ = ["Block", "BlockKind", "ParseLimits", "Progress", "parse"]
