"""Which replica keeps a run: its id carries the tag of the journal that it is in."""

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from fleetward.run.book import new_id

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 6
_TAG = re.compile(rf"[{_ALPHABET}]{{{_LENGTH}}}")
_RUN = re.compile(rf"run-([{_ALPHABET}]{{{_LENGTH}}})-")


class TagError(Exception):
    """The tag of a journal cannot be read or made; the message says why."""


def open_tag(path: Path) -> str:
    """Read the tag that `path` holds, made where there is none; it is on the disk when this returns.

    It belongs to the journal beside it, and goes wherever that goes. Raises TagError.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = _draft(path, "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH)))
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        _sync(path.parent)
        return _read(path)
    except OSError as error:
        raise TagError(f"the tag of the journal of runs, {path}, cannot be used: {error.strerror or error}") from None


def run_ids(tag: str) -> Callable[[str], str]:
    """Give what makes ids: those of runs carry the tag."""
    return lambda prefix: new_id(f"run-{tag}-" if prefix == "run-" else prefix)


def tag_of(run: str) -> str:
    """Give the tag that a run's id carries; empty where it carries none."""
    found = _RUN.match(run)
    return found[1] if found else ""


def _read(path: Path) -> str:
    tag = path.read_text(encoding="ascii", errors="replace")[:100].strip()
    if not _TAG.fullmatch(tag):
        raise TagError(
            f"{path} holds {tag!r}, allowed are {_LENGTH} of {_ALPHABET}: the runs in the journal beside it carry"
            " the right tag in their ids"
        )
    return tag


def _draft(path: Path, tag: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  an open descriptor, not a path
        file.write(f"{tag}\n")
        file.flush()
        os.fsync(descriptor)
    return Path(name)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
