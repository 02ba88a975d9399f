"""What every chat decides about what it hears: is it meant for us, and how is it called."""

from bots.channel_settings import ChannelSettings

EMPTY = "Ask me something: mention me with a question, and I answer from this channel's documents."
NOT_NOW = "I cannot take your question at the moment; please ask again in a few minutes."


def addressed(
    settings: ChannelSettings,
    *,
    calling: bool,
    bot: bool,
    for_others: bool,
    threaded: bool,
    ours: bool,
) -> bool:
    """Whether a message is meant for the assistant.

    Args:
        calling: it calls the assistant, or nobody else is there.
        bot: another bot wrote it.
        for_others: it calls somebody else.
        threaded: it stands in a thread.
        ours: in one that the assistant speaks in.
    """
    if calling:
        return True
    if bot or for_others:
        return False  # two bots would answer each other for ever
    if ours:
        return settings.follow_ups
    return settings.answer_when == "always" and not threaded


def title_of(text: str, *, characters: int) -> str:
    """A question as the name of its thread, in one line of at most so many characters."""
    title = " ".join(text.split())
    return title if len(title) <= characters else title[: characters - 1].rstrip() + "…"
