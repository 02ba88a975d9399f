"""The CDN of the fake Discord."""

import uuid
from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.discord_calls import Upload
from tests.fakes.discord_world import Channel, SentFile
from tests.fakes.wire import endless

if TYPE_CHECKING:
    from tests.fakes.discord_server import DiscordServer

GONE = "This content is no longer available."


class Cdn:
    """Serves attachments to whoever has the signed address.

    Attributes:
        downloads: (attachment id, HTTP status) of each download.
        authorized: Ids of the attachments for which somebody sent a token along.
    """

    def __init__(self, discord: "DiscordServer") -> None:
        self._discord = discord
        self.downloads: list[tuple[str, int]] = []
        self.authorized: list[str] = []

    def add(
        self, name: str, content: bytes, *, mimetype: str, folder: str = "attachments/0"
    ) -> SentFile:
        """An attachment with a signed address."""
        file_id = self._discord.world.new_id()
        signature = f"ex=7fffffff&is=60000000&hm={uuid.uuid4().hex}"
        file = SentFile(
            id=file_id,
            name=name,
            content=content,
            mimetype=mimetype,
            url=f"{self._discord.root}/{folder}/{file_id}/{name}?{signature}",
            size=len(content),
        )
        self._discord.world.files[file_id] = file
        return file

    def keep(self, channel: Channel, upload: Upload) -> SentFile:
        """What the app attached."""
        return self.add(
            upload.name,
            upload.content,
            mimetype=upload.mimetype,
            folder=f"attachments/{channel.id}",
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """GET of an attachment's address."""
        file = self._discord.world.files.get(request.match_info["file"])
        if "Authorization" in request.headers:
            self.authorized.append(request.match_info["file"])
        signed = file is not None and file.url.endswith(f"?{request.query_string}")
        if file is None or not signed or file.served == "gone":
            return self._note(request, web.Response(status=404, text=GONE))
        if file.served == "html":
            page = "<!DOCTYPE html><html><body>Just a moment…</body></html>"
            return self._note(request, web.Response(text=page, content_type="text/html"))
        if file.served == "away":
            return self._note(request, web.Response(status=503))
        if file.served == "redirect":
            to = {"Location": file.redirect_to}
            return self._note(request, web.Response(status=302, headers=to))
        if file.served == "endless":
            self.downloads.append((file.id, 200))
            return await endless(request, file.mimetype)
        answer = web.Response(body=file.content, headers={"Content-Type": file.mimetype})
        return self._note(request, answer)

    def _note(self, request: web.Request, answer: web.Response) -> web.Response:
        self.downloads.append((request.match_info["file"], answer.status))
        self._discord.world.changes.note()
        return answer
