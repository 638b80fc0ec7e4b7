"""Where a hub or a decision webhook is found: a unix socket, loopback or, for a hub alone, TLS on any host."""

from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

MAX_SOCKET_PATH_BYTES = 107
"""Linux's limit on the path of a unix socket (unix(7)), without the closing NUL."""

MAX_HOST_CHARACTERS = 253


class Address(msgspec.Struct, frozen=True):
    """Either the path of a unix socket, or a host and port."""

    path: str | None = None
    host: str = "localhost"
    port: int = 80
    tls: bool = False
    """Whether it is spoken to over TLS."""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an HTTP client calls the other end."""
        return "http://hub" if self.path is not None else str(self)


def parse_address(text: str, *, tls: bool = False) -> Address:
    """Read an address: a unix socket's, or a loopback one's; with `tls`, also `https://` with any host.

    Raises ValueError for any other, saying what is allowed.
    """
    allowed = "unix:///absolute/path or http://127.0.0.1:8181" + (" or https://host:8443" if tls else "")
    form = f"the address {text!r} is not of the form {allowed}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{form}: {error}") from None
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(form)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/") and "\0" not in text:
        return _socket(parts.path)
    if parts.scheme not in {"http", "https"} or parts.path not in {"", "/"} or not parts.hostname or port is None:
        raise ValueError(form)
    if parts.scheme == "https":
        if not tls:
            raise ValueError(
                f"the address {text!r} asks for TLS, which only the stream to a hub has: agents and their decision"
                " webhook share a machine, and talk over a unix socket or http on loopback"
            )
        if len(parts.hostname) > MAX_HOST_CHARACTERS or any(c.isspace() or not c.isprintable() for c in parts.hostname):
            raise ValueError(form)
        return Address(host=parts.hostname, port=port, tls=True)
    if not _loopback(parts.hostname):
        raise ValueError(
            f"the address {text!r} is not on this machine: without TLS, the stream stays on a unix socket or on"
            f" loopback (127.0.0.1, ::1 or localhost){'; other hosts need https' if tls else ''}"
        )
    return Address(host=parts.hostname, port=port)


def _socket(path: str) -> Address:
    if (size := len(path.encode())) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"the path of the unix socket {path} has {size} bytes, and {MAX_SOCKET_PATH_BYTES} are allowed;"
            " choose a shorter directory"
        )
    return Address(path=path)


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
