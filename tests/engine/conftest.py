"""Tiny converted models: built once, kept in pytest's cache until a library or the converter
changes."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

import engine.convert
import engine.manifest
import engine.model_facts
import engine.prompt
from engine.errors import ModelCorrupt
from engine.manifest import Manifest
from tests.engine import tiny_models
from tests.locks import alone

# The first example of a test pays for imports and fixtures; a slow machine fails no property.
settings.register_profile("engine", deadline=None)
settings.load_profile("engine")

_LIBRARIES = ("torch", "transformers", "tokenizers", "ctranslate2")
_CODE = (engine.convert, engine.manifest, engine.model_facts, engine.prompt, tiny_models)


@pytest.fixture(scope="session")
def tiny_model_dir(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model directory of a random Llama-type chat model, int8. Copy it before changing it."""
    return _built(pytestconfig, tmp_path_factory, "tiny-chat", tiny_models.write_generator)


@pytest.fixture(scope="session")
def tiny_embedder_dir(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Model directory of a random BERT embedder, int8. Copy it before changing it."""
    return _built(pytestconfig, tmp_path_factory, "tiny-embedder", tiny_models.write_embedder)


def _built(
    config: pytest.Config,
    temporary: pytest.TempPathFactory,
    name: str,
    write: Callable[[Path], Path],
) -> Path:
    assert config.cache is not None
    directory = config.cache.mkdir(f"parley-models-{_key()}") / name
    with alone(directory):
        try:
            Manifest.read(directory)
        except ModelCorrupt:
            source = write(temporary.mktemp(name))
            engine.convert.convert(source, out=directory, force=True)
    return directory


def _key() -> str:
    digest = hashlib.sha256()
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    for module in _CODE:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:12]
