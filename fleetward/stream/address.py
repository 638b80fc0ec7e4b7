"""Where a hub is found: `unix:///run/fleetward/hub.sock` or `http://127.0.0.1:8181`."""

from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

MAX_SOCKET_PATH_BYTES = 107
"""Linux's limit on the path of a unix socket (unix(7)), without the closing NUL."""


class Address(msgspec.Struct, frozen=True):
    """Either the path of a unix socket, or a host and port."""

    path: str | None = None
    host: str = "localhost"
    port: int = 80

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an HTTP client calls the other end."""
        return "http://hub" if self.path is not None else str(self)


def parse_address(text: str) -> Address:
    """Read an address: a unix socket's, or a loopback one's.

    Raises ValueError for any other, saying what is allowed.
    """
    form = f"the address {text!r} is not of the form unix:///absolute/path or http://127.0.0.1:8181"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{form}: {error}") from None
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(form)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/") and "\0" not in text:
        if (size := len(parts.path.encode())) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(
                f"the path of the unix socket {parts.path} has {size} bytes, and {MAX_SOCKET_PATH_BYTES} are allowed;"
                " choose a shorter directory"
            )
        return Address(path=parts.path)
    if parts.scheme != "http" or parts.path not in {"", "/"} or not parts.hostname or port is None:
        raise ValueError(form)
    if not _loopback(parts.hostname):
        raise ValueError(
            f"the address {text!r} is not on this machine: without TLS, the stream stays on a unix socket or on"
            " loopback (127.0.0.1, ::1 or localhost)"
        )
    return Address(host=parts.hostname, port=port)


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
