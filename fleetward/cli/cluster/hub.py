"""The audit trail of a cluster: the records of all its hubs, told by the one that is asked."""

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from fleetward.audit import remote
from fleetward.audit.query import RecordQuery
from fleetward.audit.remote import End, GapReport, Notice, RecordLine
from fleetward.audit.store import Gap, StoredRecord
from fleetward.budget.report import BudgetsReport
from fleetward.cli.cluster.forward import PortForward
from fleetward.cli.cluster.hubclient import HubClient, HubError, Where
from fleetward.cli.cluster.hubfollow import FollowedHub, stored
from fleetward.cli.cluster.kubectl import Kubectl
from fleetward.cli.output import CliError, note, printable
from fleetward.cli.records import Following
from fleetward.resources.names import AUDIENCE, AUDITOR, CA_CONFIG_MAP, CA_FILE, HUB_SERVICE
from fleetward.stream.address import parse_address


@contextlib.contextmanager
def open_hub(
    kubectl: Kubectl, system: str, url: str | None, ca_file: str | None, namespace: str | None
) -> "Iterator[HubRecords]":
    """Reach the hub, at `url` or by port-forward. Raises CliError where that cannot be done.

    `system` is the namespace that Fleetward runs in; `namespace`, where given, that of the agents asked about.
    """
    with contextlib.ExitStack() as stack:
        where: Where
        if url is None:
            forward = stack.enter_context(PortForward(kubectl, system))
            where = lambda: ("127.0.0.1", forward.port())  # noqa: E731 - the other way is one, too
        else:
            where = _fixed(url)
        tls = _trust(kubectl, system, ca_file)

        def token() -> str:
            options = ["--namespace", system, "--audience", AUDIENCE, "--duration", "10m"]
            return kubectl.run("create", "token", AUDITOR, *options).decode().strip()

        yield HubRecords(HubClient(where, tls, f"{HUB_SERVICE}.{system}.svc", token), namespace)


def _fixed(url: str) -> Where:
    try:
        address = parse_address(url, tls=True)
    except ValueError as error:
        raise CliError(f"--hub: {error}") from None
    if not address.tls:
        raise CliError(f"--hub: found {url}, allowed https://HOST:PORT: a token is not sent without TLS")
    return lambda: (address.host, address.port)


def _trust(kubectl: Kubectl, system: str, ca_file: str | None) -> ssl.SSLContext:
    if ca_file is not None:
        name = ca_file
        try:
            pem = Path(ca_file).read_text("ascii", "replace")
        except OSError as error:
            raise CliError(f"cannot read {ca_file}: {error.strerror}") from None
    else:
        name = f"{CA_FILE} of ConfigMap {system}/{CA_CONFIG_MAP}"
        pem = (kubectl.json("get", "configmap", CA_CONFIG_MAP, "--namespace", system).get("data") or {}).get(
            CA_FILE, ""
        )
    try:
        return ssl.create_default_context(cadata=pem)
    except ssl.SSLError:
        raise CliError(f"{name} holds no certificate to trust the hub by") from None


class HubRecords:
    """The records that a hub tells; see `fleetward.cli.records.Records`. What is missing is told on standard error."""

    where = "the audit stores of the cluster"

    def __init__(self, client: HubClient, namespace: str | None = None) -> None:
        self._client = client
        self._namespace = namespace
        self._told: set[Notice] = set()

    def newest(self, query: RecordQuery, limit: int) -> tuple[list[StoredRecord], bool]:
        """Give the newest records and whether there are more."""
        query = replace(query, namespace=self._namespace)
        if limit and limit <= remote.MAX_LIMIT:
            return self._read(replace(query, order="NewestFirst"), limit)
        records, _ = self._read(query, 0)
        return (records[-limit:], len(records) > limit) if limit else (records, False)

    def select(self, query: RecordQuery) -> list[StoredRecord]:
        """Give all the records that `query` selects."""
        return self._read(query, 0)[0]

    def each(self, query: RecordQuery) -> Iterator[StoredRecord]:
        """Give them as the hub tells them, each once."""
        seen: set[str] = set()
        for item in self._client.lines(remote.parameters(replace(query, namespace=self._namespace), limit=0)):
            if isinstance(item, Notice):
                self.tell([item])
            elif isinstance(item, RecordLine) and item.id not in seen:
                seen.add(item.id)
                yield stored(item)

    def gaps(self) -> list[Gap]:
        """Give the numbers that no hub has stored."""
        try:
            report = msgspec.json.decode(self._client.json(remote.GAPS_PATH), type=GapReport)
        except msgspec.MsgspecError as error:
            raise HubError(f"the hub's answer does not read: {error}") from error
        self.tell(report.notices)
        return list(report.gaps)

    def budgets(self) -> BudgetsReport:
        """Say how every pot stands. Raises HubError."""
        try:
            return msgspec.json.decode(self._client.json(remote.BUDGETS_PATH), type=BudgetsReport)
        except msgspec.MsgspecError as error:
            raise HubError(f"the hub's answer does not read: {error}") from error

    def follow(self, query: RecordQuery, limit: int) -> AbstractContextManager[Following]:
        """Follow the hubs."""
        return FollowedHub(self._client, self, replace(query, namespace=self._namespace), limit)

    def tell(self, notices: Sequence[Notice]) -> None:
        """Tell the user what is missing, each once."""
        for notice in notices:
            if notice not in self._told:
                self._told.add(notice)
                note(printable(f"note: {in_words(notice)}"), style="yellow")

    def _read(self, query: RecordQuery, limit: int) -> tuple[list[StoredRecord], bool]:
        """Give the records in the order of their times, each once, and whether there are more."""
        found: dict[str, RecordLine] = {}
        more = False
        for item in self._client.lines(remote.parameters(query, limit=limit)):
            if isinstance(item, RecordLine):
                found[item.id] = item
            elif isinstance(item, Notice):
                self.tell([item])
            elif isinstance(item, End):
                more = item.more
        return [stored(line) for line in sorted(found.values(), key=lambda line: (line.time, line.id))], more


def in_words(notice: Notice) -> str:
    """Say what a notice says."""
    return f"the replica {notice.peer}: {notice.message}" if notice.peer else notice.message
