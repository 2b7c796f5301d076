"""Certificates that hold, and those that do not, for servers on loopback."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
import tempfile
import warnings
from pathlib import Path
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
    self_signed: ssl.SSLContext
    old_protocol: ssl.SSLContext
    """Holds, and speaks nothing newer than TLS 1.1 (RFC 8996)."""


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def old(context: ssl.SSLContext) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    return context


def signed_by_itself(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.pem")
        whole.write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        context.load_cert_chain(whole)
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
        self_signed=signed_by_itself(stranger),
        old_protocol=old(serving(authority.issue_cert("127.0.0.1"))),
    )
