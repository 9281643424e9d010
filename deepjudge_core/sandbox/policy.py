"""What a stranger's model may take, and what its isolation turned out to be."""

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from deepjudge_core.errors import UsageError
from deepjudge_core.models.device import CPU, Device, check_device, wants_gpu
from deepjudge_core.naming import option
from deepjudge_core.settings import Size, part, setting

_LONGEST = 10**6  # seconds: the clocks of some systems end soon after
_MOST_MEMORY = 8 * 2**30


def _default_memory() -> int:
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no POSIX
        return _MOST_MEMORY
    return min(_MOST_MEMORY, whole // 2)


@dataclass(frozen=True)
class Sandbox:
    """How a stranger's model is opened and run: in a process of its own, within limits.

    Attributes:
        memory: Bytes that it may take beside its framework, and that its files may have; by default 8 GiB, or half of
            the machine's memory if that is less.
        timeout: Seconds for opening it, and for each batch of answers.
        total: Seconds for a control or suspect in all, with what this process does between its answers. A victim has as
            long as its owner waits.
        template: Whether a model's process may be a copy of one that has imported its framework, which takes a tenth of
            the time; such copies share the layout of their memory.
        required: Whether a model is refused where the sandbox is not the full one.
    """

    memory: Annotated[int, Size(), Ge(2**20)] = setting(
        "memory limit of a model in addition to its framework, and limit of its files in total, such as 2GiB",
        "--memory",
        factory=_default_memory,
        group="isolation",
        metavar="SIZE",
        key="memory",
        tables=("sandbox",),
        sample="8GiB",
        usual="8GiB, or half of the machine's memory if that is less",
    )
    timeout: Annotated[float, Gt(0), Le(_LONGEST)] = setting(
        "time limit in seconds for opening a model, and for each batch of its answers",
        "--timeout",
        default=300.0,
        group="isolation",
        metavar="SECONDS",
        key="timeout",
        tables=("sandbox",),
    )
    total: Annotated[float, Gt(0), Le(_LONGEST)] = setting(
        "time limit in seconds for all answers of a control or a suspect together",
        "--total-timeout",
        default=3600.0,
        group="isolation",
        metavar="SECONDS",
        key="total_timeout",
        tables=("sandbox",),
    )
    template: bool = setting(
        "start each model's process from scratch, which takes longer; otherwise, models of one "
        "framework share their memory layout",
        "--fresh-processes",
        default=True,
        group="isolation",
        key="template",
        tables=("sandbox",),
    )
    required: bool = setting(
        "refuse models if this system does not have the full sandbox",
        "--require-sandbox",
        default=False,
        group="isolation",
        key="required",
        tables=("sandbox",),
    )

    def __post_init__(self) -> None:
        if not 2**20 <= self.memory <= sys.maxsize:
            raise UsageError(
                f"expected 1 MiB to {sys.maxsize // 2**30 + 1} GiB of memory for a model, found {self.memory} bytes",
                code="wrong-value",
            )
        for seconds in (self.timeout, self.total):
            if not 0 < seconds <= _LONGEST:
                raise UsageError(
                    f"expected a timeout above 0 and of at most {_LONGEST} seconds, found {seconds:g}",
                    code="wrong-value",
                )


DEFAULT_SANDBOX = Sandbox()


def check_place(device: str, *, confined: bool) -> None:
    """Refuse a GPU for models in processes of their own: these have none.

    Args:
        device: As ``open_model`` has it.
        confined: Whether models' files are confined.

    Raises:
        UsageError: When it is refused, or no device.
    """
    check_device(device)
    if confined and wants_gpu(device):
        raise UsageError(
            f"{option('device', device)}: a model in the sandbox has no GPU; use "
            f"{option('Confinement.use', False, python='Session(sandbox=None)')} if you trust the files, or "
            f"{option('device', CPU)}",
            code="conflict",
        )


def device_setting(purpose: str, **more: Any) -> Any:
    """The field of a device.

    Args:
        purpose: What is done on it, in words.
        more: See :func:`~deepjudge_core.settings.setting`.
    """
    said = f"device {purpose}: cpu, cuda, cuda:N for one of several GPUs, or auto for a GPU if there is one"
    return setting(said, "--device", default=CPU, metavar="DEVICE", **more)


@dataclass(frozen=True)
class Confinement:
    """Where models' files are run: whether they are confined, how, and on which device.

    Attributes:
        use: Whether they are; otherwise they are opened in the caller's own process.
        sandbox: How.
        device: On which device.
    """

    use: bool = setting(
        "open models in this process, with all your rights; only for model files you trust",
        "--no-sandbox",
        default=True,
        group="isolation",
        key="use",
        tables=("sandbox",),
    )
    sandbox: Sandbox = part(Sandbox)
    device: Device = device_setting(
        "that models run on, a GPU only if they are opened in this process", group="isolation", key="device"
    )

    def __post_init__(self) -> None:
        if self.sandbox.required and not self.use:
            raise UsageError(
                "the sandbox is required, but also turned off by "
                f"{option('Confinement.use', False, python='use=False')}; drop one of the two",
                code="conflict",
            )
        check_place(self.device, confined=self.use)

    @property
    def policy(self) -> Sandbox | None:
        """How models' files are confined; None where they are not."""
        return self.sandbox if self.use else None
