"""Certificates that hold, and those that do not, for servers on loopback."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from typing import NamedTuple

import trustme


class Certificates(NamedTuple):
    trusting: ssl.SSLContext
    """For clients: knows this authority."""
    authority: bytes
    """Its certificate, PEM."""
    good: ssl.SSLContext
    other_host: ssl.SSLContext
    untrusted: ssl.SSLContext
    expired: ssl.SSLContext


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@functools.cache
def certificates() -> Certificates:
    """Made once for each program."""
    authority, stranger = trustme.CA(), trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    long_ago = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
    return Certificates(
        trusting,
        authority.cert_pem.bytes(),
        good=serving(authority.issue_cert("127.0.0.1", "api.tenios.invalid")),
        other_host=serving(authority.issue_cert("elsewhere.invalid")),
        untrusted=serving(stranger.issue_cert("127.0.0.1")),
        expired=serving(
            authority.issue_cert("127.0.0.1", not_before=long_ago, not_after=long_ago + dt.timedelta(days=1))
        ),
    )
