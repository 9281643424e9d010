"""What to do with a PyTorch model in a file that is never opened."""

from pathlib import Path

from deepjudge_core.naming import option

_PICKLES = (".pkl", ".pickle", ".p", ".mar", ".torch", ".model", ".dat")
_SECOND = "-weights"


def way_out(name: str) -> str:
    """How the owner of a pickled module makes a file of it that is opened, as a part of a message.

    Args:
        name: The file's path or name.
    """
    stem = Path(name).name.partition(".")[0] or "model"
    weights = f"{stem}{_SECOND}.pth"
    return (
        f"load it in the program that saved it and run torch.save(model.state_dict(), {weights!r}), then name "
        f"{weights} with {option('arch', 'FILE.py:FUNCTION', python='arch=')}, which builds the network; or export it: "
        f"torch.onnx.export(model, (inputs,), {stem + '.onnx'!r})"
    )


def conversion(path: Path) -> str | None:
    """See :attr:`~deepjudge_core.components.kinds.Adapter.conversion`."""
    if path.suffix.lower() not in _PICKLES:
        return None
    return f"if it holds a PyTorch model, {way_out(path.name)}"
