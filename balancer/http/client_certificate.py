"""Whose client certificate a connection came with. Pure.

TLS has checked it by then: what is told of a peer's certificate is told of one that was signed by
`tls_client_ca` and is in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def certificate_names(certificate: Mapping[str, Any] | None) -> frozenset[str] | None:
    """Its common name and its DNS names, as `SSLSocket.getpeercert` has them; None where there is
    no certificate."""
    if not certificate:
        return None
    common = (
        value
        for attributes in certificate.get("subject", ())
        for name, value in attributes
        if name == "commonName"
    )
    alternative = (value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")
    return frozenset((*common, *alternative))
