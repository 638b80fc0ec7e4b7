"""Requests to a cluster's hub: TLS by Fleetward's own CA, a short-lived token, answers line by line."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from urllib.parse import urlencode

import msgspec

from fleetward.audit import remote
from fleetward.audit.remote import End, Line, RecordLine
from fleetward.cli.output import CliError

SILENT_SECONDS = 15.0
"""How long the hub may be silent in an answer; where it has nothing to tell it says so every second."""

RENEW_SECONDS = 300.0
"""How long a token is used; it lasts twice that."""

MAX_PROBLEM = 65_536

Where = Callable[[], tuple[str, int]]
"""Gives host and port to connect to."""

_BROKEN = (OSError, http.client.HTTPException)


class HubError(CliError):
    """The hub cannot be reached, or does not answer as it should."""


class HubClient:
    """Asks the hub. `server_name` is the name in its certificate, `token` makes a bearer token.

    Raises HubError, and whatever `where` and `token` raise.
    """

    def __init__(self, where: Where, tls: ssl.SSLContext, server_name: str, token: Callable[[], str]) -> None:
        self._where = where
        self._tls = tls
        self._server_name = server_name
        self._make_token = token
        self._token: tuple[float, str] | None = None

    def lines(
        self, parameters: Sequence[tuple[str, str]], opened: Callable[[socket.socket], None] = lambda _: None
    ) -> Iterator[Line | RecordLine | None]:
        """Ask for records, and give the lines of the answer up to End; None where the hub has nothing to tell just now.

        `opened` is told the connection, which another thread may shut down.
        """
        with closing(self._connect()) as connection:
            if connection.sock is not None:
                opened(connection.sock)
            try:
                response = self._ask(connection, remote.RECORDS_PATH, parameters)
                while line := response.readline():
                    item = remote.read_line(line.rstrip(b"\r\n")) if line.strip() else None
                    yield item
                    if isinstance(item, End):
                        return
            except _BROKEN as error:
                raise self._error(error) from error
            except msgspec.MsgspecError as error:
                raise HubError(f"a line of the hub's answer does not read: {error}") from error
        raise HubError("the hub's answer broke off")

    def json(self, path: str, parameters: Sequence[tuple[str, str]] = ()) -> bytes:
        """Ask for JSON, and give it."""
        with closing(self._connect()) as connection:
            try:
                return self._ask(connection, path, parameters).read()
            except _BROKEN as error:
                raise self._error(error) from error

    def _connect(self) -> "_Connection":
        connection = _Connection(*self._where(), self._tls, self._server_name)
        try:
            connection.connect()
        except _BROKEN as error:
            connection.close()
            raise self._error(error) from error
        return connection

    def _ask(
        self, connection: "_Connection", path: str, parameters: Sequence[tuple[str, str]]
    ) -> http.client.HTTPResponse:
        if self._token is None or time.monotonic() - self._token[0] > RENEW_SECONDS:
            self._token = (time.monotonic(), self._make_token())
        headers = {"Authorization": f"Bearer {self._token[1]}", "Host": self._server_name}
        connection.request("GET", f"{path}?{urlencode(parameters)}" if parameters else path, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            if response.status == 401:
                self._token = None
            raise HubError(_problem(response))
        return response

    def _error(self, error: BaseException) -> HubError:
        where = f"the hub at {self._server_name}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return HubError(f"{where} cannot be trusted: {error.verify_message}; is its CA the one that was given?")
        if isinstance(error, TimeoutError):
            return HubError(f"{where} gave no answer within {SILENT_SECONDS:g} s")
        words = error.strerror if isinstance(error, OSError) else None
        return HubError(f"{where} cannot be read: {words or str(error) or type(error).__name__}")


class _Connection(http.client.HTTPSConnection):
    """Connects to one address and expects a certificate for another name, as through a port-forward."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=SILENT_SECONDS, context=tls)
        self._tls = tls
        self._server_name = server_name

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self._server_name)
        except BaseException:
            plain.close()
            raise


def _problem(response: http.client.HTTPResponse) -> str:
    data = response.read(MAX_PROBLEM)
    try:
        detail = json.loads(data)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = data[:200].decode(errors="replace") or response.reason
    return f"the hub answered {response.status}: {detail}"
