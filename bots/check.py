"""`parley check`: the effective settings with their source, and the health of each part."""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from bots.errors import BotsError
from bots.settings import Settings
from bots.supervisor import can_train, web_url
from engine.client import EngineClient
from engine.errors import EngineError, SettingsInvalid
from engine.settings import is_secret, setting_paths, setting_source
from feedback.argilla_client import ArgillaClient
from feedback.argilla_server import credentials
from feedback.argilla_server.environment import environment_folder, is_ready
from feedback.argilla_server.process import READY_PATH
from feedback.errors import FeedbackError
from storage.embedded import EmbeddedPostgres
from storage.errors import StorageError
from storage.jobs import worker_count
from storage.migrate import pending
from storage.pool import open_pool
from storage.queue import workers_of
from storage.runs import TRAINING_QUEUE

EXIT_OK = 0
EXIT_UNHEALTHY = 69
CHECK_TIMEOUT_S = 5.0
CHAT_TIMEOUT_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """One part's state; `detail` says what it is, or what to do."""

    part: str
    healthy: bool
    detail: str


def add_verb(verbs: Any) -> None:
    """Add `check` to the command line."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "check", help="show the health of each part and the effective settings"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=check)


async def check(args: argparse.Namespace, settings: Settings) -> int:
    """Print settings and health; 0 when every part is healthy, else 69."""
    health = await parts_health(settings)
    rows = effective_settings(settings)
    if args.json:
        shown = {name: {"value": value, "source": source} for name, value, source in rows}
        print(json.dumps({"parts": [asdict(part) for part in health], "settings": shown}, indent=2))
    else:
        _print_table(health, rows)
    return EXIT_OK if all(part.healthy for part in health) else EXIT_UNHEALTHY


async def parts_health(settings: Settings) -> list[Health]:
    """Ask database, worker, engine, web page, Slack and Discord how they are, all at once."""
    return [
        part
        for parts in await asyncio.gather(
            _database_and_worker(settings),
            _engine(settings),
            _web(settings),
            _slack(settings),
            _discord(settings),
            _argilla(settings),
        )
        for part in parts
    ]


def effective_settings(settings: Settings) -> list[tuple[str, str, str]]:
    """Every setting as (path, shown value, source); secrets are masked."""
    rows = []
    for path, field in setting_paths(Settings):
        value: Any = settings
        for name in path.split("."):
            value = getattr(value, name)
        shown = (
            ("set" if value else "unset") if is_secret(field) else json.dumps(value, default=str)
        )
        rows.append((path, shown, setting_source(path)))
    return rows


async def _database_and_worker(settings: Settings) -> list[Health]:
    if settings.database.url is not None:
        url = settings.database.url.get_secret_value()
    else:
        embedded = EmbeddedPostgres(settings.home)
        if not await asyncio.to_thread(embedded.is_running):
            down = "not running; start it with `parley up`"
            return [_ill("database", down), _ill("worker", "unknown: the database is down")]
        url = await asyncio.to_thread(embedded.start)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            missing = await pending(url, settings.database)
            if missing:
                detail = f"schema is behind by {len(missing)}; run `parley migrate`"
                return [_ill("database", detail), _ill("worker", "unknown: the schema is behind")]
            async with open_pool(url, settings=settings.database) as pool:
                workers = await worker_count(pool)
                training = await workers_of(pool, queue=TRAINING_QUEUE)
    except (StorageError, TimeoutError) as error:
        return [_ill("database", str(error)), _ill("worker", "unknown: the database is down")]
    kind = "external" if settings.database.url is not None else "embedded"
    return [
        Health(part="database", healthy=True, detail=f"{kind}, schema up to date"),
        Health(part="worker", healthy=True, detail=f"{workers} running")
        if workers
        else _ill("worker", "none running; start one with `parley worker`"),
        *_training(training),
    ]


def _training(workers: int) -> list[Health]:
    """Training's worker, where what it needs is installed; nobody waits for it to be answered."""
    if not can_train():
        detail = "not installed; `pip install 'parley[train]'` brings what it needs"
    else:
        detail = f"{workers} running" if workers else "none running; `parley up` starts one"
    return [Health(part="training", healthy=bool(workers) or not can_train(), detail=detail)]


async def _engine(settings: Settings) -> list[Health]:
    key = settings.engine.api_key.get_secret_value() if settings.engine.api_key else None
    try:
        async with EngineClient(
            url=settings.engine.effective_url, api_key=key, timeout_s=CHECK_TIMEOUT_S
        ) as client:
            models = await client.models()
    except EngineError as error:
        return [_ill("engine", f"{error} Start it with `parley up` or `python -m engine serve`.")]
    names = ", ".join(model.name for model in models)
    return [Health(part="engine", healthy=True, detail=f"{settings.engine.effective_url}: {names}")]


async def _web(settings: Settings) -> list[Health]:
    url = web_url(settings)
    async with httpx.AsyncClient(timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
        try:
            response = await client.get(f"{url}/healthz")
        except httpx.HTTPError as error:
            return [
                _ill("web", f"{url} does not answer ({type(error).__name__}); run `parley web`")
            ]
    return [
        Health(part="web", healthy=response.is_success, detail=f"{url}: {response.status_code}")
    ]


async def _slack(settings: Settings) -> list[Health]:
    """Nothing where Slack is not set up."""
    if not settings.slack.enabled:
        return []
    from bots.slack_bot.process import require_way_in, verify, web_client

    try:
        require_way_in(settings.slack)
        async with asyncio.timeout(CHAT_TIMEOUT_S), web_client(settings.slack) as client:
            own, _ = await verify(settings.slack, client)
    except (SettingsInvalid, BotsError) as error:
        return [_ill("slack", str(error))]
    except TimeoutError:
        return [_ill("slack", f"{settings.slack.base_url} does not answer in time")]
    where = f"bot token of {own.team}" if own is not None else "installed by OAuth"
    return [Health(part="slack", healthy=True, detail=f"{where}, events by {settings.slack.mode}")]


async def _discord(settings: Settings) -> list[Health]:
    """Nothing where Discord is not set up."""
    if not settings.discord.enabled:
        return []
    from bots.discord_bot.process import logged_in

    try:
        async with asyncio.timeout(CHAT_TIMEOUT_S), logged_in(settings.discord) as client:
            name, id_ = client.user, client.application_id
    except (SettingsInvalid, BotsError) as error:
        return [_ill("discord", str(error))]
    except TimeoutError:
        return [_ill("discord", f"{settings.discord.api_root} does not answer in time")]
    return [Health(part="discord", healthy=True, detail=f"{name}, application {id_}")]


async def _argilla(settings: Settings) -> list[Health]:
    """Nothing where Argilla is switched off."""
    argilla = settings.argilla
    if not argilla.own and argilla.url is None:
        return []
    url = argilla.effective_url
    try:
        async with httpx.AsyncClient(timeout=CHECK_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get(f"{url}{READY_PATH}")
    except httpx.HTTPError as error:
        advice = (
            "start it with `parley argilla`" if argilla.own else "is PARLEY_ARGILLA__URL right?"
        )
        if argilla.own and not is_ready(environment_folder(argilla, settings.home)):
            advice = "its environment is not built yet; `parley up` and `parley argilla` do that"
        return [_ill("argilla", f"{url} does not answer ({type(error).__name__}); {advice}")]
    health = Health(
        part="argilla", healthy=answer.is_success, detail=f"{url}: {answer.status_code}"
    )
    return [health, *await _webhook(settings)]


async def _webhook(settings: Settings) -> list[Health]:
    """Whether Argilla calls the page; nothing where it need not."""
    address = settings.argilla.webhook_url
    if not address:
        return []
    key = credentials.api_key(settings.argilla, settings.home)
    try:
        async with (
            asyncio.timeout(CHECK_TIMEOUT_S),
            ArgillaClient(settings.argilla.effective_url, key) as client,
        ):
            known = await client.has_webhook(str(address))
    except (FeedbackError, TimeoutError) as error:
        return [_ill("webhook", f"Argilla does not say: {str(error) or 'no answer in time'}")]
    if not known:
        return [_ill("webhook", f"Argilla does not call {address}; `parley web` sees to it")]
    return [Health(part="webhook", healthy=True, detail=f"Argilla calls {address}")]


def _ill(part: str, detail: str) -> Health:
    return Health(part=part, healthy=False, detail=detail)


def _print_table(health: list[Health], rows: list[tuple[str, str, str]]) -> None:
    for part in health:
        sys.stdout.write(f"{'ok  ' if part.healthy else 'DOWN'}  {part.part:<9} {part.detail}\n")
    width = max(len(path) for path, _, _ in rows)
    sys.stdout.write("\n")
    for path, shown, source in rows:
        sys.stdout.write(f"{path:<{width}}  {shown}  ({source})\n")
