"""The texts and numbers that requests, mandates, grants and plans are made of, and what each may hold, in words."""

from typing import Annotated

from msgspec import Meta

MAX_COUNT = 2**53 - 1
"""The largest number every JSON reader keeps exact (RFC 8259, section 6)."""

_NAME = r"^[A-Za-z0-9_:/@+-]+(\.[A-Za-z0-9_:/@+-]+)*\Z"
_GLOB = r"^[A-Za-z0-9_:/@+*-]+(\.[A-Za-z0-9_:/@+*-]+)*\Z"
_TAG = r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?\Z"
_TARGET = r"^[A-Za-z0-9]([A-Za-z0-9._:/@-]*[A-Za-z0-9])?\Z"
_AGENT = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z"
_DIGEST = r"^sha256:[0-9a-f]{64}\Z"
_REFERENCE = r"^[A-Za-z0-9._:/-]+\Z"
_JWS = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z"
_TRACEPARENT = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"

PATTERNS = {
    _NAME: "a dotted name of letters, digits and _ : / @ + -, such as crm.customers.read",
    _GLOB: "a dotted name in which * stands for anything within a segment and ** for any segments, such as crm.**",
    _TAG: "letters, digits and . _ : / - within, such as customer",
    _TARGET: "letters, digits and . _ : / @ - within, such as crm",
    _AGENT: "an agent as namespace/name, such as reports/data-worker",
    _DIGEST: "sha256: and 64 hexadecimal digits",
    _REFERENCE: "letters, digits and . _ : / -",
    _JWS: "a grant as it was given: three parts of base64url, joined by dots",
    _TRACEPARENT: "a traceparent of W3C Trace Context",
}
"""What each pattern allows, in words."""

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
ActionGlob = Annotated[str, Meta(max_length=256, pattern=_GLOB, description=PATTERNS[_GLOB])]
ActionName = Annotated[str, Meta(max_length=256, pattern=_NAME, description=PATTERNS[_NAME])]
Tag = Annotated[str, Meta(max_length=63, pattern=_TAG)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=64)]
Target = Annotated[str, Meta(max_length=253, pattern=_TARGET)]
AgentKey = Annotated[str, Meta(max_length=127, pattern=_AGENT, description=PATTERNS[_AGENT])]
Digest = Annotated[
    str, Meta(pattern=_DIGEST, description="SHA-256 over the canonical JSON (RFC 8785), as sha256:<hex>")
]
Reference = Annotated[str, Meta(max_length=128, pattern=_REFERENCE)]
GrantToken = Annotated[str, Meta(max_length=32768, pattern=_JWS, description=PATTERNS[_JWS])]
TraceParent = Annotated[str, Meta(pattern=_TRACEPARENT, description=PATTERNS[_TRACEPARENT])]
