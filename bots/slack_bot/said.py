"""What people said in Slack, as plain text: the reverse of `mrkdwn`."""

import re

_MARKED = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")


def plain_text(text: str, *, without: str | None = None) -> str:
    """Slack's text as its author sees it: links and names readable, entities resolved.

    Args:
        without: a user whose mentions are left out, such as the app's own.
    """

    def shown(found: re.Match[str]) -> str:
        target, label = found[1], found[2]
        if target.startswith("@"):
            return "" if target == f"@{without}" else f"@{label or target[1:]}"
        if target.startswith("#"):
            return f"#{label or target[1:]}"
        if target.startswith("!"):
            return label or f"@{target[1:].partition('^')[0]}"
        if label and label != target.removeprefix("mailto:"):
            return f"{label} ({target})"
        return target.removeprefix("mailto:")

    text = _MARKED.sub(shown, text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


def mentions(text: str, user: str) -> bool:
    """Whether a text mentions a user."""
    return f"<@{user}>" in text or f"<@{user}|" in text


def mentions_others(text: str, user: str) -> bool:
    """Whether a text begins by calling somebody else, so that it is meant for them."""
    found = re.match(r"\s*<(?:@|!subteam\^)([A-Z0-9]+)", text)
    return found is not None and found[1] != user
