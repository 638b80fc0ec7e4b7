"""The hub's end of TLS."""

import ssl
from pathlib import Path


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    """Give a context for `HubServer`, with TLS 1.2 or newer. Raises ValueError as `load_certificate` does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, chain, key)
    return context


def load_certificate(context: ssl.SSLContext, chain: Path, key: Path) -> None:
    """Let `context` present this certificate (PEM: the chain, and its key) to whoever connects from now on.

    Works on the context of a running server: handshakes to come use it, open streams keep theirs. Keep to one type of
    key, for OpenSSL holds one certificate for each. Raises ValueError, naming the files, where they do not fit each
    other or cannot be read; the context is then as it was.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        context.load_cert_chain(chain, key)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"the certificate {chain} with the key {key} cannot be used: {error}") from error
