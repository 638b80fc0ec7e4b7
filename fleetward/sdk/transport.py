"""Requests over one kept connection a thread, TCP or unix socket, read with the standard library's HTTP parser."""

import http.client
import os
import socket
import threading
import weakref

from fleetward.sdk.exchange import MAX_REPLY_BYTES, Exchange, Reply, retry_after, unreachable
from fleetward.stream.address import Address

_HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
_GIVEN_UP = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""How a kept connection shows that the other side closed it in the meantime."""


class Transport:
    """Carries exchanges out, for any number of threads. `timeout` is in seconds, for connecting and for each read."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._local = threading.local()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()

    def exchange(self, exchange: Exchange) -> Reply:
        """Send a request and read its reply. Raises Unavailable."""
        connection = self._connection()
        kept = connection.is_open
        try:
            try:
                return connection.exchange(exchange)
            except _GIVEN_UP:
                connection.close()
                if not kept:
                    raise
                return connection.exchange(exchange)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise unreachable(self._address, error) from error
        except BaseException:  # interrupted: the reply still to come must not be taken for the next one's
            connection.close()
            raise

    def close(self) -> None:
        """Close every thread's connection; the next exchange opens a new one."""
        for connection in list(self._connections):
            connection.close()

    def _connection(self) -> "_Connection":
        """Give this thread's connection. A forked child does not share its parent's."""
        known: _Connection | None = getattr(self._local, "connection", None)
        if known is not None and known.pid == os.getpid():
            return known
        connection = self._local.connection = _Connection(self._address, self._timeout)
        self._connections.add(connection)
        return connection


class _Connection:
    def __init__(self, address: Address, timeout: float) -> None:
        self.pid = os.getpid()
        self._address = address
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def __del__(self) -> None:
        self.close()  # a thread that ended took no leave

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def exchange(self, exchange: Exchange) -> Reply:
        """Send a request and read its reply; connect first where need be."""
        if self._socket is None:
            self._socket = _connect(self._address, self._timeout)
        # In one piece, so that the webhook wakes up once.
        self._socket.sendall(_HEAD.format(exchange.path, len(exchange.body)).encode() + exchange.body)
        with http.client.HTTPResponse(self._socket, method="POST") as response:
            response.begin()
            body = response.read(MAX_REPLY_BYTES + 1)
            whole = response.isclosed() and not response.will_close
        if len(body) > MAX_REPLY_BYTES:
            raise http.client.HTTPException(f"its answer has more than {MAX_REPLY_BYTES} bytes")
        if not whole:
            self.close()
        return Reply(response.status, body, retry_after(response.getheader("Retry-After")))

    def close(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


def _connect(address: Address, timeout: float) -> socket.socket:
    if address.path is None:
        connection = socket.create_connection((address.host, address.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection
