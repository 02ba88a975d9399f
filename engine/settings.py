"""Settings: the engine's section, and the one loader that every process uses.

Environment over TOML over defaults. Prefix `PARLEY_`, nested by `__`: `PARLEY_ENGINE__PORT=9000` is
`port` under `[engine]` in `parley.toml`. Secrets are read from the environment only.

Why the loader lives here: the engine is the lowest room with a process of its own, so every process
may import it, and nobody else needs to read the environment.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from engine.errors import SettingsInvalid

ENV_PREFIX = "PARLEY_"
CONFIG_VARIABLE = "PARLEY_CONFIG"
"""Names the TOML file; it is not a setting itself. Default: `parley.toml` in the working folder."""
OTHER_SECTIONS = frozenset(
    {
        "argilla",
        "assistant",
        "database",
        "discord",
        "documents",
        "search",
        "slack",
        "training",
        "web",
    }
)
"""Sections of the rooms above, which a process of the engine alone lets pass. It cannot import what
they hold, so only their names are checked; every process of theirs checks the rest."""


class Section(BaseModel):
    """Base of every settings section: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineSettings(Section):
    """`[engine]`: the server and the models it loads."""

    url: str | None = Field(
        None,
        description="Address of any OpenAI-compatible engine to use; unset = the one that "
        "`parley up` starts on `host` and `port`.",
    )
    host: str = Field("127.0.0.1", description="Interface that `engine serve` listens on.")
    port: int = Field(8801, ge=0, le=65535, description="Port that `engine serve` listens on.")
    api_key: SecretStr | None = Field(
        None, description="Bearer key that clients must send; unset = none. Environment only."
    )
    admin_token: SecretStr | None = Field(
        None,
        description="Bearer token for `/admin/models`; unset = those routes are off. "
        "`parley up` makes one. Environment only.",
    )
    models: dict[str, str] = Field(
        {"smollm2-135m-instruct": "ctranslate2:smollm2-135m-instruct"},
        description="Chat models by name: `ctranslate2:<directory>` (relative = under "
        "`<home>/models`) or `openai:<url>#<name>`.",
    )
    live: str = Field(
        "smollm2-135m-instruct", description="Model that the alias `live` names at first start."
    )
    embedder: str = Field(
        "ctranslate2:all-minilm-l6-v2", description="Embedding model, written like a chat model."
    )
    upstream_keys: dict[str, SecretStr] = Field(
        {}, description="API keys of `openai:` models, by model name. Environment only."
    )
    replicas: int = Field(
        2, ge=1, le=64, description="Parallel CTranslate2 workers of one thread each."
    )
    max_batch_size: int = Field(
        8, ge=1, le=64, description="Most sequences decoded together by one replica."
    )
    batch_wait_ms: float = Field(
        8.0,
        ge=0,
        le=1000,
        description="Longest that an idle engine waits for company for a request.",
    )
    max_queue: int = Field(64, ge=1, description="Waiting requests beyond which the answer is 429.")
    request_timeout_s: float = Field(
        180.0, gt=0, description="Deadline of one request, waiting included."
    )

    @property
    def own_url(self) -> str:
        """Address of the engine that `engine serve` starts with these settings."""
        return f"http://{reachable_host(self.host)}:{self.port}"

    @property
    def effective_url(self) -> str:
        """Address at which the other processes reach the engine, without a trailing slash."""
        return (self.url or self.own_url).rstrip("/")


def reachable_host(host: str) -> str:
    """Host under which this machine reaches a server that listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


class ProcessSettings(BaseSettings):
    """Base of a process's settings object: sections over one shared `parley.toml`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over TOML; nothing else."""
        toml = TomlConfigSettingsSource(settings_cls, config_file())
        return init_settings, env_settings, toml


S = TypeVar("S", bound=ProcessSettings)


def config_file() -> Path:
    """Path of the TOML file, which need not exist."""
    return Path(os.environ.get(CONFIG_VARIABLE, "parley.toml"))


def load_settings(cls: type[S]) -> S:
    """Read settings from environment and TOML.

    Raises:
        SettingsInvalid: an unknown name (the nearest valid one is named), a bad value, a secret in
            TOML.
    """
    paths = dict(setting_paths(cls))
    problems = list(_unknown_names(cls, paths)) + list(_secrets_in_toml(paths))
    if problems:
        raise SettingsInvalid("\n".join(problems))
    try:
        return cls()
    except ValidationError as error:
        lines = [
            f"Setting {'.'.join(str(part) for part in item['loc'])}: {item['msg']}."
            for item in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsInvalid("\n".join(lines)) from error
    except SettingsError as error:
        # A table or list that is not JSON; the text names the field only.
        raise SettingsInvalid(f"A variable's value is not valid JSON: {error}.") from error


def setting_paths(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting as (dotted path, pydantic FieldInfo), sections flattened."""
    for name, field in cls.model_fields.items():
        path = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_paths(field.annotation, f"{path}.")
        else:
            yield path, field


def env_name(path: str) -> str:
    """Environment variable of a setting: `engine.port` -> `PARLEY_ENGINE__PORT`."""
    return ENV_PREFIX + path.replace(".", "__").upper()


def is_secret(field: Any) -> bool:
    """Whether a setting holds a secret, which must come from the environment."""

    def holds(annotation: Any) -> bool:
        return annotation is SecretStr or any(holds(arg) for arg in get_args(annotation))

    return holds(field.annotation)


def setting_source(path: str) -> str:
    """Where a setting's effective value comes from: `environment`, the TOML's name or `default`."""
    name = env_name(path)
    if any(key.upper() == name or key.upper().startswith(f"{name}__") for key in os.environ):
        return "environment"
    if path in dict(_flatten(_read_toml(), {path})):
        return config_file().name
    return "default"


def _read_toml() -> dict[str, Any]:
    file = config_file()
    if not file.is_file():
        if CONFIG_VARIABLE in os.environ:
            raise SettingsInvalid(f"{CONFIG_VARIABLE} names {str(file)!r}, which does not exist.")
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"{str(file)!r} cannot be read: {error}.") from error


def _flatten(
    table: Mapping[str, Any], known: set[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the TOML's settings by dotted path; a table that is itself a setting stays whole."""
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in known:
            yield from _flatten(value, known, f"{path}.")
        else:
            yield path, value


def _unknown_names(cls: type[BaseModel], paths: dict[str, Any]) -> Iterator[str]:
    known = set(paths)
    variables = {env_name(path) for path in paths}
    mappings = {
        env_name(path)
        for path, field in paths.items()
        if getattr(field.annotation, "__origin__", None) is dict
    }
    foreign = OTHER_SECTIONS - set(cls.model_fields)
    for path, _ in _flatten(_read_toml(), known):
        if path in known or path.partition(".")[0] in foreign:
            continue
        yield _unknown(f"{path} in {config_file().name}", path, known | _moved(path, cls, foreign))
    for key in os.environ:
        name = key.upper()
        if not name.startswith(ENV_PREFIX) or name == CONFIG_VARIABLE or name in variables:
            continue
        if name.startswith((f"{ENV_PREFIX}TEST_", f"{ENV_PREFIX}EVAL_")):
            continue  # read by the test suite, never by a process
        path = name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1)
        if "." in path and path.partition(".")[0] in foreign:
            continue
        if not any(name.startswith(f"{mapping}__") for mapping in mappings):
            moved = map(env_name, _moved(path, cls, foreign))
            yield _unknown(key, name, variables.union(moved))


def _moved(path: str, cls: type[BaseModel], foreign: frozenset[str]) -> set[str]:
    """The same key in the sections that were perhaps meant: those whose keys are not known here."""
    section, nested, key = path.partition(".")
    if not nested or section in cls.model_fields:
        return set()
    return {f"{other}.{key}" for other in foreign}


def _unknown(shown: str, name: str, valid: set[str]) -> str:
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    return f"Unknown setting {shown}; did you mean {nearest[0]}?"


def _secrets_in_toml(paths: dict[str, Any]) -> Iterator[str]:
    for path, _ in _flatten(_read_toml(), set(paths)):
        if path in paths and is_secret(paths[path]):
            yield (
                f"Setting {path} is a secret and must not stand in {config_file().name}; "
                f"set {env_name(path)} instead."
            )
