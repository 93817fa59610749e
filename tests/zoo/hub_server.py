"""A Hub on the loopback device: repositories with commits, of which files can be downloaded."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HubServer(ThreadingHTTPServer):
    """Serves what `commit` was given.

    Attributes:
        requests_seen: "METHOD path" of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, Any]] = {}
        self.requests_seen: list[str] = []

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Adds a commit to main and returns its id."""
        record = self.repos.setdefault(repo, {"main": "", "commits": {}})
        seed = repo.encode() + record["main"].encode() + b"".join(files.values())
        record["main"] = hashlib.sha1(seed).hexdigest()
        record["commits"][record["main"]] = files
        return record["main"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests_seen.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
        else:
            repo, revision = "/".join(parts[:2]), parts[3]
        record = self.server.repos.get(repo)
        if record is None:
            return self._refuse("RepoNotFound")
        commit = record["main"] if revision == "main" else revision
        files = record["commits"].get(commit)
        if files is None:
            return self._refuse("RevisionNotFound")
        if parts[0] == "api":
            info = {
                "id": repo,
                "sha": commit,
                "siblings": [{"rfilename": name} for name in files],
                "tags": [],
            }
            return self._send(json.dumps(info).encode(), {"Content-Type": "application/json"})
        if parts[4] not in files:
            return self._refuse("EntryNotFound", {"X-Repo-Commit": commit})
        content = files[parts[4]]
        self._send(content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _refuse(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, status=404)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
