"""A server that answers as the Hugging Face hub does, as far as pushing a model asks."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """The repositories of the server."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits = 0


class Handler(BaseHTTPRequestHandler):
    """The requests of the hub's package."""

    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, document: object, code: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        files = self.server.repositories["/".join(self.path.split("/")[3:5])].items()
        facts = {"type": "file", "oid": "0" * 40}
        self.answer([{**facts, "path": path, "size": len(content)} for path, content in files])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        words = self.path.partition("?")[0].strip("/").split("/")
        if words == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            exists = name in self.server.repositories
            if not exists:
                self.server.repositories[name] = {".gitattributes": b""}
                if asked.get("private") or asked.get("visibility") == "private":
                    self.server.private.add(name)
            self.answer({"url": f"{self.server.address}/{name}"}, 409 if exists else 200)
        elif words == ["api", "validate-yaml"]:
            self.answer({"warnings": [], "errors": []})
        elif words[4] == "preupload":
            asked = json.loads(body)["files"]
            small = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{"path": file["path"], **small} for file in asked]})
        else:
            assert words[4] == "commit"
            self.commit("/".join(words[2:4]), body)

    def commit(self, name: str, body: bytes) -> None:
        files = self.server.repositories[name]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self.server.commits += 1
        oid = f"{self.server.commits:040d}"
        address = f"{self.server.address}/{name}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": address})


@contextmanager
def serving() -> Iterator[Hub]:
    """Yield a server that is empty."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
