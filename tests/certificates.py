"""A certificate authority for one test run."""

import datetime
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates; `file` is what a client has to trust."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name("Test authority")
        self.certificate = self._sign(self.name, self.key, x509.BasicConstraints(True, 0), None, 30)
        self.file = folder / "authority.pem"
        self.file.write_bytes(_pem(self.certificate))

    def server(self, host, days=30) -> ssl.SSLContext:
        """The server's side of TLS under a certificate for `host` (a name or an IP address)."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        names = x509.SubjectAlternativeName([name])
        certificate = self._sign(_name(host), key, x509.BasicConstraints(False, None), names, days)
        chain, secret = self.folder / f"{host}{days}.pem", self.folder / f"{host}{days}.key"
        chain.write_bytes(_pem(certificate))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, secret)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))

    def _sign(self, subject, key, constraints, names, days):
        now = datetime.datetime.now(datetime.UTC)
        start = now - datetime.timedelta(days=60)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(constraints, True)
        )
        if names:
            builder = builder.add_extension(names, False)
        return builder.sign(self.key, hashes.SHA256())


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)
