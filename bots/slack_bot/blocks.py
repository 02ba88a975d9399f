"""What an answer looks like in Slack: texts, blocks, and the ids of everything that can be clicked.

Every message has its whole text as `text` too, so that one whose blocks Slack refuses is posted
without them and nothing is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bots.messages import Answer
from bots.screens import Links, Reach
from bots.slack_bot.mrkdwn import MRKDWN, escape, escaped_length, mrkdwn
from bots.splitting import split_markdown
from bots.wording import CHOICES, FINISH_NOTES, SIDES, VOTE, citation_lines, in_chat
from feedback import ComparisonId
from storage.identity import AnswerId, MessageId

Block = dict[str, Any]

FEEDBACK_ACTION = "parley_feedback"
STOP_ACTION = "parley_stop"
REGENERATE_ACTION = "parley_regenerate"
SHARE_ACTION = "parley_share"
NEED_HUMAN_ACTION = "parley_need_human"
COMPARE_ACTIONS: Final = {
    "left": "parley_compare_left",
    "right": "parley_compare_right",
    "tie": "parley_compare_tie",
    "both_bad": "parley_compare_both_bad",
}

MAX_TEXT_CHARACTERS = 4_000
"""Of `text` in chat.update; recommended for chat.postMessage, which cuts at 40,000."""
PART_CHARACTERS = 3_000
"""Of one message of a long answer, escaped. Below every limit of Slack's: 4,000 of a text, 3,000 of
a section, 12,000 over all markdown blocks and in a stream."""
STREAM_CHARACTERS = 11_000
"""Of a stream, escaped; Slack takes 12,000 of markdown."""
CONTEXT_ELEMENTS = 10
MAX_CITATIONS = 100
"""Shown under an answer; 10 context blocks of the 50 blocks of a message."""


@dataclass(frozen=True, kw_only=True)
class Post:
    """One message as Slack gets it: `text` is mrkdwn, escaped, and says all that `blocks` say."""

    text: str
    blocks: Sequence[Block] = field(default=())

    def arguments(self) -> dict[str, Any]:
        """For the methods that post and update; an empty list removes a message's blocks."""
        return {"text": self.text, "blocks": list(self.blocks)}

    def below(self, sentence: str) -> "Post":
        """The same below a sentence of ours."""
        note = MRKDWN.italic(sentence)
        blocks = [context_block([note]), *self.blocks] if self.blocks else ()
        return Post(text=shortened(f"{note}\n{self.text}"), blocks=blocks)


def answer_posts(answer: Answer, *, links: Links, reach: Reach) -> list[Post]:
    """An answer as one message, or several where it is long; the last has sources and buttons."""
    parts = split_markdown(
        in_chat(answer.text, MRKDWN), limit=PART_CHARACTERS, length=escaped_length
    ) or [""]
    posts = [Post(text=mrkdwn(part), blocks=[markdown_block(part)]) for part in parts[:-1]]
    text = "\n\n".join(filter(None, [mrkdwn(parts[-1]), *_cited(answer, links)]))
    last = [markdown_block(parts[-1])] if parts[-1].strip() else []
    under = answer_foot(answer, links=links, reach=reach)
    posts.append(Post(text=shortened(text), blocks=[*last, *under]))
    return posts


def answer_foot(answer: Answer, *, links: Links, reach: Reach) -> list[Block]:
    """What stands under an answer: its sources, how it ended, its buttons."""
    buttons = []
    if reach is Reach.PRIVATE:
        buttons.append(button("Share with channel", SHARE_ACTION, str(answer.id), style="primary"))
    if reach.asks_again:
        buttons.append(button("Answer again", REGENERATE_ACTION, str(answer.message_id)))
    if reach.calls_people:
        buttons.append(button("I need a human", NEED_HUMAN_ACTION, str(answer.id)))
    actions = [{"type": "actions", "elements": buttons}] if buttons else []
    return [*_sources(answer, links), feedback_block(answer.id), *actions]


def _sources(answer: Answer, links: Links) -> list[Block]:
    """The sources, and how the answer ended."""
    lines = _cited(answer, links)
    blocks = [
        context_block(lines[start : start + CONTEXT_ELEMENTS])
        for start in range(0, len(lines), CONTEXT_ELEMENTS)
    ]
    if note := FINISH_NOTES.get(answer.finish_reason):
        blocks.append(context_block([note]))
    return blocks


def feedback_block(answer_id: AnswerId) -> Block:
    """Thumbs; the value says which and under what."""
    return {
        "type": "context_actions",
        "elements": [
            {
                "type": "feedback_buttons",
                "action_id": FEEDBACK_ACTION,
                "positive_button": {
                    "text": _plain("Good answer"),
                    "accessibility_label": "Rate this answer as good",
                    "value": f"up:{answer_id}",
                },
                "negative_button": {
                    "text": _plain("Bad answer"),
                    "accessibility_label": "Rate this answer as bad and say why",
                    "value": f"down:{answer_id}",
                },
            }
        ],
    }


def progress_post(text: str, message_id: MessageId, *, title: str = "") -> Post:
    """An answer that is being written, or what is done before it, with a button that stops it.

    Args:
        text: Markdown as far as it is known; only its last part where it is long.
        title: mrkdwn above it.
    """
    part = "".join(split_markdown(text, limit=PART_CHARACTERS, length=escaped_length)[-1:])
    stop = {"type": "actions", "elements": [stop_button(message_id)]}
    above = [section(title)] if title else []
    body = [markdown_block(part)] if part.strip() else []
    said = "\n".join(filter(None, [title, mrkdwn(part)]))
    return Post(text=shortened(said), blocks=[*above, *body, stop])


def stop_button(message_id: MessageId) -> Block:
    """Ends an answer that is being written."""
    return button("Stop", STOP_ACTION, str(message_id))


def notice_post(text: str, *, under: str = "") -> Post:
    """A plain sentence of ours; it may quote something, so it is escaped.

    Args:
        under: Markdown that it stands below, only its last part where it is long.
    """
    said = escape(text)
    parts = split_markdown(under, limit=PART_CHARACTERS, length=escaped_length)
    if not parts:
        return Post(text=shortened(said))
    blocks = [markdown_block(parts[-1]), context_block([said])]
    return Post(text=shortened(f"{mrkdwn(parts[-1])}\n\n{said}"), blocks=blocks)


def compared_posts(answer: Answer, *, side: int, links: Links) -> list[Post]:
    """One side of a comparison, complete and without buttons or models; the last has its sources.

    More messages than one only beyond what a message holds: the sides should stand side by side.
    """
    parts = split_markdown(answer.text, limit=STREAM_CHARACTERS, length=escaped_length) or ["…"]
    title = MRKDWN.bold(SIDES[side])
    posts = [
        Post(
            text=shortened(f"{title}\n{mrkdwn(part)}"),
            blocks=[section(title), markdown_block(part)],
        )
        for part in parts
    ]
    last = posts.pop()
    return [*posts, Post(text=last.text, blocks=[*last.blocks, *_sources(answer, links)])]


def vote_post(comparison_id: ComparisonId) -> Post:
    """What stands under both answers: the vote. It names no models."""
    buttons = [
        button(label, COMPARE_ACTIONS[winner], str(comparison_id))
        for winner, label in CHOICES.items()
    ]
    return Post(text=VOTE, blocks=[section(VOTE), {"type": "actions", "elements": buttons}])


# -- Parts ----------------------------------------------------------------------------------------


def markdown_block(text: str) -> Block:
    """A block of Markdown; `text` is escaped here."""
    return {"type": "markdown", "text": escape(text)}


def section(text: str) -> Block:
    """A block of mrkdwn that is escaped already."""
    return {"type": "section", "text": _verbatim(text)}


def context_block(texts: Sequence[str]) -> Block:
    """Small print: up to 10 texts of mrkdwn that are escaped already."""
    return {"type": "context", "elements": [_verbatim(text) for text in texts]}


def button(text: str, action_id: str, value: str, *, style: str | None = None) -> Block:
    """A button; Slack takes 75 characters of text and 2,000 of value."""
    block: Block = {
        "type": "button",
        "action_id": action_id,
        "text": _plain(text),
        "value": value,
    }
    return {**block, "style": style} if style else block


def shortened(text: str) -> str:
    """`text` within what chat.update takes, cut between words."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return text[: MAX_TEXT_CHARACTERS - 2].rsplit(None, 1)[0] + " …"


def _cited(answer: Answer, links: Links) -> list[str]:
    return citation_lines(answer, links=links, dialect=MRKDWN)[:MAX_CITATIONS]


def _verbatim(text: str) -> Block:
    """Mrkdwn in which Slack finds no addresses by itself, only the links that are written out."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}
