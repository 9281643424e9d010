"""What tells answers of one model from those of another: its bytes, and all else that its answers depend on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepjudge_core.auditing.keys import UnknownError, environment, fingerprint, own_code
from deepjudge_core.auditing.session import Session
from deepjudge_core.auditing.subject import ModelFile
from deepjudge_core.components.kinds import Adapter
from deepjudge_core.components.opening import digested
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
    code, base = own_code(subject.options.get("arch")), digest_of(_base_of(subject, path), session)
    described = [(name, of_file(path.with_name(name)).digest) for name in described_by(path)]
    settings = (
        *(adapters.provider(adapter.name), subject.query, subject.options, code, base, described, apart),
        # What is refused as a link is not known as a file with the same bytes.
        *(_links(path), session.sandbox is not None, environment(session.registry, adapter)),
    )
    return Identity(adapter, digested(path, adapter).digest, settings, tuple(apart))


def digest_of(path: Path | None, session: Session) -> str | None:
    """SHA-256, in hex, of another model's files, such as those of a base; None for none."""
    if path is None:
        return None
    return digested(path, session.registry.adapters.of_file(path, str(path))).digest


def _base_of(subject: ModelFile, path: Path) -> Path | None:
    # What a LoRA changes, of which answers depend as well.
    if base := subject.options.get("base"):
        return Path(base)
    return lora.base_beside(path, lora.read_lora(path, subject.name)) if lora.is_lora(path) else None


def _links(path: Path) -> tuple[str, ...]:
    inner = path.rglob("*") if path.is_dir() else ()
    names = sorted(one.relative_to(path).as_posix() for one in inner if one.is_symlink())
    return (*("." for _ in [path] if path.is_symlink()), *names)
