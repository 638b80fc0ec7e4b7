"""Where commands read from and write to: a folder of YAML, or a cluster. Commands do not know which."""

import functools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from fleetward.cli.group import PLUGIN_NAME
from fleetward.cli.output import CliError

if TYPE_CHECKING:
    from fleetward.cli.budgets.read import Budgets
    from fleetward.cli.change import Change, Standing, Wanted
    from fleetward.cli.cluster.live import Live
    from fleetward.cli.cluster.source import ClusterSource
    from fleetward.cli.records import Records
    from fleetward.registry.registry import Registry
    from fleetward.resources.finding import Finding

F = TypeVar("F", bound=Callable[..., Any])

DIR_VARIABLE = "FLEETWARD_DIR"


class Governed(Protocol):
    """The resources of a source, and everything that is wrong with them."""

    @property
    def findings(self) -> "tuple[Finding, ...]":
        """What is wrong."""

    @property
    def texts(self) -> Mapping[str, bytes]:
        """The files that findings are in, as they are."""

    @property
    def registry(self) -> "Registry":
        """The registry of the resources without a fault."""

    @property
    def live(self) -> "Mapping[str, Live] | None":
        """What is seen of each agent that runs, by key; None where the source cannot know."""


class Source(Protocol):
    """A place where resources are. Every method raises CliError for what the user can mend."""

    def read(self) -> Governed:
        """Read all resources."""

    def names(self, kind: str) -> Sequence[str]:
        """Give the keys of a kind for completion; nothing where they cannot be had at once."""

    def set_mode(self, wanted: "Wanted") -> "Change":
        """Set an operating mode, unless a stronger one holds."""

    def wait(self, change: "Change", seconds: float, tell: Callable[[str], None]) -> "Standing | None":
        """Wait until a change is in force, telling how far it has come. None where there is nothing to wait for."""

    def records(self) -> "AbstractContextManager[Records]":
        """Open the audit trail."""

    def budgets(self) -> "AbstractContextManager[Budgets]":
        """Open the ledger of budgets, with the audit trail beside it."""


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--dir",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path),
        default=".",
        envvar=DIR_VARIABLE,
        show_envvar=True,
        show_default="this folder; the cluster for kubectl fleetward",
        help="Folder of YAML, or one file.",
    ),
)
_CLUSTER_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--kubeconfig", metavar="FILE", help="Work on a cluster, by this kubeconfig."),
    click.option("--context", metavar="NAME", help="Work on the cluster of this context."),
    click.option("-n", "--namespace", metavar="NS", help="Work on a cluster, in this namespace."),
    click.option("--as", "user", metavar="USER", help="Work on a cluster, acting as this user."),
)
_NAMES = {"kubeconfig": "--kubeconfig", "context": "--context", "namespace": "--namespace", "user": "--as"}


def source_options(function: F) -> F:
    """Add the options that choose a source, passed on as `source`."""
    return _with(function, (*_OPTIONS, *_CLUSTER_OPTIONS), ("directory", *_NAMES), "source", source_of)


def cluster_options(function: F) -> F:
    """Add the options that choose a cluster, passed on as `cluster`; None where none is asked for."""

    def choose(context: click.Context) -> "ClusterSource | None":
        return _cluster(context.params) if asks_for_cluster(context) or _is_plugin(context) else None

    return _with(function, _CLUSTER_OPTIONS, tuple(_NAMES), "cluster", choose)


def records_options(function: F) -> F:
    """Add the options that choose an audit trail, passed on as `source`."""
    return _with_records(function, (), ())


def budgets_options(function: F) -> F:
    """Add the options that choose a ledger of budgets with its audit trail, passed on as `source`."""
    ledger = click.option(
        "--ledger",
        metavar="URL",
        envvar="FLEETWARD_LEDGER",
        show_envvar=True,
        help="The database that fleetward serve keeps budgets in: postgresql://...  [default: a file in --data]",
    )
    return _with_records(function, (ledger,), ("ledger",))


def _with_records(function: F, more: Sequence[Callable[[Any], Any]], more_taken: Sequence[str]) -> F:
    data = click.option(
        "--data",
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="The data folder of fleetward serve.  [default: .fleetward in the folder served]",
    )
    hub = (
        click.option("--hub", metavar="URL", help="The hub of a cluster, instead of through kubectl port-forward."),
        click.option("--hub-ca", metavar="FILE", help="What to trust the hub by, instead of ConfigMap fleetward-ca."),
        click.option(
            "--system-namespace",
            metavar="NS",
            envvar="FLEETWARD_SYSTEM_NAMESPACE",
            show_envvar=True,
            help="Where Fleetward runs in the cluster.  [default: fleetward-system]",
        ),
    )
    taken = ("directory", "data", *more_taken, *_NAMES, "hub", "hub_ca", "system_namespace")
    return _with(function, (*_OPTIONS, data, *more, *_CLUSTER_OPTIONS, *hub), taken, "source", source_of)


def source_of(context: click.Context) -> Source:
    """Give the source that the options of the command choose. click.UsageError where they contradict each other.

    What was typed counts before the environment, and that before how the program was called.
    """
    params = context.params
    named = {"directory": "--dir", "data": "--data", "ledger": "--ledger"}
    folder = [option for name, option in named.items() if _given(context, name)]
    if asks_for_cluster(context):
        if folder:
            raise click.UsageError(
                f"{folder[0]} is about a folder, {asks_for_cluster(context)} about a cluster", context
            )
        return _cluster(params)
    in_environment = context.get_parameter_source("directory") is ParameterSource.ENVIRONMENT
    if _is_plugin(context) and not folder and not in_environment:
        return _cluster(params)
    from fleetward.cli.folder import FolderSource  # noqa: PLC0415 - a command loads one source, not both

    return FolderSource(params.get("directory") or Path(), params.get("data"), params.get("ledger"))


def complete_agents(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Propose the agents of the source, or its fleets where --fleet is given."""
    try:
        names = source_of(context).names("AgentFleet" if context.params.get("fleet") else "Agent")
    except click.ClickException:
        return []
    return [CompletionItem(key) for key in names if key.startswith(incomplete)]


def complete_chain(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Propose the agents of the source after the last comma, save those that are in the chain already."""
    before, comma, last = incomplete.rpartition(",")
    known = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{each.value}")
        for each in complete_agents(context, param, last)
        if each.value not in known
    ]


def read_file(path: Path) -> bytes:
    """Read a file; `-` is standard input. CliError where it cannot be read."""
    if str(path) == "-" and sys.stdin is None:
        raise CliError("standard input is closed; name a file instead")
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from None


def _with(
    function: F,
    options: Sequence[Callable[[Any], Any]],
    taken: Sequence[str],
    name: str,
    choose: Callable[[click.Context], Source | None],
) -> F:
    """Add options, and call the function with what `choose` makes of them in their place."""

    @click.pass_context
    @functools.wraps(function)
    def called(context: click.Context, /, **values: Any) -> Any:
        for each in taken:
            values.pop(each)
        return function(**values, **{name: choose(context)})

    decorated: Any = called
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _cluster(params: Mapping[str, Any]) -> "ClusterSource":
    from fleetward.cli.cluster.kubectl import Kubectl  # noqa: PLC0415 - as above
    from fleetward.cli.cluster.source import ClusterSource, HubPlace  # noqa: PLC0415

    return ClusterSource(
        Kubectl(params.get("kubeconfig"), params.get("context"), params.get("user")),
        params.get("namespace"),
        HubPlace(params.get("hub"), params.get("hub_ca"), params.get("system_namespace")),
    )


def asks_for_cluster(context: click.Context) -> str:
    """Name an option that was typed and makes sense for a cluster alone; empty where none was."""
    named = {**_NAMES, "hub": "--hub", "hub_ca": "--hub-ca", "system_namespace": "--system-namespace"}
    return next((option for name, option in named.items() if _given(context, name)), "")


def typed_options(context: click.Context) -> str:
    """Give the options that chose the source of records, as they were typed, to be typed again; with a blank first."""
    names = {"directory": "--dir", "data": "--data", **_NAMES, "hub": "--hub", "hub_ca": "--hub-ca"}
    names["system_namespace"] = "--system-namespace"
    typed = ((option, context.params[name]) for name, option in names.items() if _given(context, name))
    return "".join(f" {option} {shlex.quote(str(value))}" for option, value in typed)


def _given(context: click.Context, name: str) -> bool:
    return name in context.params and context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _is_plugin(context: click.Context) -> bool:
    return context.find_root().info_name == PLUGIN_NAME
