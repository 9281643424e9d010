"""How what comes of an audit is made fit to be checked by others, and how it is checked."""

from dataclasses import dataclass
from pathlib import Path

from deepjudge_core.settings import setting


@dataclass(frozen=True)
class BundleSettings:
    """How what comes of an audit is made fit to be checked by others.

    Attributes:
        commitment: What was committed to before; None for nothing.
        tsa_response: The response of an authority that stamps the commitment; None for none.
        victim_commitment: A commitment to the victim from before; None for none.
        victim_tsa_response: The response of an authority that stamps that; None for none.
        key: The private key that signs the bundle; None for an unsigned one.
        observations: Whether test cases and answers are part of it.
    """

    commitment: Path | None = setting(
        "commitment from 'deepjudge commit'; refuse to judge by anything else",
        "--commitment",
        default=None,
        group="bundle",
        metavar="COMMITMENT",
        key="commitment",
        tables=("bundle",),
        sample="commitment.json",
        reads=True,
    )
    tsa_response: Path | None = setting(
        "a time-stamping authority's response to the request of 'deepjudge commit'",
        "--tsa-response",
        default=None,
        group="bundle",
        metavar="RESPONSE.tsr",
        key="tsa_response",
        tables=("bundle",),
        sample="commitment.tsr",
        reads=True,
        formerly=("--tsa", "bundle.tsa"),
    )
    victim_commitment: Path | None = setting(
        "commitment to the victim from 'deepjudge commit --model'; shows, if it is time-stamped, since when it existed",
        "--victim-commitment",
        default=None,
        group="bundle",
        metavar="COMMITMENT",
        key="victim_commitment",
        tables=("bundle",),
        sample="victim.json",
        reads=True,
    )
    victim_tsa_response: Path | None = setting(
        "a time-stamping authority's response to the request of 'deepjudge commit --model'",
        "--victim-tsa-response",
        default=None,
        group="bundle",
        metavar="RESPONSE.tsr",
        key="victim_tsa_response",
        tables=("bundle",),
        sample="victim.tsr",
        reads=True,
    )
    key: Path | None = setting(
        "sign the bundle with this Ed25519 private key in PEM",
        "--key",
        default=None,
        group="bundle",
        metavar="PEM",
        key="key",
        tables=("bundle",),
        sample="key.pem",
        reads=True,
    )
    observations: bool = setting(
        "leave test cases and answers out of the bundle that you hand over; they go to the folder DIR-withheld",
        "--without-observations",
        default=True,
        group="bundle",
        key="observations",
        tables=("bundle",),
    )


@dataclass(frozen=True)
class VerifySettings:
    """Whom a bundle has to come from, and what else has to belong to it.

    Attributes:
        public_key: Who has to have signed it; None for the key that it names itself.
        tsa_certificate: Which authority has to have stamped its commitment; None for a time that is not verified.
        page: A page that has to be the one of its report; None for none.
    """

    public_key: Path | None = setting(
        "Ed25519 public key that must have signed the bundle; without it, the signature is "
        "checked against the key named in the bundle itself",
        "--public-key",
        default=None,
        group="bundle",
        metavar="PEM",
        reads=True,
    )
    tsa_certificate: Path | None = setting(
        "root certificate of the authority that must have stamped the commitment, with any "
        "others missing from its response; without it, the time is not verified",
        "--tsa-certificate",
        default=None,
        group="bundle",
        metavar="PEM",
        reads=True,
    )
    page: Path | None = setting(
        "page for people, HTML or Markdown, that has to be the one of the bundle's report",
        "--page",
        default=None,
        group="bundle",
        metavar="FILE",
        reads=True,
    )
