"""Stop strings in a stream: the answer ends before the first one, even where it spans tokens."""

from collections.abc import Sequence


class StopStrings:
    """Passes text through, holding back only what may still turn out to begin a stop string.

    However the text is cut into pieces, the output is the text before the stop string that ends
    first (of several that end together, the longest).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """Take the next piece of text; return what may be shown. `found` tells whether to stop."""
        if self.found or not self._stops:
            return "" if self.found else piece
        text = self._held + piece
        matches = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        if matches:
            self.found = True
            self._held = ""
            _, start = min(matches)
            return text[:start]
        certain = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """Return the text still held back: the stream has ended without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
