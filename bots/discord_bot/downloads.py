"""Attachments, from Discord's own hosts and from nowhere else; no token goes along."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import discord

from bots import downloads
from bots.settings import DiscordSettings
from storage.errors import DocumentRejected
from storage.jobs import RetryLater

ELSEWHERE = "It lies outside of Discord, and I read only files that Discord keeps. Upload it here."
GONE = "Discord no longer has this file. Please upload it again."


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A file as Discord describes it; nothing of it is believed.

    Attributes:
        id: Discord's.
        url: where its bytes are, for a day or so.
        bytes: its size by Discord's account.
    """

    id: str
    name: str
    url: str
    bytes: int
    media_type: str

    @classmethod
    def of(cls, attachment: discord.Attachment) -> "Attached":
        """What discord.py knows of it; a title is how people called it."""
        return cls(
            id=str(attachment.id),
            name=attachment.title or attachment.filename or "unnamed",
            url=attachment.url,
            bytes=attachment.size,
            media_type=attachment.content_type or "",
        )

    @classmethod
    def uploaded(cls, interaction: discord.Interaction, file_id: str) -> "Attached | None":
        """A file that came with a form, as the form's interaction describes it."""
        data: Mapping[str, Any] = interaction.data or {}
        resolved = data.get("resolved") or {}
        found = (resolved.get("attachments") or {}).get(file_id)
        if found is None:
            return None
        return cls(
            id=file_id,
            name=str(found.get("title") or found.get("filename") or "unnamed"),
            url=str(found.get("url") or ""),
            bytes=int(found.get("size") or 0),
            media_type=str(found.get("content_type") or ""),
        )


def download(
    file: Attached, *, settings: DiscordSettings, limit_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The bytes of an attachment, as they come.

    Raises:
        DocumentRejected: it cannot be had; the reason is for the person who attached it.
        RetryLater: not now.
    """
    url = downloads.checked_url(
        file.url,
        hosts=settings.cdn_hosts,
        api_url=settings.api_root,
        own_domains=("discord.com", "discordapp.com"),
        refusal=ELSEWHERE,
    )
    return downloads.download(
        url,
        headers={},
        announced_bytes=file.bytes,
        limit_bytes=limit_bytes,
        check=partial(_check, file),
    )


def _check(file: Attached, response: aiohttp.ClientResponse) -> None:
    if response.status != 200:  # its address is signed, and the signature ends
        raise DocumentRejected(GONE)
    if response.content_type == "text/html" and not file.media_type.startswith("text/html"):
        raise RetryLater  # a page of the network in between, which lets through later
