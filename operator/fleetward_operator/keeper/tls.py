"""The Secrets: our CA, and the certificates of hub and admission webhook that it signs."""

import base64
import binascii
import datetime as dt
import logging
from collections.abc import Sequence

from fleetward.resources.names import ADMISSION_TLS_SECRET, CA_FILE, CA_SECRET, HUB_TLS_SECRET
from fleetward_operator.keeper.certificates import Authority, CertificateError, Pair, due, issue
from fleetward_operator.keeper.ensure import TRIES
from fleetward_operator.keeper.settings import MANAGED, KeeperSettings
from fleetward_operator.kube.objects import SECRET, Body, Objects
from fleetward_operator.kube.rest import RequestError

CERTIFICATE, KEY = "tls.crt", "tls.key"
NEXT_CERTIFICATE, NEXT_KEY = "next.crt", "next.key"
"""In the CA's Secret alone: the CA that will sign next."""

Data = dict[str, bytes]

_log = logging.getLogger(__name__)


async def keep_tls(objects: Objects, settings: KeeperSettings, now: dt.datetime) -> bytes:
    """Make and renew what is due, put right what was damaged, and give the bundle of CAs to trust (PEM).

    Raises RequestError, NotLeadingError.
    """
    authority = await _keep_authority(objects, settings.namespace, now)
    for name, names in (
        (HUB_TLS_SECRET, settings.hub_certificate_names),
        (ADMISSION_TLS_SECRET, settings.admission_certificate_names),
    ):
        await _keep_leaf(objects, f"{settings.namespace}/{name}", names, authority, now)
    return authority.bundle


def decode(secret: Body | None) -> Data:
    """Give a Secret's data; nothing where there is no Secret."""
    data = (secret or {}).get("data") or {}
    try:
        return {key: base64.b64decode(value or "") for key, value in data.items()}
    except binascii.Error:  # the API server would not have taken it
        return {}


async def _keep_authority(objects: Objects, namespace: str, now: dt.datetime) -> Authority:
    for left in reversed(range(TRIES)):
        stored = await objects.get(SECRET, CA_SECRET, namespace)
        data = decode(stored)
        why = "there was none"
        try:
            before = _read_authority(data, now) if stored else None
        except CertificateError as error:
            before, why = None, f"the stored one does not do: {error}"
        if before is None:
            authority = Authority.new(now, trusted=[data.get(CA_FILE, b""), *await _trusted(objects, namespace)])
        else:
            authority = before.advance(now)
            why = _difference(before, authority)
        try:
            if await _write(objects, namespace, CA_SECRET, stored, _authority_data(authority)):
                _log.warning("Secret %s/%s: %s", namespace, CA_SECRET, f"a new CA, as {why}" if before is None else why)
        except RequestError as error:
            if error.status != 409 or not left:
                raise
        else:
            break
    return authority


async def _trusted(objects: Objects, namespace: str) -> list[bytes]:
    """Give the bundles that were in use when the CA's Secret was lost: what was signed before stays good.

    Who wants to trust a CA no longer deletes these Secrets with the CA's.
    """
    names = (HUB_TLS_SECRET, ADMISSION_TLS_SECRET)
    return [decode(await objects.get(SECRET, name, namespace)).get(CA_FILE, b"") for name in names]


async def _keep_leaf(
    objects: Objects, secret: str, names: Sequence[str], authority: Authority, now: dt.datetime
) -> None:
    namespace, name = secret.split("/")
    for left in reversed(range(TRIES)):
        stored = await objects.get(SECRET, name, namespace)
        data = decode(stored)
        try:
            pair = _read_pair(data, CERTIFICATE, KEY)
            why = due(pair, authority, names, now)
        except CertificateError as error:
            why = f"the stored one does not do: {error}" if stored else "there was none"
        if why:
            pair = issue(authority, names, now)
        wanted = {CERTIFICATE: pair.certificate, KEY: pair.key, CA_FILE: authority.bundle}
        try:
            if await _write(objects, namespace, name, stored, wanted):
                said = f"a new certificate, as {why}" if why else "the bundle of CAs put right"
                _log.info("Secret %s: %s", secret, said)
        except RequestError as error:
            if error.status != 409 or not left:
                raise
        else:
            return


async def _write(objects: Objects, namespace: str, name: str, stored: Body | None, wanted: Data) -> bool:
    """Write our keys if they differ, onto the very version that was read; say whether that was needed."""
    have = decode(stored)
    superfluous = {NEXT_CERTIFICATE, NEXT_KEY} - wanted.keys()
    data = {key: value for key, value in have.items() if key not in superfluous} | wanted
    if stored is not None and data == have:
        return False
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    if stored is not None and stored.get("immutable"):
        await objects.delete(SECRET, stored)
        stored = None
    if stored is None:
        metadata = {"name": name, "namespace": namespace, "labels": MANAGED}
        await objects.create(SECRET, {"metadata": metadata, "type": "kubernetes.io/tls", "data": encoded})
    else:
        await objects.replace(SECRET, {**stored, "data": encoded})
    return True


def _read_pair(data: Data, certificate: str, key: str) -> Pair:
    return Pair(data.get(certificate, b""), data.get(key, b""))


def _read_authority(data: Data, now: dt.datetime) -> Authority:
    signer, successor = _read_pair(data, CERTIFICATE, KEY), None
    if NEXT_CERTIFICATE in data:
        try:
            successor = _read_pair(data, NEXT_CERTIFICATE, NEXT_KEY)
        except CertificateError as error:
            _log.warning("the CA that was to sign next does not do (%s); another is made", error)
    return Authority(signer, successor).trusting([data.get(CA_FILE, b"")], now)


def _authority_data(authority: Authority) -> Data:
    data = {CERTIFICATE: authority.signer.certificate, KEY: authority.signer.key, CA_FILE: authority.bundle}
    if authority.successor is not None:
        data |= {NEXT_CERTIFICATE: authority.successor.certificate, NEXT_KEY: authority.successor.key}
    return data


def _difference(before: Authority, after: Authority) -> str:
    if after.signer != before.signer:
        return "another CA signs from now on; the one before stays trusted until it expires"
    if after.successor != before.successor:
        return "the CA that will sign next is made and published"
    return "the bundle of CAs put right"
