"""The certificate this webhook answers under: from a Secret or a folder, replaced while it runs."""

import asyncio
import base64
import binascii
import contextlib
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fleetward_webhook.admission.reads import Reader, ReadError

POLL_SECONDS = 2.0
"""How often it is looked whether there is a new one. The operator replaces one long before it expires."""
FIRST_POLL_SECONDS = 0.5
"""The same while there is none at all."""

_log = logging.getLogger(__name__)


class CertificateError(Exception):
    """Why there is no certificate to use, in words."""


class Pair(NamedTuple):
    """A certificate with its chain, and its private key, both PEM."""

    certificate: bytes
    key: bytes


Source = Callable[[], Awaitable[Pair]]
"""Gives the certificate as it is now. Raises CertificateError."""


def from_secret(reader: Reader, namespace: str, name: str) -> Source:
    """Read the certificate from a Secret of type kubernetes.io/tls."""

    async def read() -> Pair:
        where = f"Secret {namespace}/{name}"
        try:
            data = await reader.secret(namespace, name)
            return Pair(*(base64.b64decode(data[key], validate=True) for key in ("tls.crt", "tls.key")))
        except ReadError as error:
            there = f"there is no {where} yet; the operator makes it" if error.status == 404 else str(error)
            raise CertificateError(there) from None
        except (KeyError, binascii.Error) as error:
            raise CertificateError(f"{where}: needs tls.crt and tls.key in base64: {error}") from None

    return read


def from_folder(folder: Path) -> Source:
    """Read the certificate from the files tls.crt and tls.key."""

    async def read() -> Pair:
        try:
            return await asyncio.to_thread(
                lambda: Pair((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes())
            )
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None

    return read


class Certificate:
    """The certificate in use. `context` is for the server; connections made after a replacement get the new one."""

    def __init__(self, source: Source) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._source = source
        self._pair: Pair | None = None
        self.problem = "there is no certificate yet"
        """Why there is none, or no newer one; empty: all is well."""

    @property
    def loaded(self) -> bool:
        """Whether there is a certificate."""
        return self._pair is not None

    async def refresh(self) -> None:
        """Look for a new certificate; one that does not fit its key is passed over, and told."""
        try:
            pair = await self._source()
            if pair != self._pair:
                _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)  # half a pair must not spoil the one in use
                _load(self.context, pair)
                _log.info("%s certificate", "replaced the" if self.loaded else "got a")
                self._pair = pair
            problem = ""
        except CertificateError as error:
            problem = str(error)
        if problem and problem != self.problem:
            _log.warning("certificate: %s", problem)
        self.problem = problem

    async def keep(self) -> None:
        """Look for a new certificate for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS if self.loaded else FIRST_POLL_SECONDS)


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Load a pair. OpenSSL takes files only, so it gets files in memory: the key is written to no disk."""
    with _file(pair.certificate) as certificate, _file(pair.key) as key:
        try:
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"the certificate cannot be used: {error}") from None


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("fleetward-admission", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
