"""The terminal's verbs: `ask`, `search`, `ingest`, `documents`, `models`.

Data goes to stdout, talk to stderr; progress lines only where stderr is a terminal. `ingest`
returns 1 when any file failed, a missing part of the service 69.
"""

import argparse
import asyncio
import contextlib
import getpass
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from bots import replies
from bots.assistant import embed_queries
from bots.errors import InputUnusable, ServiceMissing, TurnFailed
from bots.messages import Answer, Answered, Question, TextDelta, place_in_document
from bots.settings import Settings
from bots.workplace import PLACE, Workplace, engine_client, open_workplace
from storage.documents import Document, Owner
from storage.errors import DocumentNotFound, DocumentRejected, StorageUnavailable
from storage.identity import Audience, DocumentId
from storage.jobs import worker_count
from storage.search import search

EXIT_OK = 0
EXIT_FAILED = 1
POLL_INTERVAL_S = 0.25
"""How often `ingest` looks how far the worker is."""
WORKER_PATIENCE_S = 15.0
"""A worker that restarts is back within this; longer without one, waiting is pointless."""
NO_WORKER = (
    "No worker is running, so files are stored but not read. Start everything with `parley up`, or "
    "only the worker with `parley worker`."
)


def add_verbs(verbs: Any) -> None:
    """Add the verbs to the command line."""
    add = _verb(verbs, "ask", _ask, "ask a question about the documents")
    add.add_argument("question", nargs="+", help="the question")
    add.add_argument("--thread", help="continue the conversation of this name; default: a new one")
    add = _verb(verbs, "search", _search, "find passages without asking the model")
    add.add_argument("query", nargs="+", help="what to look for")
    add.add_argument("--limit", type=int, default=8, help="most hits, 1 to 50 (default 8)")
    add = _verb(verbs, "ingest", _ingest, "add files, and wait until they are searchable")
    add.add_argument("paths", nargs="+", metavar="FILE|DIR|GLOB", help="what to add")
    add.add_argument("--no-wait", action="store_true", help="return once the files are stored")
    add.add_argument(
        "--owner",
        choices=("channel", "workspace", "member"),
        default="channel",
        help="who may read them: the channel (default), everybody, or only you",
    )
    add = _verb(verbs, "documents", _documents, "list, show or remove documents")
    add.add_argument("action", nargs="?", choices=("list", "show", "remove"), default="list")
    add.add_argument("names", nargs="*", metavar="NAME|ID", help="for show and remove")
    add = verbs.add_parser("models", help="list the models that the engine serves")
    add.add_argument("--json", action="store_true", help="print one JSON object")
    add.set_defaults(run=_models)


def _verb(verbs: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--channel", default=PLACE["channel"], help="channel to act in (default: the web page's)"
    )
    parser.add_argument("--as", dest="member", default=None, help="who you are (default: the user)")
    parser.set_defaults(run=run)
    return parser


# -- ask, search ----------------------------------------------------------------------------------


async def _ask(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        audience = await _audience(workplace, args)
        question = Question(
            text=" ".join(args.question),
            audience=audience,
            thread_ref=args.thread or f"terminal-{uuid4().hex}",
            message_ref=f"terminal-{uuid4().hex}",
            author_id=audience.member_id,
        )
        try:
            answer = await _follow(workplace, question, quiet=args.json)
        except TurnFailed as failure:
            if failure.reply.retryable:
                raise
            print(failure.reply.text, file=sys.stderr)
            return EXIT_FAILED
    if args.json:
        _print_json(
            {
                "answer_id": str(answer.id),
                "answer": answer.text,
                "found": answer.found,
                "citations": [_plain(asdict(citation)) for citation in answer.citations],
                "model": answer.model,
                "finish_reason": answer.finish_reason,
                "timings_ms": {
                    name.removesuffix("_ms"): round(value, 1)
                    for name, value in asdict(answer.timings).items()
                },
            }
        )
    return EXIT_OK


async def _follow(workplace: Workplace, question: Question, *, quiet: bool) -> Answer:
    """Print the answer as it comes, then its sources."""
    shown = ""
    async with contextlib.aclosing(workplace.assistant.answer(question)) as events:
        async for event in events:
            if isinstance(event, TextDelta) and not quiet:
                shown += event.text
                print(event.text, end="", flush=True)
            if isinstance(event, Answered):
                answer = event.answer
    if not quiet:
        if shown != answer.text:
            # What was streamed cannot be taken back: the stored text stands below it.
            print(f"\n\n{answer.text}" if shown else answer.text, end="")
        print()
        for citation in answer.citations:
            place = place_in_document(page=citation.page, heading=citation.heading)
            where = f"{citation.document}, {place}" if place else citation.document
            quote = " ".join(citation.quote.split())
            print(f"\n[{citation.number}] {where}\n    “{quote}”")
    return answer


async def _search(args: argparse.Namespace, settings: Settings) -> int:
    if not 1 <= args.limit <= 50:
        raise InputUnusable("--limit must be 1 to 50.")
    query = " ".join(args.query)
    async with open_workplace(settings) as workplace:
        audience = await _audience(workplace, args)
        vector = (await embed_queries(workplace.engine, [query]))[0]
        hits = await search(
            workplace.pool,
            query=query,
            vector=vector,
            audience=audience,
            limit=args.limit,
            settings=settings.search,
        )
    if args.json:
        _print_json({"hits": [_plain(asdict(hit)) for hit in hits]})
    for hit in [] if args.json else hits:
        place = place_in_document(page=hit.page, heading=hit.heading)
        where = f"{hit.document}, {place}" if place else hit.document
        print(f"{hit.score:.2f}  {where}\n      {' '.join(hit.text.split())[:300]}")
    if not hits:
        print(replies.NOT_FOUND, file=sys.stderr)
    return EXIT_OK


# -- ingest ---------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Upload:
    """One file on its way; `failure` where it got no further than here."""

    path: str
    document: Document | None = None
    failure: str | None = None

    @property
    def settled(self) -> bool:
        return self.document is None or self.document.status in ("ready", "failed")

    @property
    def failed(self) -> bool:
        return self.document is None or self.document.status == "failed"

    @property
    def reason(self) -> str | None:
        return self.failure if self.document is None else self.document.reason

    async def refresh(self, workplace: Workplace, *, audience: Audience) -> None:
        """Look how far the worker is."""
        if self.document is None:
            return
        try:
            self.document = await workplace.documents.get(self.document.id, audience=audience)
        except DocumentNotFound:
            self.document, self.failure = None, "It was removed meanwhile."

    def data(self) -> dict[str, object]:
        """The entry of `--json`."""
        return {
            "path": self.path,
            "document_id": str(self.document.id) if self.document else None,
            "status": self.document.status if self.document else "failed",
            "reason": self.reason,
            "chunks": self.document.chunks if self.document else 0,
        }


async def _ingest(args: argparse.Namespace, settings: Settings) -> int:
    async with open_workplace(settings) as workplace:
        if not args.no_wait and await worker_count(workplace.pool) == 0:
            # Before any file is stored, so that the same command works once there is one.
            raise ServiceMissing(NO_WORKER)
        audience = await _audience(workplace, args)
        uploads = []
        for path in _files(args.paths):
            uploads.append(await _store(workplace, path, audience=audience, owner=args.owner))
        if not args.no_wait:
            await _wait(workplace, uploads, audience=audience)
    if args.json:
        _print_json({"files": [upload.data() for upload in uploads]})
    else:
        for upload in uploads:
            print(_line(upload))
    return EXIT_FAILED if any(upload.failed for upload in uploads) else EXIT_OK


def _files(patterns: Sequence[str]) -> Iterator[Path]:
    """The files that are meant, each once; what does not exist stays, to be reported."""
    seen: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern)
        matches = [path]
        if not path.exists() and glob.has_magic(pattern):
            matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))] or [
                path
            ]
        for match in matches:
            inside = sorted(match.rglob("*")) if match.is_dir() else [match]
            for file in inside:
                hidden = match.is_dir() and _is_hidden(file.relative_to(match))
                if not file.is_dir() and not hidden and file not in seen:
                    seen.add(file)
                    yield file


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


async def _store(workplace: Workplace, path: Path, *, audience: Audience, owner: Owner) -> _Upload:
    try:
        if problem := await asyncio.to_thread(_problem, path):
            return _Upload(path=str(path), failure=problem)
        document = await workplace.documents.add(path.name, path, audience=audience, owner=owner)
        return _Upload(path=str(path), document=document)
    except DocumentRejected as error:
        return _Upload(path=str(path), failure=error.reason)
    except OSError as error:
        return _Upload(path=str(path), failure=f"It cannot be read: {error.strerror}.")


def _problem(path: Path) -> str | None:
    if path.is_file():
        return None
    return "It is not a regular file." if path.exists() else "There is no such file."


async def _wait(workplace: Workplace, uploads: Sequence[_Upload], *, audience: Audience) -> None:
    """Follow the uploads until each is ready or failed, or until no worker is left.

    Raises:
        ServiceMissing: the worker went away; the files stay queued.
    """
    progress = _Progress(uploads)
    loop = asyncio.get_running_loop()
    worker_seen_s = loop.time()
    while pending := [upload for upload in uploads if not upload.settled]:
        # An outage of a second is no reason to give up: the work goes on elsewhere.
        with contextlib.suppress(StorageUnavailable):
            for upload in pending:
                await upload.refresh(workplace, audience=audience)
            if await worker_count(workplace.pool) > 0:
                worker_seen_s = loop.time()
        progress.show()
        if loop.time() - worker_seen_s > WORKER_PATIENCE_S:
            raise ServiceMissing(NO_WORKER)
        await asyncio.sleep(POLL_INTERVAL_S)
    progress.show()


class _Progress:
    """A line per settled file and one live line, on a terminal; nothing elsewhere."""

    def __init__(self, uploads: Sequence[_Upload]) -> None:
        self._uploads = uploads
        self._told: set[int] = set()

    def show(self) -> None:
        if not sys.stderr.isatty():
            return
        sys.stderr.write("\r\x1b[K")
        for index, upload in enumerate(self._uploads):
            if upload.settled and index not in self._told:
                self._told.add(index)
                sys.stderr.write(f"{_line(upload)}\n")
        working = next((u for u in self._uploads if u.document and not u.settled), None)
        for upload in self._uploads:
            if upload.document and upload.document.status in ("parsing", "embedding"):
                working = upload
        if working and working.document:
            done = f"{len(self._told)}/{len(self._uploads)}"
            state = f"{working.document.status} {working.document.progress:.0%}"
            sys.stderr.write(f"{done}  {working.path}: {state}"[:100])
        sys.stderr.flush()


def _line(upload: _Upload) -> str:
    entry = upload.data()
    detail = f"{entry['chunks']} chunks" if entry["status"] == "ready" else entry["reason"] or ""
    return f"{entry['status']}  {upload.path}  {detail}".rstrip()


# -- documents, models ----------------------------------------------------------------------------


async def _documents(args: argparse.Namespace, settings: Settings) -> int:
    if args.action != "list" and not args.names:
        raise InputUnusable(f"`parley documents {args.action}` needs a name or an id.")
    async with open_workplace(settings) as workplace:
        audience = await _audience(workplace, args)
        documents = await workplace.documents.list(audience=audience)
        if args.action != "list":
            documents = [found for name in args.names for found in _named(documents, name)]
        if args.action == "remove":
            for document in documents:
                await workplace.documents.delete(document.id, audience=audience)
    if args.json:
        key = "removed" if args.action == "remove" else "documents"
        _print_json({key: [_plain(asdict(document)) for document in documents]})
    else:
        for document in documents:
            print(_described(document, removed=args.action == "remove"))
        if not documents:
            print(replies.NO_DOCUMENTS, file=sys.stderr)
    return EXIT_OK


def _named(documents: Sequence[Document], name: str) -> list[Document]:
    """The documents of a name, or the one of an id.

    Raises:
        InputUnusable: there is none.
    """
    with contextlib.suppress(ValueError):
        wanted = DocumentId(UUID(name))
        if found := [document for document in documents if document.id == wanted]:
            return found
    if found := [document for document in documents if document.name == name]:
        return found
    raise InputUnusable(f"There is no document {name!r} here; `parley documents` lists them.")


def _described(document: Document, *, removed: bool) -> str:
    if removed:
        return f"removed  {document.name}"
    state: str = document.status
    if state in ("parsing", "embedding"):
        state += f" {document.progress:.0%}"
    detail = document.reason or f"{document.chunks} chunks"
    return f"{document.id}  {state}  {document.name}  {detail}"


async def _models(args: argparse.Namespace, settings: Settings) -> int:
    async with engine_client(settings) as engine:
        models = await engine.models()
    if args.json:
        _print_json({"models": [asdict(model) for model in models]})
        return EXIT_OK
    for model in models:
        alias = f" -> {model.root}" if model.root != model.name else ""
        size = f"  {model.context_length} tokens" if model.context_length else ""
        print(f"{model.name}{alias}{size}")
    return EXIT_OK


# -- Shared ---------------------------------------------------------------------------------------


async def _audience(workplace: Workplace, args: argparse.Namespace) -> Audience:
    name = args.member or _user()
    return await workplace.identities.resolve(
        platform=PLACE["platform"],
        workspace=PLACE["workspace"],
        channel=args.channel,
        channel_open=True,
        member=name.casefold(),
        display_name=name,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "terminal"


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON has them."""
    return {
        name: value if isinstance(value, str | int | float | None) else str(value)
        for name, value in fields.items()
    }


def _print_json(data: object) -> None:
    print(json.dumps(data, ensure_ascii=False, indent=2))
