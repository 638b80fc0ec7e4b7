"""Certificates of our own: a CA, the leaves it signs, and when each is due to be replaced.

Pure: the time is an argument, and nothing is read or written. Curve P-256 (FIPS 186-5), certificates after RFC 5280.
One rule holds at every moment: no leaf is signed by a CA that has not been in the published bundle for `PUBLISHED`,
unless the old CA is of no use any more. So whoever trusts a bundle that is a day old still trusts every leaf.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = dt.timedelta(days=3650)
LEAF_LIFE = dt.timedelta(days=90)
BACKDATED = dt.timedelta(hours=1)
"""How far back a certificate's validity begins, for clocks that run behind."""

SUCCESSION = 0.8
"""The part of a CA's life after which its successor is made and published."""

RENEWAL = 2 / 3
"""The part of a leaf's life after which it is replaced."""

PUBLISHED = dt.timedelta(days=7)
"""How long a CA is in the bundle before it signs."""

MAX_RETIRED = 20
"""How many CAs that sign no more are trusted, the last ones: a bundle stays small, whoever deletes our Secrets."""

URGENT = dt.timedelta(days=2)
"""What must be left of a certificate for it to wait for a CA that is not published for long enough."""


class CertificateError(ValueError):
    """What is wrong with a stored certificate or key, in words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __post_init__(self) -> None:
        """Raise CertificateError where they do not read or do not belong together."""
        if _public(_read_key(self.key).public_key()) != _public(self.x509.public_key()):
            raise CertificateError("the key is not the certificate's")

    @property
    def x509(self) -> x509.Certificate:
        """The certificate, parsed."""
        return read_certificates(self.certificate)[0]

    @property
    def made(self) -> dt.datetime:
        """When it was made."""
        return self.x509.not_valid_before_utc + BACKDATED


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs, what will sign next, and what signed before: all of them trusted."""

    signer: Pair
    successor: Pair | None = None
    retired: tuple[bytes, ...] = ()
    """Certificates (PEM) of CAs that sign no more, until they expire."""

    @property
    def bundle(self) -> bytes:
        """The certificates to trust, PEM, the signer's first."""
        successor = (self.successor.certificate,) if self.successor else ()
        return b"".join((self.signer.certificate, *successor, *self.retired))

    @classmethod
    def new(cls, now: dt.datetime, *, trusted: Iterable[bytes] = ()) -> Self:
        """Make a CA. `trusted` are bundles of CAs whose keys were lost: what they signed stays trusted."""
        return cls(_make_authority(now)).trusting(trusted, now)

    def trusting(self, bundles: Iterable[bytes], now: dt.datetime) -> Self:
        """Take in the CAs of bundles, except for what is expired, known, or no CA."""
        own = {_fingerprint(self.signer.x509), *((_fingerprint(self.successor.x509),) if self.successor else ())}
        kept: dict[bytes, bytes] = {}
        for certificate in (each for bundle in (*self.retired, *bundles) for each in _readable(bundle)):
            mark = _fingerprint(certificate)
            if mark not in own and now < certificate.not_valid_after_utc and _is_authority(certificate):
                kept[mark] = certificate.public_bytes(serialization.Encoding.PEM)
        return replace(self, retired=tuple(kept.values())[:MAX_RETIRED])

    def advance(self, now: dt.datetime) -> Self:
        """Do what is due: make a successor, let it sign, drop what is expired. Nothing due: equal to before."""
        signer, successor = self.signer, self.successor
        if now < signer.x509.not_valid_before_utc:  # made while the clock was wrong
            return self.new(now, trusted=(self.bundle,))
        if successor is not None and now < successor.x509.not_valid_before_utc:
            successor = None
        if successor is None and now - signer.made >= SUCCESSION * AUTHORITY_LIFE:
            successor = _make_authority(now)
        urgent = now + URGENT >= signer.x509.not_valid_after_utc
        if successor is not None and (urgent or now - successor.made >= PUBLISHED):
            return type(self)(successor, None, (signer.certificate, *self.retired)).trusting((), now)
        return replace(self, successor=successor).trusting((), now)


def issue(authority: Authority, names: Sequence[str], now: dt.datetime) -> Pair:
    """Sign a server's certificate for these DNS names and IP addresses, with a key of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = authority.signer.x509
    ends = min(now + LEAF_LIFE, signer.not_valid_after_utc)
    usage = _usage(digital_signature=True)
    builder = (
        _builder(_name(names[0][:64]), signer.subject, key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(_identifier(signer), critical=False)
    )
    return _signed(builder, key, _read_key(authority.signer.key))


def due(pair: Pair, authority: Authority, names: Sequence[str], now: dt.datetime) -> str:
    """Say why a leaf has to be replaced now; empty where it need not be."""
    leaf = pair.x509
    if not any(_signed_by(leaf, each) and now < each.not_valid_after_utc for each in _readable(authority.bundle)):
        return "no trusted CA signed it"
    if now < leaf.not_valid_before_utc:
        return f"it is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} only"
    if found := _names(leaf) ^ {_general(name) for name in names}:
        return f"its names are others: {', '.join(sorted(str(name.value) for name in found))}"
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if now < leaf.not_valid_before_utc + RENEWAL * life:
        return ""
    waits = now - authority.signer.made < PUBLISHED and now + URGENT < leaf.not_valid_after_utc
    return "" if waits else f"it ends on {leaf.not_valid_after_utc:%Y-%m-%d}"


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """Parse certificates. Raises CertificateError where there is none, or one does not read."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError("no certificate in PEM") from error


def _make_authority(now: dt.datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own for each, so that nothing has to guess which of two CAs signed.
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"Fleetward CA {now:%Y-%m-%d} {public.digest.hex()[:8]}")
    builder = (
        _builder(name, name, key.public_key(), now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return _signed(builder, key, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> Pair:
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(builder.sign(by, hashes.SHA256()).public_bytes(encoding), private)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    public = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(public)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(leaf: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _readable(bundle: bytes) -> list[x509.Certificate]:
    try:
        return read_certificates(bundle)
    except CertificateError:
        return []


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError("no private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("the private key is not an elliptic curve's")
    return key


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError("the certificate's key is not an elliptic curve's")
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def _fingerprint(certificate: x509.Certificate) -> bytes:
    return certificate.fingerprint(hashes.SHA256())
