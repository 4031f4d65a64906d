"""Certificates for both sides, and a look at what a server speaks: all three must do the same, or nothing is compared.

RSA of 2048 bits, as VDSM's own authority makes them. With connections that are kept the kind of key does not matter.
"""

import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Papers:
    """A certificate and its key, in PEM, and the authority's certificate."""

    certificate: Path
    key: Path
    ca: Path


def _openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class Authority:
    """An authority of this run's own, in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.ca, self.key = folder / "ca.pem", folder / "ca.key"
        _openssl("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", 2, "-subj", "/CN=bench authority",
                 "-keyout", self.key, "-out", self.ca)  # fmt: skip

    def issue(self, name):
        papers = Papers(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.ca)
        request, extra = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extra.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _openssl("req", "-new", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}", "-keyout", papers.key,
                 "-out", request)  # fmt: skip
        _openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-days", 2,
                 "-extfile", extra, "-out", papers.certificate)  # fmt: skip
        return papers


def client_context(papers):
    """Shows the papers, and trusts their authority alone."""
    context = ssl.create_default_context(cafile=papers.ca)
    context.load_cert_chain(papers.certificate, papers.key)
    return context


def spoken(port, papers):
    """The protocol and the cipher that a server and our client agree upon; whoever shows no certificate must get nothing."""
    nobody = ssl.create_default_context(cafile=papers.ca)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with nobody.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
                stream.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
                answer = stream.recv(4096)
        except OSError:
            answer = b""
    # nginx says in HTTP what the others say by TLS.
    if answer and not answer.startswith(b"HTTP/1.1 400 "):
        raise RuntimeError(f"port {port} serves whoever shows no certificate: {answer[:80]!r}")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with client_context(papers).wrap_socket(plain, server_hostname="127.0.0.1") as stream:
            name, protocol, _ = stream.cipher()
            return f"{protocol} with {name}"
