"""The Gradio page: its layout, and which of its controls calls what.

Every handler returns at once (a turn runs in the background), so none of them uses Gradio's queue,
whose default would serve one person at a time.
"""

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from bots.web import leaderboard
from bots.web.channel import Channel
from bots.web.people import MAX_NAME_CHARS, person_name
from bots.web.shelf import Shelf

MAX_QUESTION_CHARS = 4000
"""About a thousand tokens: half of the default model's context."""
STALE_UPLOAD_S = 3600
"""Uploads are removed as soon as they are stored; this sweeps what a crash left behind."""

ASSETS = Path(__file__).parent
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
THEME = gr.themes.Default(
    # Plain names: a theme's own fonts would be fetched from Google.
    font=_FONT,
    font_mono=("ui-monospace", "monospace"),
    primary_hue="blue",
    neutral_hue="slate",
)
_REMEMBER_NAME = """(name) => {
    name = (name || "").trim();
    if (name) localStorage.setItem("parley-name", name);
    window.parley.named(name);
}"""
_RECALL_NAME = """() => {
    const guest = `Guest ${10 + Math.floor(Math.random() * 90)}`;
    const name = localStorage.getItem("parley-name") || guest;
    localStorage.setItem("parley-name", name);
    window.parley.named(name);
    return name;
}"""
_RANKING = f'<a href="{leaderboard.PATH}">Which model people prefer</a>'
_WITH_THREAD = "(thread, name, question) => [window.parley.thread, name, question]"

Events = dict[str, Any]


def build_page(*, channel: Channel, shelf: Shelf, upload_bytes: int) -> Any:
    """Lay out the page, a `gr.Blocks`.

    Args:
        channel: answers what people do in the transcript.
        shelf: answers what people do with documents.
        upload_bytes: largest file that a browser may send.
    """
    quiet: Events = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    with (
        gr.Blocks(
            title="Parley",
            analytics_enabled=False,
            fill_width=True,
            delete_cache=(STALE_UPLOAD_S, STALE_UPLOAD_S),
        ) as page,
        gr.Row(elem_id="parley"),
    ):
        with gr.Column(elem_id="side", scale=0, min_width=280):
            gr.HTML("<h1>Parley</h1>", elem_id="brand", js_on_load=None, apply_default_css=False)
            upload = gr.UploadButton(
                "Add documents", file_count="multiple", type="filepath", elem_id="upload"
            )
            for part in ("documents", "threads"):
                gr.HTML("", elem_id=part, js_on_load=None, apply_default_css=False)
            gr.HTML(_RANKING, elem_id="ranking", js_on_load=None, apply_default_css=False)
            gr.HTML(
                _asset("consent.html"), elem_id="consent", js_on_load=None, apply_default_css=False
            )
        with gr.Column(elem_id="main"):
            _transcript(channel, shelf, upload_bytes)
            with gr.Row(elem_id="composer"):
                name = gr.Textbox(
                    label="Your name", max_length=MAX_NAME_CHARS, max_lines=1, scale=0
                )
                question = gr.Textbox(
                    label="Question",
                    placeholder="Ask about the documents of this channel…",
                    max_length=MAX_QUESTION_CHARS,
                    max_lines=8,
                    submit_btn="Ask",
                    scale=1,
                )
                thread = gr.Textbox(visible="hidden")
        page.load(None, None, name, js=_RECALL_NAME, **quiet)
        name.change(None, name, None, js=_REMEMBER_NAME, **quiet)
        question.submit(
            _ask(channel),
            [thread, name, question],
            question,
            js=_WITH_THREAD,
            trigger_mode="multiple",
            **quiet,
        )
        upload.upload(
            _upload(shelf), upload, upload, preprocess=False, trigger_mode="multiple", **quiet
        )
    return page


def _transcript(channel: Channel, shelf: Shelf, upload_bytes: int) -> None:
    """The live part: an empty box that `page.js` fills, and the functions that its buttons call."""

    async def new_thread(data: object) -> str:
        return channel.new_thread()

    async def stop(data: list[str]) -> None:
        channel.stop(data[1])

    async def retry(data: list[str]) -> None:
        thread_ref, key, _ = data
        await channel.retry(key, thread_ref=thread_ref)

    async def again(data: list[str]) -> None:
        thread_ref, key, author = data
        await channel.ask_again(key, thread_ref=thread_ref, author=person_name(author))

    async def remove(document_id: str) -> None:
        await shelf.remove(document_id)

    async def dismiss(name: str) -> None:
        shelf.dismiss(name)

    gr.HTML(
        "",
        elem_id="transcript-box",
        html_template=_asset("frame.html"),
        js_on_load=_asset("page.js"),
        apply_default_css=False,
        server_functions=[new_thread, stop, retry, again, remove, dismiss],
        limit_bytes=upload_bytes,
    )


def _ask(channel: Channel) -> Callable[[str, str, str], Awaitable[str]]:
    async def ask(thread: str, name: str, question: str) -> str:
        """Take a question; returns what stays in the box."""
        text = question.strip()
        if text:
            await channel.ask(
                text[:MAX_QUESTION_CHARS], thread_ref=thread, author=person_name(name)
            )
        return ""

    return ask


def _upload(shelf: Shelf) -> Callable[[list[dict[str, Any]] | None], Awaitable[None]]:
    folder = Path(get_upload_folder()).resolve()

    async def upload(files: list[dict[str, Any]] | None) -> None:
        """Store uploads and remove Gradio's copies of them.

        The payload comes unprocessed: Gradio's own processing would lose the files' real names, and
        leave an empty temporary file behind for each.
        """
        for file in files or []:
            path = _inside(folder, file["path"])
            # The same file from two browsers at once has one path, and the first one removes it.
            with contextlib.suppress(FileNotFoundError):
                try:
                    await shelf.add(file.get("orig_name") or path.name, path)
                finally:
                    path.unlink()
                    path.parent.rmdir()

    return upload


def _inside(folder: Path, path: str) -> Path:
    """The path of an upload; a request made by hand could name any other file."""
    resolved = Path(path).resolve()
    if not resolved.is_relative_to(folder):
        raise gr.Error("This is not an upload.")
    return resolved


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
