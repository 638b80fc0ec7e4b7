"""A folder of resources as the source of a command, with all that is wrong with it."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fleetward.cli.change import Change, Wanted
from fleetward.cli.output import CliError
from fleetward.cli.records import Records, open_store
from fleetward.decision.lint import check_references, check_resource
from fleetward.registry.registry import Registry
from fleetward.resources.finding import Finding
from fleetward.resources.folder import FolderContent, FolderError, read_folder

if TYPE_CHECKING:
    from fleetward.cli.budgets.read import Budgets


@dataclass(frozen=True)
class Folder:
    """A folder's content, and everything that is wrong with it."""

    content: FolderContent
    findings: tuple[Finding, ...]

    live = None
    """A folder says nothing of what runs."""

    @cached_property
    def registry(self) -> Registry:
        """The registry of the resources without a fault."""
        return Registry.build((each.resource for each in self.content.resources), self.content.namespaces)

    @property
    def texts(self) -> dict[str, bytes]:
        """The files as they are."""
        return {file.file: file.data for file in self.content.files}


def open_folder(directory: str | os.PathLike[str]) -> Folder:
    """Read a folder and look for mistakes. CliError where it does not exist."""
    try:
        content = read_folder(directory)
    except FolderError as error:
        raise CliError(str(error)) from None
    return Folder(content, in_order(content, [*content.findings, *_deeper(content)]))


def in_order(content: FolderContent, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put findings in the order of files and lines."""
    position = {file.file: i for i, file in enumerate(content.files)}
    return tuple(sorted(findings, key=lambda finding: (position[finding.file], finding.line)))


def _deeper(content: FolderContent) -> Iterable[Finding]:
    """Find what takes more than a schema to see."""
    places = {id(each.resource): each.document for each in content.resources}
    for each in content.resources:
        for path, message in check_resource(each.resource):
            yield each.document.finding(path, message)
    if content.findings:
        return  # a resource that cannot be read would look like one that does not exist
    for resource, path, message in check_references(each.resource for each in content.resources):
        yield places[id(resource)].finding(path, message)


@dataclass(frozen=True)
class FolderSource:
    """A folder of YAML, or one file."""

    directory: Path
    data: Path | None = None
    """The data folder of `fleetward serve`, where it is not in the folder itself."""
    ledger: str | None = None
    """The URL of the database that it keeps budgets in, where that is no file in the data folder."""

    def read(self) -> Folder:
        """Read the folder. CliError where it does not exist."""
        return open_folder(self.directory)

    def names(self, kind: str) -> list[str]:
        """Give the keys of a kind, or nothing where the folder cannot be read."""
        try:
            content = read_folder(self.directory)
        except FolderError:
            return []
        return sorted(each.identity.key for each in content.resources if each.identity.kind == kind)

    def set_mode(self, wanted: Wanted) -> Change:
        """Set an operating mode in the file that the resource is in. CliError where that cannot be done."""
        from fleetward.cli.foldermode import set_mode  # noqa: PLC0415 - what edits YAML is loaded where it is used

        return set_mode(self.directory, wanted)

    def wait(self, change: Change, seconds: float, tell: Callable[[str], None]) -> None:
        """Do nothing: whether anything serves the folder is not known here."""

    def records(self) -> AbstractContextManager[Records]:
        """Open the audit store of `fleetward serve`. CliError where there is none."""
        return open_store(self._data / "audit.db")

    def budgets(self) -> "AbstractContextManager[Budgets]":
        """Open the ledger of `fleetward serve`. CliError where there is none."""
        from fleetward.cli.budgets.read import open_ledger  # noqa: PLC0415 - loaded where it is used

        return open_ledger(self._data, self.ledger, lambda: self.read().registry)

    @property
    def _data(self) -> Path:
        inside = self.directory.parent if self.directory.is_file() else self.directory
        return self.data or inside / ".fleetward"
