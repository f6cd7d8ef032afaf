"""The TLS context: what it refuses to be made of, and what it speaks."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.certificate import Certificate, self_signed
from edge.tls import context
from streamgate.core.settings import TlsSettings
from streamgate.errors import StreamGateError

LISTEN = ("127.0.0.1:0",)


@pytest.fixture
def certificate() -> Iterator[Certificate]:
    """Files that can be used."""
    with self_signed() as made:
        yield made


def test_none_without_an_address() -> None:
    assert context(TlsSettings()) is None


def test_versions_and_protocols(certificate: Certificate) -> None:
    made = context(TlsSettings(listen=LISTEN, certificate=str(certificate.chain), key=str(certificate.key)))
    assert made is not None
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2
    assert made.options & ssl.OP_NO_RENEGOTIATION


def test_the_key_may_be_in_the_certificates_file(certificate: Certificate) -> None:
    assert context(TlsSettings(listen=LISTEN, certificate=str(certificate.both))) is not None


@pytest.mark.parametrize("wrong", ["no certificate", "no file", "other key", "no PEM", "password"])
def test_what_cannot_be_used_is_a_wrong_setting(certificate: Certificate, tmp_path: Path, wrong: str) -> None:
    chain, key = str(certificate.chain), certificate.key
    match wrong:
        case "no certificate":
            chain = ""
        case "no file":
            key = tmp_path / "none.pem"
        case "other key":
            with self_signed() as other:
                key = tmp_path / "other.pem"
                key.write_bytes(other.key.read_bytes())
        case "no PEM":
            certificate.chain.write_text("nothing")
        case "password":
            key = tmp_path / "locked.pem"
            command = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(certificate.key)]
            key.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    with pytest.raises(StreamGateError) as raised:
        context(TlsSettings(listen=LISTEN, certificate=chain, key=str(key)))
    assert raised.value.code == "config_invalid"
    assert str(tmp_path) not in raised.value.detail
