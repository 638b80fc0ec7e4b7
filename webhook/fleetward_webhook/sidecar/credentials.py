"""What the sidecar knows its hub by, and proves itself with, over TLS: two files, read anew for every connection.

Kubernetes replaces both while the sidecar runs: the token before it expires, the CA's certificates when they rotate.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 2**20
"""A CA bundle or token that is longer is none."""

MAX_TOKEN_CHARACTERS = 7000
"""What fits a header of 8190 bytes, the most that the hub takes."""


class CredentialsError(Exception):
    """A file cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the CA's certificates (PEM, one or more) and the bearer token are."""

    ca_file: Path
    token_file: Path

    def tls(self) -> ssl.SSLContext:
        """Give a context that trusts these certificates only, checks the host's name, and takes TLS 1.2 or newer.

        Raises CredentialsError.
        """
        text = _read(self.ca_file, "hub's CA certificates")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=text)
        except ssl.SSLError as error:
            why = error.reason or str(error)
            raise CredentialsError(f"{self.ca_file} holds no CA certificates in PEM form ({why})") from None
        return context

    def token(self) -> str:
        """Give the token. Raises CredentialsError."""
        token = _read(self.token_file, "token for the hub").strip()
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise CredentialsError(f"{self.token_file} holds a token of {len(token)} characters; a header cannot")
        if not token.isprintable() or " " in token:
            raise CredentialsError(f"{self.token_file} holds more than a token: blanks or control characters")
        return token


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"cannot read the {what} from {path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise CredentialsError(f"{path}, for the {what}, is longer than {MAX_FILE_BYTES} bytes")
    if not content.strip():
        raise CredentialsError(f"{path}, for the {what}, is empty")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise CredentialsError(f"{path}, for the {what}, holds bytes that are not ASCII") from None
