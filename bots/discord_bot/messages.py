"""What an answer looks like in Discord: texts within 2,000 characters, and buttons.

Buttons stand under the last message of an answer and carry all they need in their ids, so they work
after a restart. https://docs.discord.com/developers/resources/message#create-message
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import discord

from bots.discord_bot import custom_ids
from bots.discord_bot.markdown import MARKDOWN, render, rendered_length, small_print, units
from bots.messages import Answer
from bots.screens import Links, Reach
from bots.splitting import split_markdown
from bots.wording import CHOICES, FINISH_NOTES, SIDES, VOTE, citation_lines, in_chat
from feedback import ComparisonId
from storage.identity import MessageId

MAX_CHARACTERS = 2_000
"""Of a message's content; counted in UTF-16 units, which are never fewer than Discord's."""
NOTE_CHARACTERS = 400
"""Kept free for a note above or below a text."""
MAX_SOURCES = 50
MAX_URL_CHARACTERS = 500
"""A source with a longer address is named without it."""
NOTHING = "…"
"""Discord takes no empty message."""


@dataclass(frozen=True, kw_only=True)
class Button:
    """A button by its id."""

    label: str
    custom_id: str
    emoji: str | None = None
    style: discord.ButtonStyle = discord.ButtonStyle.secondary


@dataclass(frozen=True, kw_only=True)
class Post:
    """One message: `content` is safe Markdown.

    Attributes:
        calls: ids of people, and of roles after `&`, whom its mentions really call; nobody else.
    """

    content: str
    buttons: tuple[Button, ...] = ()
    calls: tuple[str, ...] = ()

    def view(self) -> discord.ui.View | None:
        """The buttons as discord.py sends them; five in a row."""
        if not self.buttons:
            return None
        view = discord.ui.View(timeout=None)
        for button in self.buttons:
            view.add_item(
                discord.ui.Button(
                    label=button.label,
                    custom_id=button.custom_id,
                    emoji=button.emoji,
                    style=button.style,
                )
            )
        return view


def answer_posts(answer: Answer, *, links: Links, reach: Reach) -> list[Post]:
    """An answer as one message, or several where it is long; the last has sources and buttons."""
    texts = [render(part) for part in _parts(in_chat(answer.text, MARKDOWN), MAX_CHARACTERS)]
    posts = [Post(content=text) for text in packed(texts, _foot(answer, links))]
    buttons = rating_buttons(answer)
    if reach.asks_again:
        buttons.append(again_button(answer.message_id, len(posts) - 1))
    if reach.calls_people:
        buttons.append(Button(label="I need a human", custom_id=custom_ids.human(answer.id)))
    if reach is Reach.PRIVATE:
        buttons.append(
            Button(
                label="Share with channel",
                custom_id=custom_ids.share(answer.id),
                style=discord.ButtonStyle.primary,
            )
        )
    return [*posts[:-1], replace(posts[-1], buttons=tuple(buttons))]


def rating_buttons(answer: Answer) -> list[Button]:
    """Thumbs."""
    return [
        Button(label="Good answer", emoji="👍", custom_id=custom_ids.up(answer.id)),
        Button(label="Bad answer", emoji="👎", custom_id=custom_ids.down(answer.id)),
    ]


def again_button(message_id: MessageId, part: int) -> Button:
    """Asks for another answer.

    Args:
        part: of the answer, where the button stands.
    """
    return Button(label="Answer again", custom_id=custom_ids.again(message_id, part))


def progress_post(text: str, message_id: MessageId, *, part: int = 0, title: str = "") -> Post:
    """An answer that is being written, or what is done before it, with a button that stops it.

    Args:
        text: safe Markdown, at most 2,000 characters with the title.
        part: of the answer, where the button stands.
        title: safe Markdown above it.
    """
    stop = Button(label="Stop", custom_id=custom_ids.stop(message_id, part))
    return Post(content="\n".join(filter(None, [title, text])) or NOTHING, buttons=(stop,))


def written(text: str) -> str:
    """Markdown as far as it is known, safe; only its last part where it is long."""
    return render("".join(_parts(text, MAX_CHARACTERS - NOTE_CHARACTERS)[-1:]))


def notice_post(text: str, *, under: str = "") -> Post:
    """A sentence of ours; it may quote something, so it is made safe.

    Args:
        under: Markdown that it stands below, only its last part where it is long.
    """
    said = render("".join(_parts(text, MAX_CHARACTERS // 2)[:1]))
    above = render("".join(_parts(under, MAX_CHARACTERS - units(said) - 2)[-1:])) if under else ""
    return Post(content="\n\n".join(filter(None, [above, said])) or NOTHING)


def compared_posts(answer: Answer, *, side: int, links: Links) -> list[Post]:
    """One side of a comparison, complete and without buttons or models, in one message or more."""
    title = MARKDOWN.bold(SIDES[side])
    parts = _parts(answer.text, MAX_CHARACTERS - units(title) - 1) or [NOTHING]
    texts = [f"{title}\n{render(part)}" for part in parts]
    return [Post(content=text) for text in packed(texts, _foot(answer, links))]


def vote_post(comparison_id: ComparisonId) -> Post:
    """What stands under both answers: the vote. It names no models."""
    buttons = (
        Button(label=label, custom_id=custom_ids.compare(winner, comparison_id))
        for winner, label in CHOICES.items()
    )
    return Post(content=VOTE, buttons=tuple(buttons))


def packed(texts: Sequence[str], lines: Iterable[str]) -> list[str]:
    """The texts, and the lines below the last one as long as they fit, then in further messages."""
    *full, last = texts or [""]
    for line in lines:
        longer = f"{last}\n{line}" if last else line
        if units(longer) <= MAX_CHARACTERS:
            last = longer
        else:
            full.append(last)
            last = line
    return [*full, last or NOTHING]


def _parts(text: str, limit: int) -> list[str]:
    return split_markdown(text, limit=limit, length=rendered_length)


def _foot(answer: Answer, links: Links) -> list[str]:
    """What stands under an answer: its sources, how it ended. Only here is small print."""
    short = {each: url for each, url in links.items() if len(url) <= MAX_URL_CHARACTERS}
    lines = citation_lines(answer, links=short, dialect=MARKDOWN)[:MAX_SOURCES]
    if note := FINISH_NOTES.get(answer.finish_reason):
        lines.append(MARKDOWN.italic(note))
    return [small_print(line) for line in lines if units(line) < MAX_CHARACTERS - 3]
