"""A server of this machine that answers as a model, in each of the protocols, and as awkwardly as it is told to."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from deepjudge_core import Model

Show = Callable[[np.ndarray], Any]
"""What is shown of the probabilities ``(classes,)`` of one input."""
Trick = Callable[["_Handler"], None]
"""Answers a request in the model's place."""


def everything(p: np.ndarray) -> Any:
    """All probabilities."""
    return p.astype(float).tolist()


def label(p: np.ndarray) -> Any:
    """The label alone."""
    return int(p.argmax())


def rounded(digits: int) -> Show:
    """All probabilities, rounded."""
    return lambda p: np.round(p.astype(float), digits).tolist()


def greatest(top: int, digits: int = 9, names: Sequence[str] | None = None) -> Show:
    """The greatest probabilities, with the names of their classes."""

    def show(p: np.ndarray) -> Any:
        order = np.argsort(-p, kind="stable")[:top]
        return [{"label": names[i] if names else str(i), "score": round(float(p[i]), digits)} for i in order]

    return show


class Api:
    """The server, and what it was sent.

    Attributes:
        model: Who answers.
        show: What is shown of its answers.
        tricks: What answers the next requests of inputs in its place, in their order; afterwards the model does.
        bodies: What each request of inputs sent.
        headers: And its headers.
        asked: How many inputs the model was given.
    """

    def __init__(self, model: Model, show: Show, tricks: Sequence[Trick], always: Trick | None) -> None:
        self.model, self.show, self.tricks, self.always = model, show, list(tricks), always
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.asked, self.port = 0, 0
        self._events: dict[str, Any] = {}

    @property
    def host(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, protocol: str = "oip") -> str:
        """The address at which it speaks a protocol."""
        paths = {"oip": "/v2/models/toy", "tensorflow": "/v1/models/toy", "gradio": "", "huggingface": "/hf"}
        return self.host + paths.get(protocol, "/" + protocol)

    def shown(self, inputs: Any) -> list[Any]:
        """What is shown of the answers to some inputs."""
        x = np.asarray(inputs, np.float32)
        self.asked += len(x)
        shape = tuple(axis or 1 for axis in self.model.input.shape)
        return [self.show(p) for p in self.model.predict(x.reshape(len(x), *shape))]


def pixels(data: bytes) -> list[Any]:
    """The numbers 0..1 of a picture."""
    from PIL import Image

    return (np.asarray(Image.open(io.BytesIO(data)), np.float32) / 255).tolist()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        named = {name.replace("_", "-").title(): text for name, text in headers.items()}
        for name, text in {"Content-Type": "application/json", **named}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        api = self.api
        if self.path.startswith("/gradio_api/call/"):
            data = json.dumps(api._events.pop(self.path.rsplit("/", 1)[-1])).encode()
            self.reply(
                b"event: heartbeat\ndata: null\n\nevent: complete\ndata: " + data + b"\n\n",
                Content_Type="text/event-stream",
            )
        elif self.path == "/v2/models/toy":
            shape = [-1, *(axis or 1 for axis in api.model.input.shape)]
            one = {"name": "x", "datatype": "FP32", "shape": shape}
            outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, api.model.classes]}]
            self.reply({"name": "toy", "platform": "toys", "inputs": [one], "outputs": outputs})
        else:
            self.reply({"error": "no such model"}, 404)

    def do_POST(self) -> None:
        api, body = self.api, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        api.bodies.append(body)
        api.headers.append(dict(self.headers))
        trick = api.tricks.pop(0) if api.tricks else api.always
        if trick is not None:
            trick(self)
        else:
            self._answer(body)

    do_PUT = do_POST  # noqa: N815 - as the library has it

    def _answer(self, body: bytes) -> None:
        api, path = self.api, self.path
        if path == "/v2/models/toy/infer":
            [given] = json.loads(body)["inputs"]
            shown = api.shown(np.reshape(given["data"], given["shape"]))
            flat = [part for one in shown for part in (one if isinstance(one, list) else [one])]
            kind = "INT64" if isinstance(flat[0], int) else "FP32"
            self.reply({"outputs": [{"name": "y", "datatype": kind, "shape": [len(shown), -1], "data": flat}]})
        elif path == "/v1/models/toy:predict":
            self.reply({"predictions": api.shown(json.loads(body)["instances"])})
        elif path == "/hf":
            values = json.loads(body)
            [shown] = api.shown([pixels(base64.b64decode(values["inputs"]))])
            self.reply(shown[: values["parameters"]["top_k"]])
        elif path.startswith("/gradio_api/call/"):
            address = json.loads(body)["data"][0]["url"]
            [shown] = api.shown([pixels(base64.b64decode(address.partition(",")[2]))])
            confidences = [{"label": one["label"], "confidence": one["score"]} for one in shown]
            api._events["e1"] = [{"label": shown[0]["label"], "confidences": confidences}]
            self.reply({"event_id": "e1"})
        elif path == "/form":
            message = message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
            [part] = message.get_payload()  # type: ignore[misc]
            assert part.get_param("name", header="content-disposition") == "picture"
            self.reply({"found": api.shown([pixels(part.get_payload(decode=True))])[0]})
        elif path == "/binary":
            self.reply({"found": api.shown([pixels(body)])[0]})
        elif path == "/json":
            self.reply({"results": [{"found": one} for one in api.shown(json.loads(body)["samples"])]})
        else:
            self.reply({"error": "no such model"}, 404)


@contextmanager
def serving(
    model: Model, show: Show = everything, *, tricks: Sequence[Trick] = (), always: Trick | None = None
) -> Iterator[Api]:
    """Serve a model for as long as the context is open."""
    api = Api(model, show, tricks, always)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads, server.block_on_close = True, False
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def status(code: int, value: Any = None, **headers: str) -> Trick:
    """An answer of a status."""
    return lambda handler: handler.reply({"error": "not now"} if value is None else value, code, **headers)


def sends(body: bytes, kind: str = "application/json", **headers: str) -> Trick:
    """An answer of any bytes."""
    return lambda handler: handler.reply(body, 200, Content_Type=kind, **headers)


def closes(handler: _Handler) -> None:
    """End the connection without an answer."""
    handler.close_connection = True
    handler.connection.close()


def stalls(gate: threading.Event) -> Trick:
    """Answer byte by byte, without an end until the gate is opened."""

    def trick(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not gate.wait(0.02):
            handler.wfile.write(b" ")
        handler.close_connection = True

    return trick
