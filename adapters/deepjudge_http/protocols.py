"""How models behind APIs are asked: a request of some inputs, and what in its answer belongs to each."""

import abc
import base64
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from deepjudge_core.files.reading import LARGEST_JSON
from deepjudge_core.models.pictures import Pictures
from deepjudge_core.types import Array, Layout
from deepjudge_http.answers import BadAnswerError, Reader, Shown, kind_of, listed, pointed
from deepjudge_http.description import Description
from deepjudge_http.transport import Record, Transport

_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
_EVENTS = {"Accept": "text/event-stream"}
_AROUND, _EACH = 2**20, 64  # bytes of an answer at most: around the scores, and of each score
_MANY = 1000  # classes, as long as nobody knows
_OF_DATATYPES: Mapping[str, str] = {
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "BF16": "float32",
}
_OTHER_NAMES = {"float32": "FP32", "uint8": "UINT8"}
_LONGEST_EVENT = 200  # characters of the name of an event


@dataclass(frozen=True)
class Facts:
    """What an API says of its model without being asked an input.

    Attributes:
        shape: Of one input; None where it does not say.
        dtype: numpy name of its numbers.
        classes: How many; None where it does not say.
        rows: The only number of inputs that a request may have; None for any.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str = "float32"
    classes: int | None = None
    rows: int | None = None


class Protocol(abc.ABC):
    """A way to ask.

    Args:
        described: What the description says.
        transport: The connection.
    """

    def __init__(self, described: Description, transport: Transport) -> None:
        self.described, self._transport = described, transport
        self.pictures = Pictures(described.quality if described.encodes == "jpeg" else None)
        self.reader = Reader(described.names, count_of(described), described.answer.name, described.answer.score)
        self.layout: Layout | None = described.layout or None

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def facts(self, record: Record) -> Facts:
        """What it says of itself; ``record`` hears of each request."""
        return Facts(dtype=self.described.dtype or "float32")

    @abc.abstractmethod
    def ask(self, x: Array, record: Record) -> list[Shown]:
        """Ask some inputs.

        Args:
            x: ``(n, *shape)``, as the API gets them.
            record: Hears of each request; the last one is that which the answers are owed to.

        Raises:
            BadAnswerError: When the answer is none, without the model's name.
            ModelError: When there is none.
        """

    def _send(self, url: str, value: Any, rows: int, record: Record) -> Any:
        content = msgspec.json.encode(value)
        return self._transport.ask("POST", url, content, _JSON, self._largest(rows), record)

    def _largest(self, rows: int) -> int:
        return min(LARGEST_JSON, _AROUND + _EACH * rows * (self.reader.classes or _MANY))

    def _base64(self, picture: Array) -> str:
        return base64.b64encode(self.pictures.encoded(picture, self.layout)).decode()

    def _kind(self) -> str:
        return "png" if self.pictures.quality is None else "jpeg"


class OpenInference(Protocol):
    """The Open Inference Protocol, version 2, over HTTP: KServe, Triton, MLServer, OpenVINO Model Server."""

    _tensor, _dtype, _rows = "input", "FP32", None  # what the model says, once it was asked

    def facts(self, record: Record) -> Facts:
        """See the base class."""
        described = self.described
        found = self._transport.ask("GET", described.url, b"", {"Accept": "application/json"}, _AROUND, record)
        if not isinstance(found, dict):
            raise BadAnswerError(f"expected the metadata of a model, found {kind_of(found)}")
        inputs, outputs = (self._tensors(found, name) for name in ("inputs", "outputs"))
        self._tensor = described.tensor or (inputs[0][0] if len(inputs) == 1 else "input")
        if len(inputs) > 1 and not described.tensor:
            raise BadAnswerError(f"expected a model of one input, found {len(inputs)}; name one as tensor")
        _, dtype, sizes = next((one for one in inputs if one[0] == self._tensor), ("", "", None))
        self._dtype = _OTHER_NAMES.get(described.dtype or "", "") or dtype or "FP32"
        if self._dtype not in _OF_DATATYPES:
            raise BadAnswerError("expected an input of numbers, found another datatype")
        answers = [one for one in outputs if one[0] == described.output] if described.output else outputs
        classes = _width(answers[0][2]) if len(answers) == 1 and answers[0][1].startswith(("FP", "BF")) else None
        shape = None if sizes is None else tuple(size if size > 0 else None for size in sizes[1:])
        rows = sizes[0] if sizes and sizes[0] > 0 else None
        self._rows = rows
        return Facts(shape or None, _OF_DATATYPES[self._dtype], classes, rows)

    def ask(self, x: Array, record: Record) -> list[Shown]:
        """See the base class."""
        wanted = {"outputs": [{"name": self.described.output}]} if self.described.output else {}
        tensor = {"name": self._tensor, "shape": list(x.shape), "datatype": self._dtype, "data": x.ravel().tolist()}
        found = self._send(f"{_bare(self.described.url)}/infer", {"inputs": [tensor], **wanted}, len(x), record)
        outputs = pointed(found, "/outputs")
        if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
            raise BadAnswerError(f"expected outputs as a list of objects, found {kind_of(outputs)}")
        return self._read(self._chosen(outputs), len(x))

    def _chosen(self, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        named = [one for one in outputs if one.get("name") == self.described.output]
        if self.described.output:
            if not named:
                raise BadAnswerError("expected the output that the description names, found none of that name")
            return named[0]
        if len(outputs) != 1:
            raise BadAnswerError(f"expected one output, found {len(outputs)}; name the one with the scores as output")
        return outputs[0]

    def _read(self, output: dict[str, Any], rows: int) -> list[Shown]:
        data = pointed(output, "/data")
        values = _flattened(data)
        if not values or len(values) % rows:
            raise BadAnswerError(f"expected as many values for each of {rows} inputs, found {len(values)} in all")
        width = len(values) // rows
        parts = [values[start : start + width] for start in range(0, len(values), width)]
        kind = str(output.get("datatype", ""))
        labels = kind in ("BYTES", "BOOL") or "INT" in kind or isinstance(values[0], str)
        if labels and width > 1:
            raise BadAnswerError(f"expected one label for each input, found {width}")
        return [self.reader.label(part) if labels else self.reader.scores(part) for part in parts]

    @staticmethod
    def _tensors(found: Mapping[str, Any], name: str) -> list[tuple[str, str, list[int] | None]]:
        tensors = found.get(name) or []
        if not isinstance(tensors, list) or not all(isinstance(one, dict) for one in tensors):
            raise BadAnswerError(f"expected {name} in the metadata as a list of objects, found {kind_of(tensors)}")
        read = []
        for one in tensors:
            sizes = one.get("shape")
            whole = isinstance(sizes, list) and len(sizes) <= 8 and all(type(size) is int for size in sizes)
            bounded = whole and math.prod(max(size, 1) for size in sizes) < 2**31
            read.append((str(one.get("name", "")), str(one.get("datatype", "")), sizes if bounded else None))
        return read


class TensorFlowServing(Protocol):
    """The REST API of TensorFlow Serving."""

    def ask(self, x: Array, record: Record) -> list[Shown]:
        """See the base class."""
        found = self._send(f"{_bare(self.described.url)}:predict", {"instances": x.tolist()}, len(x), record)
        return [self._read(one) for one in listed(pointed(found, "/predictions"), len(x))]

    def _read(self, value: Any) -> Shown:
        # Of several outputs an object with one key for each.
        if isinstance(value, dict):
            if self.described.output:
                if self.described.output not in value:
                    raise BadAnswerError("expected the output that the description names, found none of that name")
                value = value[self.described.output]
            elif len(value) == 1:
                [value] = value.values()
            else:
                raise BadAnswerError(f"expected one output, found {len(value)}; name the one with the scores as output")
        if self.described.gives == "labels" and not isinstance(value, list | dict):
            return self.reader.label(value)
        return self.reader.scores(value)


class HuggingFace(Protocol):
    """An inference endpoint of Hugging Face for the classification of images."""

    def ask(self, x: Array, record: Record) -> list[Shown]:
        """See the base class."""
        [picture] = x
        most = self.described.top or self.reader.classes
        value = {"inputs": self._base64(picture), "parameters": {"top_k": most}}
        found = self._send(self.described.url, value, 1, record)
        while isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
            [found] = found
        if not isinstance(found, list):
            raise BadAnswerError(f"expected a list of labels and scores, found {kind_of(found)}")
        return [self.reader.scores(found)]


class Gradio(Protocol):
    """A function of a Gradio app that takes a picture, and gives a label or confidences."""

    def ask(self, x: Array, record: Record) -> list[Shown]:
        """See the base class."""
        [picture] = x
        call = f"{_bare(self.described.url)}/gradio_api/call/{quote(self.described.function.strip('/'), safe='')}"
        address = f"data:image/{self._kind()};base64,{self._base64(picture)}"
        value = {"data": [{"url": address, "meta": {"_type": "gradio.FileData"}}]}
        event = pointed(self._send(call, value, 1, record), "/event_id")
        if not isinstance(event, str) or not 0 < len(event) <= _LONGEST_EVENT:
            raise BadAnswerError(f"expected the name of an event, found {kind_of(event)}")
        address = f"{call}/{quote(event, safe='')}"
        found = pointed(self._transport.ask("GET", address, b"", _EVENTS, self._largest(1), record), "/0")
        return [self._read(found)]

    def _read(self, found: Any) -> Shown:
        confidences = found.get("confidences") if isinstance(found, dict) else None
        if confidences:
            reader = Reader(self.reader.names, self.reader.classes, "label", "confidence")
            return reader.scores(confidences)
        if isinstance(found, dict) and "label" in found:
            return self.reader.label(found["label"])
        return self.reader.label(found) if isinstance(found, str | int) else self.reader.scores(found)


class Template(Protocol):
    """Any other API: its request and answer are described."""

    def ask(self, x: Array, record: Record) -> list[Shown]:
        """See the base class."""
        answer = self.described.answer
        found = self._ask(x, record)
        items = [found] if answer.each == msgspec.UNSET else listed(pointed(found, answer.each), len(x))
        return [self._read(one) for one in items]

    def _read(self, item: Any) -> Shown:
        answer = self.described.answer
        # An empty pointer is the whole.
        if answer.scores is not msgspec.UNSET and not (self.described.gives == "labels" and answer.label):
            return self.reader.scores(pointed(item, answer.scores))
        return self.reader.label(pointed(item, answer.label or ""))

    def _ask(self, x: Array, record: Record) -> Any:
        url, request = self.described.url, self.described.request
        if request.form == "json":
            array = self.described.encodes == "array"
            payloads = x.tolist() if array else [self._base64(picture) for picture in x]
            content = msgspec.json.encode(_filled(request.body, payloads))
            return self._transport.ask(request.method, url, content, _JSON, self._largest(len(x)), record)
        [picture] = x
        data = self.pictures.encoded(picture, self.layout)
        kind = f"image/{self._kind()}"
        if request.form == "binary":
            headers = {**_JSON, "Content-Type": kind}
            return self._transport.ask(request.method, url, data, headers, self._largest(1), record)
        # Of the data alone, so that equal requests have equal digests.
        boundary = "deepjudge-" + secrets.token_hex(8)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{quote(request.field, safe=" ")}"; '
            f'filename="input.{self._kind()}"\r\nContent-Type: {kind}\r\n\r\n'
        )
        content = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {**_JSON, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._transport.ask(request.method, url, content, headers, self._largest(1), record)


PROTOCOLS: Mapping[str, Callable[[Description, Transport], Protocol]] = {
    "oip": OpenInference,
    "tensorflow": TensorFlowServing,
    "huggingface": HuggingFace,
    "gradio": Gradio,
    "template": Template,
}
"""By the names that descriptions have."""


def count_of(described: Description) -> int | None:
    """How many classes a description says there are; None where it does not say."""
    classes = described.classes
    return classes if isinstance(classes, int) else len(classes) if isinstance(classes, tuple) else None


def _bare(url: str) -> str:
    return url.rstrip("/")


def _width(sizes: list[int] | None) -> int | None:
    # Of an output, of whose axes the first is that of the inputs.
    long = [size for size in (sizes or [])[1:] if size != 1]
    return long[0] if len(long) == 1 and long[0] > 1 else None


def _flattened(data: Any) -> list[Any]:
    level = data if isinstance(data, list) else [data]
    for _ in range(8):
        if not any(isinstance(one, list) for one in level):
            return level
        level = [part for one in level for part in (one if isinstance(one, list) else [one])]
    raise BadAnswerError("expected values in lists, found lists nested too deep")


def _filled(value: Any, payloads: list[Any]) -> Any:
    # A template, with inputs in the place of what stands for them.
    if value == "$inputs":
        return payloads
    if value == "$input":
        return payloads[0]
    if isinstance(value, str) and "$input" in value and isinstance(payloads[0], str):
        return value.replace("$input", payloads[0])
    if isinstance(value, Mapping):
        return {name: _filled(part, payloads) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(part, payloads) for part in value]
    return value


def as_rows(shown: list[Shown], classes: int) -> Array:
    """Scores of answers ``(n, classes)`` float64, NaN for what is not given; of a label 1 and 0."""
    rows = np.zeros((len(shown), classes))
    for row, one in zip(rows, shown, strict=True):
        if one.scores is None:
            row[one.label] = 1
        else:
            row[:] = one.scores
    return rows
