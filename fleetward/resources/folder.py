"""A folder of YAML read as resources, once or again and again."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fleetward.resources.content import FileContent, FolderContent, Loaded, read_content
from fleetward.resources.finding import Finding
from fleetward.resources.settled import read_file
from fleetward.resources.yamltree import MAX_BYTES

HELD_OPEN_SECONDS = 5.0
"""How long a file may be held open for writing before it is read as it is."""
MISSING_SECONDS = 0.5
"""How long a file must be gone to count as removed: many editors save by moving the old file away first."""
SUFFIXES = (".yaml", ".yml", ".json")
"""Which files of a folder are read."""


class FolderError(Exception):
    """The folder (or file) cannot be read at all; the message says why and what to do."""


def read_folder(path: str | os.PathLike[str]) -> FolderContent:
    """Read a folder and what is below it, or a single file, once and as it is.

    Files that begin with a dot, and folders that do, are left out; so is everything but `SUFFIXES`. A link is followed
    once. FolderError where the path does not exist.
    """
    return FolderReader(path, held_open_seconds=0, missing_seconds=0).read()


class FolderReader:
    """Reads the same folder again and again: only what changed is parsed, and what is being written is left for later.

    Such a file comes out `pending` and `unread`, for at most `held_open_seconds`; so does one that has just gone, for
    `missing_seconds`. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        held_open_seconds: float = HELD_OPEN_SECONDS,
        missing_seconds: float = MISSING_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = Path(path)
        self._held_open_seconds = held_open_seconds
        self._missing_seconds = missing_seconds
        self._clock = clock
        self._known: dict[str, FileContent] = {}
        self._held_since: dict[str, float] = {}
        self._missing_since: dict[str, float] = {}

    def read(self) -> FolderContent:
        """Read the folder. FolderError where it does not exist."""
        if not self._root.exists():
            raise FolderError(f"{self._root} does not exist; give a folder of YAML files, or one such file")
        if self._root.is_file():
            files = [content for content in [self._file(self._root)] if content]
        elif self._root.is_dir():
            found = sorted(_walk(self._root), key=lambda each: each[0].parts)
            files = [content for path, unlisted in found if (content := unlisted or self._file(path))]
        else:
            raise FolderError(f"{self._root} is neither a folder nor a file")
        files += self._just_gone({content.file for content in files})
        files.sort(key=lambda content: Path(content.file).parts)
        self._known = {content.file: content for content in files}
        return FolderContent(tuple(files))

    def _file(self, path: Path) -> FileContent | None:
        file = str(path)
        try:
            read = read_file(path, MAX_BYTES + 1)
        except FileNotFoundError as error:
            # Gone since the folder was listed; a link that leads nowhere is a mistake, though.
            return _unreadable(file, error) if path.is_symlink() else None
        except OSError as error:
            return _unreadable(file, error)
        if read.settled:
            self._held_since.pop(file, None)
        elif self._within(self._held_since, file, self._held_open_seconds):
            return FileContent(file, unread=True, pending=True)
        known = self._known.get(file)
        if known is not None and not known.pending and known.data == read.data:
            return known
        return read_content(file, read.data)

    def _just_gone(self, there: set[str]) -> Iterator[FileContent]:
        for file in there:
            self._missing_since.pop(file, None)
        for file in self._known.keys() - there:
            if self._within(self._missing_since, file, self._missing_seconds):
                yield FileContent(file, unread=True, pending=True)
            else:
                self._missing_since.pop(file, None)
                self._held_since.pop(file, None)

    def _within(self, since: dict[str, float], file: str, seconds: float) -> bool:
        now = self._clock()
        return now - since.setdefault(file, now) < seconds


def _walk(root: Path) -> Iterator[tuple[Path, FileContent | None]]:
    """Each file below the root, once; a folder that cannot be listed comes with its finding."""
    seen: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            if _seen(folder, seen):
                continue
        except OSError as error:
            yield folder, _unreadable(str(folder), error)
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if path.is_dir():
                folders.append(path)
            elif entry.name.endswith(SUFFIXES) and not _seen(path, seen):
                yield path, None


def _seen(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether the file or folder was met before, by another name or round a loop of links."""
    try:
        status = path.stat()
    except OSError:
        return False
    place = (status.st_dev, status.st_ino)
    if place in seen:
        return True
    seen.add(place)
    return False


def _unreadable(file: str, error: OSError) -> FileContent:
    reason = error.strerror or str(error)
    return FileContent(file, findings=(Finding(file, 0, "", f"cannot be read: {reason}"),), unread=True)


__all__ = [
    "FileContent",
    "FolderContent",
    "FolderError",
    "FolderReader",
    "Loaded",
    "read_folder",
]
