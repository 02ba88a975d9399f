"""Publish a finished model directory in one step.

Work happens in a hidden sibling of the destination, `.<name>.partial`, on the same file system.
Only a complete, synced directory is renamed to its final name, so a kill at any moment leaves
either no directory or a whole one; leavings of a killed run are cleared by the next.
"""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ConversionFailed

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def refuse_existing(destination: Path, *, force: bool) -> None:
    """Check that `destination` may be written.

    Raises:
        ConversionFailed: it exists and `force` is not set.
    """
    if destination.exists() and not force:
        raise ConversionFailed(
            f"{str(destination)!r} exists already; choose another directory or pass --force."
        )


@contextmanager
def publishing(destination: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty work directory; what stands in its `model/` at the end becomes `destination`.

    With `force` an existing destination is exchanged for the new one, then removed.

    Raises:
        ConversionFailed: `destination` exists and `force` is not set, another process is writing
            it,
            or the disk refuses.
    """
    refuse_existing(destination, force=force)
    work = destination.parent / f".{destination.name}.partial"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConversionFailed(f"{str(work)!r} cannot be written: {error.strerror}.") from error
    try:
        _lock(lock, work, destination)
        _clear(work)
        try:
            yield work
            _publish(work / "model", destination, force=force)
        except OSError as error:
            raise ConversionFailed(
                f"Writing {str(destination)!r} failed: {error.strerror or error}."
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _lock(lock: int, work: Path, destination: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = work.exists() and os.path.samestat(os.fstat(lock), work.stat())
    except BlockingIOError:
        held = False
    if not held:  # another process has it, or had it a moment ago and took the directory along
        raise ConversionFailed(f"Another process is writing {str(destination)!r}; wait for it.")


def _clear(work: Path) -> None:
    for entry in work.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _publish(model: Path, destination: Path, *, force: bool) -> None:
    for path in (*model.iterdir(), model):
        _sync(path)
    refuse_existing(destination, force=force)  # it may have appeared meanwhile
    if destination.exists():
        _exchange(model, destination)
    else:
        model.rename(destination)
    _sync(destination.parent)


def _exchange(new: Path, old: Path) -> None:
    # rename(2) cannot replace a directory that is not empty; renameat2 swaps the two atomically.
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
    if libc.renameat2(*arguments) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), str(old))
    aside = new.with_name("replaced")  # this file system cannot swap: two renames, a moment between
    old.rename(aside)
    new.rename(old)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
