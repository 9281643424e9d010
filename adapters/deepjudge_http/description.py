"""What a ``.api.toml`` file says: where a model answers, what it takes, what its answers are, and what it may cost."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from deepjudge_core.errors import ModelError
from deepjudge_core.files.digests import ITSELF
from deepjudge_core.files.documents import Document, Positive, parse, plain
from deepjudge_core.models.preprocessing import Preprocessing
from deepjudge_core.text import clean
from deepjudge_core.types import Layout
from deepjudge_http.secrets import is_reference

SUFFIX = ".api.toml"
"""Of the files' names."""
Protocol = Literal["oip", "tensorflow", "huggingface", "gradio", "template"]
Encoding = Literal["array", "png", "jpeg"]
Gives = Literal["probabilities", "logits", "log-probabilities", "labels"]
_LARGEST = 2**20  # bytes
_MOST_CLASSES = 2**16
_SECRET_NAMES = re.compile(r"key|token|secret|sig|passw|auth|credential|code", re.IGNORECASE)
_SECRET_HEADERS = re.compile(r"authorization|cookie|key|token|secret|passw|credential", re.IGNORECASE)
_USUAL_BATCH: Mapping[str, int] = {"oip": 32, "tensorflow": 32}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_URLS: tuple[tuple[str, Protocol], ...] = (("/v2/models/", "oip"), ("/v1/models/", "tensorflow"))


class Request(Document, frozen=True):
    """How the template of a request is filled."""

    form: Annotated[
        Literal["json", "multipart", "binary"],
        Meta(description="what is sent: JSON, a form with a file, or the picture alone"),
    ] = "json"
    body: (
        Annotated[
            Any,
            Meta(
                description="the JSON; `$input` stands for an input, `$inputs` for the list of a batch, also within a "
                "text such as `data:image/png;base64,$input`"
            ),
        ]
        | UnsetType
    ) = UNSET
    field: Annotated[str, Meta(description="name of the form's file")] = "file"
    method: Annotated[Literal["POST", "PUT"], Meta(description="method of the request")] = "POST"


class Answer(Document, frozen=True):
    """Where the answer stands in the JSON that comes back."""

    scores: (
        Annotated[
            str,
            Meta(
                description="JSON pointer to the scores: numbers in the order of the classes, objects with a name and "
                "a score, or an object of names and scores"
            ),
        ]
        | UnsetType
    ) = UNSET
    label: Annotated[str, Meta(description="JSON pointer to the label alone: a name or a number")] | UnsetType = UNSET
    each: (
        Annotated[
            str,
            Meta(description="JSON pointer to the list with one item for each input; the other pointers start there"),
        ]
        | UnsetType
    ) = UNSET
    name: Annotated[str, Meta(description="in objects with a name and a score: the key of the name")] = "label"
    score: Annotated[str, Meta(description="in objects with a name and a score: the key of the score")] = "score"


class Description(Document, frozen=True, kw_only=True):
    """A model behind an API."""

    url: Annotated[str, Meta(description="URL of the model, without `/infer` or `:predict`")]
    protocol: (
        Annotated[
            Protocol,
            Meta(
                description="how it is asked: the Open Inference Protocol (KServe, Triton, MLServer, OVMS), TensorFlow "
                "Serving, an inference endpoint of Hugging Face, a Gradio app, or a template for any other; by default "
                "what the URL shows"
            ),
        ]
        | UnsetType
    ) = UNSET
    gives: (
        Annotated[
            Gives,
            Meta(description="what its scores are, or `labels` if only labels count; by default its answers show it"),
        ]
        | UnsetType
    ) = UNSET
    classes: (
        Annotated[
            Annotated[int, Meta(ge=2, le=_MOST_CLASSES)]
            | Annotated[tuple[str | int, ...], Meta(min_length=2, max_length=_MOST_CLASSES)],
            Meta(
                description="its names of the victim's classes, in the order of the victim's; or how many classes it "
                "numbers from 0; required if it answers with names or labels"
            ),
        ]
        | UnsetType
    ) = UNSET
    top: (
        Annotated[Positive, Meta(description="how many scores it gives; by default its answers show it")] | UnsetType
    ) = UNSET
    digits: (
        Annotated[
            Annotated[int, Meta(ge=0, le=9)],
            Meta(description="to how many decimal places its scores are rounded; by default its answers show it"),
        ]
        | UnsetType
    ) = UNSET
    encoding: (
        Annotated[
            Encoding,
            Meta(description="how inputs are sent: as numbers, or as pictures of 8 bits"),
        ]
        | UnsetType
    ) = UNSET
    quality: Annotated[
        Annotated[int, Meta(ge=1, le=100)], Meta(description="quality of JPEG, without colour subsampling")
    ] = 95
    shape: (
        Annotated[
            Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=8)],
            Meta(description="of one input; by default as it says, or that of the suite"),
        ]
        | UnsetType
    ) = UNSET
    layout: (
        Annotated[Layout, Meta(description="axis that holds the channels, if the shape does not tell")] | UnsetType
    ) = UNSET
    dtype: (
        Annotated[
            Literal["float32", "uint8"],
            Meta(description="`uint8` if an array of whole numbers 0..255 is expected; by default as it says"),
        ]
        | UnsetType
    ) = UNSET
    input: (
        Annotated[
            str,
            Meta(
                description="how it expects inputs in 0..1, as `--suspect-input` has it; by default as the victim "
                "does, of pictures as they come"
            ),
        ]
        | UnsetType
    ) = UNSET
    tensor: Annotated[str, Meta(description="oip: name of the input tensor, if it does not say")] | UnsetType = UNSET
    output: Annotated[str, Meta(description="oip: name of the output with the answer, of several")] | UnsetType = UNSET
    function: Annotated[str, Meta(description="gradio: name of the function in its API")] = "predict"
    token: (
        Annotated[
            str, Meta(description="secret of the header `Authorization: Bearer`: `env:NAME` or `keyring:SERVICE/USER`")
        ]
        | UnsetType
    ) = UNSET
    headers: Annotated[
        Mapping[str, str], Meta(description="other headers; a secret stands as `env:NAME` or `keyring:SERVICE/USER`")
    ] = msgspec.field(default_factory=dict)
    batch: (
        Annotated[
            Annotated[int, Meta(ge=1, le=512)],
            Meta(description="inputs in a request; by default 32 of oip and tensorflow, 1 of others"),
        ]
        | UnsetType
    ) = UNSET
    budget: Annotated[Positive, Meta(description="inputs that it may be asked in all; `--budget` too")] | UnsetType = (
        UNSET
    )
    rate: Annotated[Annotated[float, Meta(gt=0)], Meta(description="requests in a second, at most")] | UnsetType = UNSET
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=20)],
        Meta(description="how often a request is sent again that failed in passing (429, 5xx, no connection)"),
    ] = 5
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=3600)], Meta(description="seconds in which an answer has to be there")
    ] = 30.0
    price: Annotated[
        Annotated[float, Meta(ge=0)], Meta(description="what an answered input costs, in whatever unit")
    ] = 0.0
    cache: Annotated[
        str | bool, Meta(description="folder where answers are kept; `false` to keep none, and pay again next time")
    ] = True
    request: Annotated[Request, Meta(description="of a template: the request")] = Request()
    answer: Annotated[Answer, Meta(description="of a template: the answer")] = Answer()

    @property
    def asks_by(self) -> Protocol:
        """The protocol, as it is said or as the URL shows."""
        if self.protocol is not UNSET:
            return self.protocol
        return next(protocol for part, protocol in _OF_URLS if part in self.url)

    @property
    def encodes(self) -> Encoding:
        """How inputs are sent."""
        return self.encoding or ("png" if self.asks_by in ("huggingface", "gradio") else "array")

    @property
    def rows(self) -> int:
        """Inputs in a request."""
        return self.batch or _USUAL_BATCH.get(self.asks_by, 1)

    @property
    def names(self) -> tuple[str, ...] | None:
        """Its names of the classes; None where it has numbers."""
        return tuple(map(str, self.classes)) if isinstance(self.classes, tuple) else None

    @property
    def prepared(self) -> Preprocessing | None:
        """What is done to inputs in 0..1 before it takes them; None where it does not say."""
        return Preprocessing.parse(self.input) if self.input else None

    @property
    def identity(self) -> str:
        """SHA-256, in hex, of all on which an answer depends: not of secrets, nor of limits."""
        names = ("url", "encodes", "quality", "dtype", "tensor", "output", "function", "request", "answer")
        facts = {name: plain(getattr(self, name)) for name in names if getattr(self, name) is not UNSET}
        facts |= {"protocol": self.asks_by, "classes": None if self.classes is UNSET else self.classes}
        facts |= {"labels": self.gives == "labels"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def of_url(url: str) -> Description:
    """What a URL alone says.

    Raises:
        ModelError: When it does not show how to ask.
    """
    return _checked(url, {"url": url})


def read(path: Path) -> Description:
    """What a file says.

    Raises:
        ModelError: Where it is wrong, what was expected and what was found.
    """
    return read_with_digest(path)[0]


def read_with_digest(path: Path) -> tuple[Description, Mapping[str, str]]:
    """What a file says, and the SHA-256 of its bytes, as a model's files are named.

    Raises:
        ModelError: Where it is wrong, what was expected and what was found.
    """
    from deepjudge_core.files.reading import open_regular

    with open_regular(path, f"a {SUFFIX} file", _LARGEST, ModelError) as file:
        data = file.read(_LARGEST)
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # also of what is no UTF-8
        raise ModelError(f"{path}: is not valid TOML: {clean(str(error))}", code="wrong-format") from None
    return _checked(str(path), values), {ITSELF: hashlib.sha256(data).hexdigest()}


def _checked(name: str, values: Mapping[str, Any]) -> Description:
    try:
        described = parse(Description, values)
        _check(described)
    except ValueError as error:
        raise ModelError(f"{name}: {error}", code="wrong-format") from None
    except ModelError:
        raise
    return described


def _check(described: Description) -> None:
    _check_url(described.url)
    if not described.protocol and not any(part in described.url for part, _ in _OF_URLS):
        protocols = ", ".join(Protocol.__args__)  # type: ignore[attr-defined]
        raise ValueError(
            f"protocol: expected one of {protocols} in a {SUFFIX} file, because the URL does not show it "
            "(as http://HOST/v2/models/NAME does)"
        )
    if described.protocol == "template":
        _check_template(described)
    if described.asks_by in ("huggingface", "gradio") and described.encodes == "array":
        raise ValueError(f"encoding: expected png or jpeg for {described.asks_by}, found array")
    if described.asks_by in ("oip", "tensorflow") and described.encodes != "array":
        raise ValueError(f"encoding: expected array for {described.asks_by}, found {described.encodes}")
    if described.encodes != "array" and (described.dtype or described.input):
        raise ValueError("input and dtype: expected none for pictures, which are sent as they come")
    if described.rows > 1 and described.asks_by in ("huggingface", "gradio"):
        raise ValueError(f"batch: expected 1 for {described.asks_by}, found {described.rows}")
    if described.input:
        _check_input(described)
    names = described.names
    if names and len(set(names)) < len(names):
        raise ValueError("classes: expected different names, found one twice")
    bare = described.protocol == "template" and described.answer.scores is UNSET
    if described.classes is UNSET and (bare or described.asks_by in ("huggingface", "gradio")):
        raise ValueError(
            "classes: expected the model's names of the victim's classes, in the victim's order, found none; it "
            "answers with names or labels"
        )
    if described.gives in ("logits", "log-probabilities", "labels") and (described.top or described.digits):
        raise ValueError(f"top and digits: expected none for {described.gives}, found one")
    _check_secrets(described)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url: expected a URL, found none") from None
    if parts.scheme.lower() not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ValueError("url: expected a URL such as https://HOST/v2/models/NAME, found none")
    if parts.username or parts.password:
        raise ValueError("url: expected no user or password in it; give a secret as token = 'env:NAME'")
    if parts.fragment:
        raise ValueError("url: expected a URL without a fragment (#), found one")
    for part in filter(None, parts.query.split("&")):
        if _SECRET_NAMES.search(part.partition("=")[0]):
            raise ValueError("url: expected no secret in it, found a parameter that may be one; give it as a header")


def _check_template(described: Description) -> None:
    request, answer = described.request, described.answer
    if not answer.scores and not answer.label and answer.scores != "":
        raise ValueError("answer: expected scores or label, a JSON pointer to it, found none")
    for name in ("scores", "label", "each"):
        pointer = getattr(answer, name)
        if pointer is not UNSET and pointer and not pointer.startswith("/"):
            raise ValueError(f"answer.{name}: expected a JSON pointer such as /predictions/0, found {pointer!r}")
    if request.form == "json":
        text = "" if request.body is UNSET else json.dumps(request.body)
        if "$input" not in text:
            raise ValueError("request.body: expected $input or $inputs in it, found none")
        if described.rows > 1 and "$inputs" not in text:
            raise ValueError("request.body: expected $inputs, the list of a batch, because batch is above 1")
    elif described.encodes == "array":
        raise ValueError(f"encoding: expected png or jpeg for {request.form}, found array")
    elif described.rows > 1:
        raise ValueError(f"batch: expected 1 for {request.form}, found {described.rows}")
    if described.rows > 1 and answer.each is UNSET:
        raise ValueError(
            "answer.each: expected a JSON pointer to the list of a batch's answers, because batch is above 1"
        )


def _check_input(described: Description) -> None:
    try:
        prepared = described.prepared
    except Exception as error:
        raise ValueError(f"input: {error}") from None
    if prepared and prepared.geometry:
        raise ValueError("input: expected numbers alone; the API resizes pictures itself")


def _check_secrets(described: Description) -> None:
    headers = dict(described.headers)
    if described.token:
        headers["token"] = described.token
    for name, value in headers.items():
        if _SECRET_HEADERS.search(name) and not is_reference(value):
            raise ValueError(
                f"{'token' if name == 'token' else f'headers.{name}'}: expected env:NAME or keyring:SERVICE/USER, "
                "found a text; secrets do not belong in a file"
            )
    secret = any(map(is_reference, headers.values()))
    parts = urlsplit(described.url)
    if secret and parts.scheme.lower() != "https" and parts.hostname not in _LOOPBACK:
        raise ValueError("url: expected https, because a secret goes with each request, found http")
