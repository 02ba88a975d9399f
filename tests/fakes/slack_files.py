"""The file host of the fake Slack."""

from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.slack_blocks import Json, SlackError
from tests.fakes.slack_world import SlackFile, Workspace
from tests.fakes.wire import endless

if TYPE_CHECKING:
    from tests.fakes.slack_server import SlackServer

LOGIN_PAGE = "<!DOCTYPE html><html><head><title>Sign in | Slack</title></head><body>…</body></html>"


class FileHost:
    """Serves files to good tokens, and a login page with HTTP 200 to everybody else."""

    def __init__(self, slack: "SlackServer") -> None:
        self._slack = slack
        self._uploads: dict[str, tuple[SlackFile, int]] = {}
        self.downloads: list[tuple[str, int]] = []
        """(file id, HTTP status) of each download."""

    def add(
        self, name: str, content: bytes, *, mimetype: str, user: str, team_id: str
    ) -> SlackFile:
        """A hosted file."""
        file_id = self._slack.world.new_id("F")
        file = SlackFile(
            id=file_id,
            name=name,
            content=content,
            mimetype=mimetype,
            user=user,
            team_id=team_id,
            url=f"{self._slack.root}/files-pri/{team_id}-{file_id}/file",
            permalink=f"{self._slack.root}/files/{user}/{file_id}/file",
        )
        self._slack.world.files[file_id] = file
        return file

    async def download(self, request: web.Request) -> web.StreamResponse:
        """GET of `url_private`."""
        file = self._slack.world.files.get(request.match_info["id"])
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = self._slack.world.tokens.get(bearer)
        allowed = token is not None and not token.revoked and "files:read" in token.scopes
        if file is None or file.deleted:
            return self._note(request, web.Response(status=404))
        if not allowed or file.served == "html":
            page = web.Response(text=LOGIN_PAGE, content_type="text/html")
            return self._note(request, page)
        if file.served == "away":
            return self._note(request, web.Response(status=503))
        if file.served == "redirect":
            return self._note(
                request, web.Response(status=302, headers={"Location": file.redirect_to})
            )
        if file.served == "endless":
            self.downloads.append((file.id, 200))
            return await endless(request, file.mimetype)
        answer = web.Response(body=file.content, headers={"Content-Type": file.mimetype})
        return self._note(request, answer)

    def _note(self, request: web.Request, answer: web.Response) -> web.Response:
        self.downloads.append((request.match_info["id"], answer.status))
        self._slack.world.changes.note()
        return answer

    # ------------------------------------------------------------ uploads

    def begin_upload(self, name: str, length: int, workspace: Workspace) -> Json:
        """files.getUploadURLExternal."""
        if length <= 0:
            raise SlackError("invalid_arguments", "length must be positive")
        file = self.add(
            name,
            b"",
            mimetype="application/octet-stream",
            user=workspace.bot_user_id,
            team_id=workspace.id,
        )
        self._uploads[file.id] = (file, length)
        return {"upload_url": f"{self._slack.root}/upload/v1/{file.id}", "file_id": file.id}

    async def upload(self, request: web.Request) -> web.Response:
        """POST to the upload address."""
        file, length = self._uploads.get(request.match_info["id"], (None, 0))
        content = await request.read()
        if file is None or len(content) != length:
            return web.Response(status=400, text="bad upload")
        file.content = content
        return web.Response(text=f"OK - {length}")

    def complete_upload(self, file_id: str) -> SlackFile:
        """files.completeUploadExternal."""
        file, length = self._uploads.pop(file_id, (None, 0))
        if file is None or len(file.content) != length:
            raise SlackError("file_not_found")
        return file
