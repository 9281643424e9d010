"""A time-stamping authority made on the fly: certificates by cryptography, responses by ``openssl ts``."""

import datetime
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

OPENSSL = shutil.which("openssl")
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """An authority whose files lie in a folder, its root certificate as `root.pem`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, days: tuple[float, float] = (-1, 1)) -> "Authority":
        """With a certificate that is valid between these days from now."""
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _certificate("root", root_key, "root", root_key, (-9, 9)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        own = _certificate("authority", key, "root", root_key, days).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True
        )
        for name, certificate in {"root.pem": root, "own.pem": own}.items():
            signed = certificate.sign(root_key, hashes.SHA256())
            (folder / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / "own.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        return cls(folder)

    def answer(self, request: str, response: str, *, digests: str = "sha256") -> None:
        """Answer a request, of one of these digests only."""
        assert OPENSSL
        (self.folder / "settings").write_text(
            "[own]\nserial = serial\ndefault_policy = 1.2.3.4\nsigner_digest = sha256\ncrypto_device = builtin\n"
            f"ess_cert_id_alg = sha256\ndigests = {digests}\n"
        )
        files = ("-queryfile", Path(request).absolute(), "-out", Path(response).absolute())
        own = ("-section", "own", "-config", "settings", "-signer", "own.pem", "-inkey", "own.key")
        subprocess.run([OPENSSL, "ts", "-reply", *own, *files], cwd=self.folder, capture_output=True, check=True)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: tuple[float, float],
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    common = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
    return (
        x509.CertificateBuilder()
        .subject_name(common[0])
        .issuer_name(common[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
