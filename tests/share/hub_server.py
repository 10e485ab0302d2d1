"""A server that answers as the Hugging Face hub does, as far as pushing a model asks."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """A hub with one private repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.commits = 0


class Handler(BaseHTTPRequestHandler):
    """The requests of the hub's package."""

    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, document: object, code: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if not self.path.startswith("/api/models/someone/model/tree/"):
            self.answer({}, 404)
            return
        facts = {"type": "file", "oid": "0" * 40, "size": 1}
        self.answer([{**facts, "path": path} for path in self.server.files])

    def do_POST(self) -> None:
        lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        asked = [json.loads(line) for line in lines]
        url = f"{self.server.address}/someone/model"
        if self.path == "/api/repos/create":
            assert asked[0].get("private") or asked[0].get("visibility") == "private"
            self.answer({"url": url}, 409 if self.server.files else 200)
        elif self.path == "/api/validate-yaml":
            self.answer({"warnings": [], "errors": []})
        elif self.path.startswith("/api/models/someone/model/preupload/"):
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [file | regular for file in asked[0]["files"]]})
        else:
            assert self.path.startswith("/api/models/someone/model/commit/")
            for line in asked:
                self.change(line["key"], line["value"])
            self.server.commits += 1
            self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": url})

    def change(self, key: str, value: dict[str, Any]) -> None:
        """Carry out one operation of a commit."""
        if key == "file":
            self.server.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "deletedFile":
            del self.server.files[value["path"]]


@contextmanager
def serving() -> Iterator[Hub]:
    """Yield a server that is empty."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
