"""What tells answers of one model from those of another: its bytes, and all else that its answers depend on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.keys import UnknownError, environment, fingerprint, own_code
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.weights import digested_with_base
from deepjudge_core.files.digests import file_key, of_file
from deepjudge_core.weights.reading import lora
from deepjudge_core.weights.reading.folder import described_by


@dataclass(frozen=True)
class Identity:
    """What answers of a model's file depend on, beside what it is asked.

    Attributes:
        adapter: What opens it.
        digest: SHA-256, in hex, of its bytes.
        settings: How it is opened and asked, by which versions and code, and what beside its bytes that reads.
        apart: Names of the files beside it that it may not take for its weights, since they are models of their own.
    """

    adapter: Adapter
    digest: str
    settings: tuple[Any, ...]
    apart: tuple[str, ...] = ()

    @property
    def settings_digest(self) -> str:
        """SHA-256, in hex, of the settings.

        Raises:
            UnknownError: When it is not known of something what it depends on.
        """
        return fingerprint("settings", self.settings)


def identify(subject: ModelFile, session: Session) -> Identity:
    """Read a model's files once, and say what they are; no framework is imported.

    Args:
        subject: The model.
        session: Where the adapters are, which other files are models, and whether it is going to be confined.

    Raises:
        ModelError: When no adapter reads it, or its files cannot be read.
        OSError: As well.
        UnknownError: When it is not known of something what it depends on.
    """
    path, adapters = Path(subject.path), session.registry.adapters
    if not (path.is_file() or path.is_dir()):
        raise UnknownError(f"{path}, which is no file")
    adapter = adapters.of_file(path, subject.name)
    apart = [
        name
        for name in ([] if path.is_dir() else adapter.beside(path))
        if file_key(path.with_name(name)) in session.models
    ]
    code = own_code(subject.options.get("arch"))
    described = [(name, of_file(path.with_name(name)).digest) for name in described_by(path)]
    settings = (
        *(adapters.provider(adapter.name), subject.query, subject.options, code, described, apart),
        # What is refused as a link is not known as a file with the same bytes.
        *(_links(path), session.sandbox is not None, session.device, environment(session.registry, adapter)),
    )
    return Identity(adapter, digest_of(path, subject.options.get("base"), session), settings, tuple(apart))


def digest_of(path: Path, base: str | Path | None, session: Session) -> str:
    """SHA-256, in hex, of a model's files; that of a LoRA covers its base.

    Args:
        path: The model.
        base: Path of its base, if the user named it.
        session: Where the adapters are.

    Raises:
        ModelError: When no adapter reads it, or its files cannot be read.
        OSError: As well.
    """
    adapters, name = session.registry.adapters, str(path)
    return digested_with_base(path, adapters.of_file(path, name), lora.base_of(path, base, name), adapters).digest


def _links(path: Path) -> tuple[str, ...]:
    inner = path.rglob("*") if path.is_dir() else ()
    names = sorted(one.relative_to(path).as_posix() for one in inner if one.is_symlink())
    return (*("." for _ in [path] if path.is_symlink()), *names)
