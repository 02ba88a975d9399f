import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelCorrupt
from engine.manifest import Manifest


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def _edit(model_dir: Path, **fields: Any) -> None:
    path = model_dir / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_manifest_reads_back_as_it_was_written(model_dir: Path) -> None:
    manifest = Manifest.read(model_dir)
    manifest.write(model_dir)
    assert Manifest.read(model_dir) == manifest


def test_manifest_lists_every_file_of_the_directory(model_dir: Path) -> None:
    present = {path.name for path in model_dir.iterdir()}
    assert set(Manifest.read(model_dir).files) == present - {"manifest.json"}


def test_one_changed_byte_is_found_by_checksum(model_dir: Path) -> None:
    weights = bytearray((model_dir / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (model_dir / "model.bin").write_bytes(weights)
    Manifest.read(model_dir, verify=False)
    with pytest.raises(ModelCorrupt, match=r"model\.bin differs from its checksum"):
        Manifest.read(model_dir)


@pytest.mark.parametrize("verify", [True, False])
def test_truncated_or_missing_file_is_found_either_way(model_dir: Path, verify: bool) -> None:
    file = model_dir / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json has 100 bytes instead of"):
        Manifest.read(model_dir, verify=verify)
    file.unlink()
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json is missing"):
        Manifest.read(model_dir, verify=verify)


def test_link_to_a_file_elsewhere_is_refused(model_dir: Path, tmp_path: Path) -> None:
    shutil.move(model_dir / "model.bin", tmp_path / "elsewhere.bin")
    (model_dir / "model.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(ModelCorrupt, match="is not a regular file"):
        Manifest.read(model_dir)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "c:x", "a\0b"])
def test_file_name_that_leaves_the_directory_is_refused(model_dir: Path, name: str) -> None:
    files = json.loads((model_dir / "manifest.json").read_text())["files"]
    _edit(model_dir, files=files | {name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(ModelCorrupt, match="is not a plain file name"):
        Manifest.read(model_dir)


def test_newer_format_is_refused_whatever_else_it_holds(model_dir: Path) -> None:
    _edit(model_dir, format_version=2, files="something new")
    with pytest.raises(ModelCorrupt, match=r"format version 2.*reads up to 1; update Parley"):
        Manifest.read(model_dir)


def test_unknown_optional_field_of_the_same_format_is_ignored(model_dir: Path) -> None:
    _edit(model_dir, colour="blue")
    assert Manifest.read(model_dir).kind == "generator"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"files": {}}, "does not list config.json, model.bin, tokenizer.json"),
        ({"chat_template": None}, "a generator needs a chat template"),
        ({"kind": "embedder"}, "an embedder needs embedding_dim and pooling"),
        ({"kind": "picture"}, "kind"),
        ({"context_length": 0}, "context_length"),
        ({"lineage": []}, "lineage"),
    ],
)
def test_incomplete_manifest_names_what_is_wrong(
    model_dir: Path, fields: dict[str, Any], problem: str
) -> None:
    _edit(model_dir, **fields)
    with pytest.raises(ModelCorrupt, match=problem):
        Manifest.read(model_dir)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\xff"])
def test_unreadable_manifest_is_refused(model_dir: Path, content: str) -> None:
    (model_dir / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelCorrupt, match=r"manifest\.json is invalid"):
        Manifest.read(model_dir)


def test_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"it has no manifest\.json"):
        Manifest.read(tmp_path)
