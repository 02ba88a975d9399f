"""Apps that begin with their modules read, for tests that start many.

To read an app's modules costs 1.2 s of a processor, more than most tests of one need. Here one
process reads them, and every app is a fork of it: a process of its own with its own environment and
log, to be stopped or killed like any other.
"""

import asyncio
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

MODULES = (
    "bots.__main__",
    "bots.discord_bot.process",
    "bots.slack_bot.process",
    "anyio._backends._asyncio",  # what httpx reads at its first request
    "httpcore",
)
_MESSAGE_LIMIT_BYTES = 200_000
"""Of the environment, mostly; the kernel's own limit of a message is a little higher."""


class Fork:
    """A running `python -m bots …`; speaks like `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, ended: asyncio.Task[int]) -> None:
        self.pid = pid
        self._ended = ended

    @classmethod
    async def start(cls, *command: str, environment: Mapping[str, str], log: IO[bytes]) -> "Fork":
        """Start the app that the command says.

        Args:
            log: receives its standard output and error.
        """
        mine, keepers = socket.socketpair(type=socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        with keepers:
            message = json.dumps([command, dict(environment)]).encode()
            socket.send_fds(_nursery()[0], [message], [log.fileno(), keepers.fileno()])
        loop = asyncio.get_running_loop()
        pid = int(await loop.sock_recv(mine, 32))

        async def ended() -> int:
            with mine:
                return int(await loop.sock_recv(mine, 32))

        return cls(pid, asyncio.create_task(ended()))

    @property
    def returncode(self) -> int | None:
        """Exit code, or the signal that ended it as a negative number; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if not self._ended.done():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _nursery() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The way to the process that forks, and the process; it ends with this one."""
    ours, its = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(its.fileno())],
            cwd=Path(__file__).parents[2],
            pass_fds=[its.fileno()],
        )
    return ours, process


def _serve(control: socket.socket) -> int:
    """Fork an app for each message, until nobody is left to send one; returns in every process."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # what it never visits stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a keeper
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the apps and the tests
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_LIMIT_BYTES, 2)
        if not message:
            return 0
        log, keepers = descriptors
        if os.fork() == 0:
            control.close()
            return _keep(message, log=log, tests=socket.socket(fileno=keepers))
        os.close(log)
        os.close(keepers)


def _keep(message: bytes, *, log: int, tests: socket.socket) -> int:
    """Start the app, tell the tests its number, wait for its end, and tell how it was."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    app = os.fork()
    if app == 0:
        tests.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        return _become(*json.loads(message))
    tests.send(b"%d" % app)
    _, status = os.waitpid(app, 0)
    tests.send(b"%d" % os.waitstatus_to_exitcode(status))
    return 0


def _become(command: list[str], environment: dict[str, str]) -> int:
    from bots.__main__ import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    return main(command)


if __name__ == "__main__":
    sys.exit(_serve(socket.socket(fileno=int(sys.argv[1]))))
