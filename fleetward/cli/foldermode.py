"""The operating mode, edited in the YAML that people keep."""

import getpass
import os
import socket
from pathlib import Path

from fleetward.cli.change import Change, Wanted, concerned, differs
from fleetward.cli.output import CliError
from fleetward.registry.registry import Registry
from fleetward.resources import Agent, AgentFleet
from fleetward.resources.edit import EditError, Found, edit_file, find_resource
from fleetward.resources.folder import FolderContent, FolderError, read_folder


def set_mode(directory: Path, wanted: Wanted) -> Change:
    """Set the mode, its reason and who set it. CliError where that cannot be done."""
    try:
        found = find_resource(directory, wanted.kind, wanted.name)
        resource, _ = _resource(read_folder(directory), found)
        spec = resource.spec if resource is not None else None
        before = spec.operating_mode if spec is not None else "Running"
        changed = False
        # A resource with mistakes is handed on: the edit refuses it and says what they are.
        if spec is None or differs(before, spec.operating_reason, wanted):
            changed = edit_file(
                found.file,
                kind=found.identity.kind,
                namespace=found.identity.namespace or None,
                name=found.identity.name,
                mode=wanted.mode,
                reason=wanted.reason,
                set_by=_who(wanted.by),
            )
        content = read_folder(directory)
    except (EditError, FolderError) as error:
        raise CliError(str(error)) from None
    resource, line = _resource(content, found)
    registry = Registry.build((each.resource for each in content.resources), content.namespaces)
    return Change(
        identity=found.identity,
        before=before,
        after=resource.spec.operating_mode if resource is not None else wanted.mode,
        changed=changed,
        agents=tuple(concerned(registry, found.identity)),
        notes=tuple(map(str, content.findings)),
        place=f"{found.file}:{line}",
        facts={"file": str(found.file), "line": line},
    )


def _resource(content: FolderContent, found: Found) -> tuple[Agent | AgentFleet | None, int]:
    """Give the resource, and the line of its operating mode."""
    for each in content.resources:
        if each.identity == found.identity and isinstance(each.resource, Agent | AgentFleet):
            return each.resource, each.document.line_of(("spec", "operatingMode"))
    return None, found.line


def _who(by: str | None) -> str:
    if by is not None:
        if not by.strip():
            raise CliError("--by is empty; say who does this, or leave it out")
        return by.strip()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry for this user id, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
