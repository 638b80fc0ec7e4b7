"""What kubectl prints, in colour, and a pod beside the template it was made from."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text
from telling import screen

from fleetward.cli.output import DECISION_STYLES, MODE_STYLES

STYLES = {
    **DECISION_STYLES,
    **MODE_STYLES,
    "SchedulingGated": "yellow",
    "Terminating": "yellow",
    "Pending": "yellow",
    "False": "red",
    "Warning": "yellow",
}
HEADINGS = re.compile(r"[A-Z][A-Z ]+")
WORD = re.compile(rf"(?<![\w/.-])({'|'.join(STYLES)})(?![\w/-])")


def printed(output: str) -> None:
    """Print what a command said: column headings bold, modes and decisions in their colours."""
    for line in output.splitlines():
        text = Text(line, style="bold" if HEADINGS.fullmatch(line) else "")
        if not text.style:
            for found in WORD.finditer(line):
                text.stylize(STYLES[found[1]], *found.span())
        screen.print(text)


def injected(template: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
    """Show what the template of a Deployment says, and what its pod has."""
    before, after = dict(_parts(template)), dict(_parts(pod))
    screen.print(Text(f"  {'':<17}{'in the Deployment':<28}in the pod", style="bold"))
    for part, has in after.items():
        had = before[part]
        for number in range(max(1, len(had), len(has))):
            old = had[number] if number < len(had) else "" if number else "-"
            new = has[number] if number < len(has) else ""
            line = Text(f"  {part if number == 0 else '':<17}{old:<28}")
            screen.print(line.append(new, style="" if new in had else "green"))


def _parts(pod: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    metadata, spec = pod["metadata"], pod["spec"]
    generated = {"pod-template-hash"}
    agent = spec["containers"][0]
    yield "containers", [one["name"] for one in spec["containers"]]
    yield "init containers", [_sidecar(one) for one in spec.get("initContainers") or ()]
    yield "env of agent", [f"{one['name']}={one['value']}" for one in agent.get("env") or ()]
    yield "labels", [f"{k}={v}" for k, v in (metadata.get("labels") or {}).items() if k not in generated]
    yield "annotations", [f"{k}={v}" for k, v in (metadata.get("annotations") or {}).items()]
    yield "volumes", [_volume(one) for one in spec.get("volumes") or ()]


def _sidecar(container: Mapping[str, Any]) -> str:
    always = container.get("restartPolicy") == "Always"
    return f"{container['name']}{' (native sidecar)' if always else ''}"


def _volume(volume: Mapping[str, Any]) -> str:
    (kind,) = volume.keys() - {"name"}
    return f"{volume['name']} ({kind})"
