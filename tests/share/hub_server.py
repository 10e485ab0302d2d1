"""A server that answers as the Hugging Face hub does, as far as pushing and loading a model ask."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """The repositories of the server."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.commits = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The requests of the hub's package."""

    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, code: int, content: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, document: object, code: int = 200) -> None:
        self.answer(code, json.dumps(document).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        words = self.path.partition("?")[0].strip("/").split("/")
        if words == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif words == ["api", "validate-yaml"]:
            self.answer_json({"warnings": [], "errors": []})
        elif words[2:] == ["info", "lfs", "objects", "batch"]:
            self.offer_uploads(json.loads(body))
        elif words[4] == "preupload":
            files = []
            for file in json.loads(body)["files"]:
                mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
                files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            self.answer_json({"files": files})
        else:
            assert words[4] == "commit"
            self.commit("/".join(words[2:4]), [json.loads(line) for line in body.splitlines()])

    def offer_uploads(self, asked: dict[str, Any]) -> None:
        objects = []
        for each in asked["objects"]:
            address = f"{self.server.address}/large/{each['oid']}"
            objects.append({**each, "actions": {"upload": {"href": address}}})
        self.answer_json({"transfer": "basic", "objects": objects})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.answer(200, b"")

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            self.answer_json({"error": "exists", "url": f"{self.server.address}/{name}"}, 409)
            return
        self.server.repositories[name] = {".gitattributes": b""}
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(name)
        self.answer_json({"url": f"{self.server.address}/{name}"})

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.server.commits += 1
        address = f"{self.server.address}/{name}/commit/{self.oid}"
        self.answer_json({"success": True, "commitOid": self.oid, "commitUrl": address})

    @property
    def oid(self) -> str:
        return f"{self.server.commits:040d}"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        words = self.path.partition("?")[0].strip("/").split("/")
        if words[:2] == ["api", "models"]:
            self.list_files("/".join(words[2:4]))
        else:
            self.send_file("/".join(words[:2]), "/".join(words[4:]))

    def list_files(self, name: str) -> None:
        files = self.server.repositories[name].items()
        self.answer_json(
            [{"type": "file", "path": path, "size": len(x), "oid": "0" * 40} for path, x in files]
        )

    def send_file(self, name: str, path: str) -> None:
        content = self.server.repositories.get(name, {}).get(path)
        if content is None:
            self.answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=self.oid)
            return
        tag = hashlib.sha1(content).hexdigest()
        self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=self.oid)


@contextmanager
def serving() -> Iterator[Hub]:
    """Yield a server that is empty."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
