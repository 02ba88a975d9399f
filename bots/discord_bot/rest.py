"""Calls to Discord's REST API through discord.py: with deadlines, and errors without content.

Why discord.py's HTTP client and not its models: it knows Discord's rate limits and repeats what may
be repeated, while `Messageable.send` keeps every view in memory for ever. Buttons here are found by
their custom id (`bots.discord_bot.custom_ids`), so nothing has to be kept.

Nothing that is sent can show a preview, and nobody is called but who is named: other mentions are
not resolved, and embeds are suppressed. Errors carry Discord's code and nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import aiohttp
import discord
from discord.http import MultipartParameters, Route, handle_message_parameters

from bots.throttle import RetryAfter

logger = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

CALL_S = 60.0
"""Of one call with everything that discord.py waits for and repeats in it; then its job is."""
NOBODY = discord.AllowedMentions.none()
THREAD_ARCHIVED_AFTER_MINUTES: Final = 1440
THREAD_EXISTS = 160004
"""A message has one thread, whose id is the message's."""


class DiscordTrouble(Exception):
    """A call did not succeed."""


class DiscordRefused(DiscordTrouble):
    """Discord answered that it will not do it.

    Attributes:
        code: Discord's own, such as 10008 for an unknown message; 0 where it names none.
        status: of the HTTP answer.
    """

    def __init__(self, what: str, *, status: int, code: int) -> None:
        self.status = status
        self.code = code
        super().__init__(f"Discord refused to {what}: {status} (code {code})")


class DiscordAway(DiscordTrouble):
    """Discord did not answer, or not sensibly; whether it did what was asked is not known."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"Discord did not {what}: {why}")


class RateLimited(DiscordTrouble, RetryAfter):
    """Discord wants to be left alone for longer than a call may wait."""

    def __init__(self, what: str, after_s: float) -> None:
        RetryAfter.__init__(self, after_s)
        self.args = (f"Discord wants a pause of {after_s:.1f} s before it will {what}",)


class DiscordCalls:
    """What the app does at Discord; ids are Discord's, as text.

    All methods raise `DiscordRefused`, `DiscordAway` or `RateLimited`.

    Args of the constructor:
        client: logged in.
        timeout_s: deadline of a call, the pauses that Discord demands included.
    """

    def __init__(self, client: discord.Client, *, timeout_s: float = CALL_S) -> None:
        self._client = client
        self._timeout_s = timeout_s

    @property
    def user_id(self) -> str:
        """Of the app's own user."""
        user = self._client.user
        if user is None:
            raise RuntimeError("the client is not logged in")
        return str(user.id)

    # -- Messages ---------------------------------------------------------------------------------

    async def send(
        self,
        channel_id: str,
        *,
        content: str,
        view: discord.ui.View | None = None,
        reference: str | None = None,
        nonce: str | None = None,
        calls: Sequence[str] = (),
        file: discord.File | None = None,
    ) -> str:
        """Post a message; returns its id.

        Args:
            content: safe Markdown (`bots.discord_bot.markdown`), at most 2,000 characters.
            reference: a message of the channel that it replies to, if that is still there.
            nonce: at most 25 characters; for some minutes a second message of the same nonce is
                the first one, so a post that got no answer may be repeated.
            calls: ids of people, and of roles after `&`, whom mentions in it really call.
            file: an attachment.
        """
        reply = discord.utils.MISSING
        if reference is not None:
            reply = {"message_id": reference, "fail_if_not_exists": False}
        body = handle_message_parameters(
            content=content,
            view=view if view is not None else discord.utils.MISSING,
            file=file if file is not None else discord.utils.MISSING,
            nonce=nonce,
            message_reference=reply,
            allowed_mentions=_only(calls),
            flags=discord.MessageFlags(suppress_embeds=True),
        )
        posted = await self._call(
            "post a message", lambda: self._client.http.send_message(channel_id, params=body)
        )
        return str(posted["id"])

    async def edit(
        self,
        channel_id: str,
        message_id: str,
        *,
        content: str,
        view: discord.ui.View | None = None,
    ) -> None:
        """Change a message of ours; without `view` its buttons go."""
        body = _edited(content, view)
        await self._call(
            "edit a message",
            lambda: self._client.http.edit_message(channel_id, message_id, params=body),
        )

    async def delete(self, channel_id: str, message_id: str) -> None:
        """Delete a message."""
        await self._call(
            "delete a message", lambda: self._client.http.delete_message(channel_id, message_id)
        )

    async def messages(
        self, channel_id: str, *, after: str | None = None, limit: int = 100
    ) -> list[Json]:
        """The messages of a channel or thread as Discord describes them, the oldest first.

        Args:
            after: a message's id; those right after it. None for the newest.
            limit: 1 to 100.
        """
        found = await self._call(
            "list messages",
            lambda: self._client.http.logs_from(channel_id, limit, after=after),
        )
        return sorted((dict(message) for message in found), key=lambda message: int(message["id"]))

    async def typing(self, channel_id: str) -> None:
        """Show for 10 s, or until a message is posted, that one is being written."""
        await self._call("show typing", lambda: self._client.http.send_typing(channel_id))

    async def open_thread(self, channel_id: str, message_id: str, name: str) -> str:
        """Open the thread of a message; returns its id, also where it was open before.

        Args:
            name: 1 to 100 characters.
        """
        try:
            thread = await self._call(
                "open a thread",
                lambda: self._client.http.start_thread_with_message(
                    channel_id,
                    message_id,
                    name=name,
                    auto_archive_duration=THREAD_ARCHIVED_AFTER_MINUTES,
                ),
            )
        except DiscordRefused as error:
            if error.code != THREAD_EXISTS:
                raise
            return message_id
        return str(thread["id"])

    async def direct_channel(self, user_id: str) -> str:
        """The id of the channel of direct messages with somebody."""
        found = await self._call(
            "open direct messages", lambda: self._client.http.start_private_message(user_id)
        )
        return str(found["id"])

    async def roles(self, guild_id: str, user_id: str) -> list[str]:
        """The ids of a member's roles as they are now; refused for somebody who is no member."""
        found = await self._call(
            "tell of a member", lambda: self._client.http.get_member(guild_id, user_id)
        )
        return [str(role) for role in found["roles"]]

    async def in_thread(self, thread_id: str, user_id: str) -> bool:
        """Whether somebody is a member of a thread now."""
        route = Route(
            "GET",
            "/channels/{channel_id}/thread-members/{user_id}",
            channel_id=thread_id,
            user_id=user_id,
        )
        try:
            await self._call("tell of a thread", lambda: self._client.http.request(route))
        except DiscordRefused as error:
            if error.status != 404:
                raise
            return False
        return True

    # -- Interactions, by their token -------------------------------------------------------------

    async def edit_response(
        self,
        application_id: str,
        token: str,
        *,
        content: str,
        view: discord.ui.View | None = None,
        message_id: str = "@original",
    ) -> tuple[str, str]:
        """Change the response to an interaction, or a follow-up; 15 minutes long.

        A deferred response becomes this message.

        Returns:
            The ids of its channel and of itself.
        """
        body = _edited(content, view)
        route = Route(
            "PATCH",
            "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}",
            webhook_id=application_id,
            webhook_token=token,
            message_id=message_id,
        )
        edited = await self._call(
            "edit a response", lambda: self._client.http.request(route, json=body.payload)
        )
        return str(edited["channel_id"]), str(edited["id"])

    async def follow_up(
        self,
        application_id: str,
        token: str,
        *,
        content: str,
        view: discord.ui.View | None = None,
        file: discord.File | None = None,
        ephemeral: bool = False,
    ) -> tuple[str, str]:
        """Say more to an interaction; returns the ids of the message's channel and of itself."""
        body = handle_message_parameters(
            content=content,
            file=file if file is not None else discord.utils.MISSING,
            view=view if view is not None else discord.utils.MISSING,
            allowed_mentions=NOBODY,
            flags=discord.MessageFlags(suppress_embeds=True, ephemeral=ephemeral),
        )
        route = Route(
            "POST",
            "/webhooks/{webhook_id}/{webhook_token}",
            webhook_id=application_id,
            webhook_token=token,
        )
        sent: Json = {"json": body.payload}
        if body.files:
            sent = {"form": body.multipart, "files": body.files}
        posted = await self._call(
            "follow up",
            lambda: self._client.http.request(route, params={"wait": "true"}, **sent),
        )
        return str(posted["channel_id"]), str(posted["id"])

    async def delete_response(
        self, application_id: str, token: str, *, message_id: str = "@original"
    ) -> None:
        """Delete the response to an interaction, or a follow-up."""
        route = Route(
            "DELETE",
            "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}",
            webhook_id=application_id,
            webhook_token=token,
            message_id=message_id,
        )
        await self._call("delete a response", lambda: self._client.http.request(route))

    # -- Calling ----------------------------------------------------------------------------------

    async def _call(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._cancellable(call)
        except discord.RateLimited as error:
            raise RateLimited(what, error.retry_after) from None
        except discord.HTTPException as error:
            if error.status >= 500 or error.status == 429:
                raise DiscordAway(what, f"status {error.status}") from None
            raise DiscordRefused(what, status=error.status, code=error.code) from None
        except TimeoutError:
            raise DiscordAway(what, f"no answer in {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise DiscordAway(what, type(error).__name__) from None

    async def _cancellable(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except asyncio.CancelledError:
            # In a pause of all calls discord.py would never end it if who waits is cancelled.
            self._client.http._global_over.set()
            raise


def _only(calls: Sequence[str]) -> discord.AllowedMentions:
    """Lets exactly these be called."""
    roles = [each.removeprefix("&") for each in calls if each.startswith("&")]
    people = [each for each in calls if not each.startswith("&")]
    return discord.AllowedMentions(
        everyone=False,
        replied_user=False,
        users=[discord.Object(int(person)) for person in people],
        roles=[discord.Object(int(role)) for role in roles],
    )


def _edited(content: str, view: discord.ui.View | None) -> MultipartParameters:
    """The body of an edit; no view takes buttons away."""
    return handle_message_parameters(
        content=content,
        view=view,
        allowed_mentions=NOBODY,
        flags=discord.MessageFlags(suppress_embeds=True),
    )
