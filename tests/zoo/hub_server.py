"""A Hub on the loopback device, for the client as it is: repositories, commits, LFS, branches, tags and faults.

It proves the calls of the client, not the policies of the Hub. What the Hub would refuse, it refuses too: content
whose hash is not that which was announced, and commits of content that never arrived.
"""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

TOKEN = "hf_writer"
COMMIT_OF_NOTHING = hashlib.sha1(b"").hexdigest()


@dataclass
class Repo:
    """One repository: files of each commit, and what branches and tags point to."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {COMMIT_OF_NOTHING: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT_OF_NOTHING})
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """Returns the commit that a branch, tag or commit stands for."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        return commit if commit in self.commits else None

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Adds a commit with just these files, and returns its id."""
        parent = self.branches[branch]
        if files == self.commits[parent]:
            return parent
        content = parent.encode() + b"".join(name.encode() + data for name, data in sorted(files.items()))
        commit = hashlib.sha1(content).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit


class HubServer(ThreadingHTTPServer):
    """Serves repositories. POST /faults sets attributes from another process.

    Attributes:
        repos: by their names.
        requests_seen: "METHOD path" of every request.
        ranges_seen: values of the Range headers of downloads.
        cut_uploads: how many of the next uploads lose their connection half-way.
        cut_downloads: how many of the next downloads do.
        corrupted: files of which one bit is wrong on their way down.
        rival: texts of files that somebody else commits while the next upload is on its way.
        chunk_size: of uploads in parts, None for whole ones.
        cas: folder for content that comes by Xet.
    """

    daemon_threads = True

    def __init__(self, cas: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests_seen: list[str] = []
        self.ranges_seen: list[str] = []
        self.cut_uploads = self.cut_downloads = 0
        self.corrupted: list[str] = []
        self.rival: dict[str, str] | None = None
        self.chunk_size: int | None = None
        self.cas = cas

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that go away are part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Adds a commit to main and returns its id."""
        return self.repos.setdefault(repo, Repo()).commit(files)


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.headers = status, code, message or code, headers or {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, _, _ = self.path.partition("?")
        self.server.requests_seen.append(f"{self.command} {path}")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if self.command == "PUT" and self.server.cut_uploads:
            self.server.cut_uploads -= 1
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            return self._hang_up()
        body = self._body()
        try:
            match parts:
                case ["api", "whoami-v2"]:
                    self._authorise()
                    self._json({"name": "tester", "type": "user", "orgs": [], "auth": {}})
                case ["faults"]:
                    for name, value in json.loads(body).items():
                        setattr(self.server, name, value)
                    self._json({})
                case ["api", "validate-yaml"]:
                    self._validate(json.loads(body)["content"])
                case ["api", "repos", "create"]:
                    self._create(json.loads(body))
                case ["api", "models", org, name, *rest]:
                    self._api(f"{org}/{name}", rest, body)
                case [_, _, "info", "lfs", "objects", "batch"]:
                    self._authorise()
                    self._lfs_batch(json.loads(body))
                case ["lfs", *rest]:
                    self._lfs(rest, body)
                case [org, name, "resolve", revision, *file]:
                    self._resolve(f"{org}/{name}", revision, "/".join(file))
                case _:
                    raise _Refusal(404, "NotFound", f"no such endpoint: {path}")
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message, **refusal.headers}
            self._send(json.dumps({"error": refusal.message}).encode(), headers, refusal.status)

    def _api(self, repo_id: str, rest: list[str], body: bytes) -> None:
        repo = self._repo(repo_id)
        match rest:
            case [] | ["revision", _]:
                self._info(repo_id, repo, rest[1] if rest else "main")
            case ["refs"]:
                named = [
                    [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in group.items()]
                    for kind, group in (("heads", repo.branches), ("tags", repo.tags))
                ]
                self._json({"branches": named[0], "tags": named[1], "converts": []})
            case ["tree", revision, *_]:
                commit = self._commit(repo, revision)
                self._json([self._item(name, data) for name, data in repo.commits[commit].items()])
            case ["preupload", _]:
                self._authorise()
                files = json.loads(body)["files"]
                modes = {True: "lfs", False: "regular"}
                answer = [
                    {"path": f["path"], "uploadMode": modes[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                    for f in files
                ]
                if self.server.rival is not None:
                    theirs = {name: text.encode() for name, text in self.server.rival.items()}
                    repo.commit({**repo.commits[repo.branches["main"]], **theirs})
                    self.server.rival = None
                self._json({"files": answer})
            case ["commit", branch]:
                self._authorise()
                self._take(repo_id, repo, branch, body)
            case ["tag", revision]:
                self._authorise()
                tag, commit = json.loads(body)["tag"], self._commit(repo, revision)
                if tag in repo.tags:
                    raise _Refusal(409, "Conflict", "tag exists")
                repo.tags[tag] = commit
                self._json({})
            case ["branch", branch]:
                self._authorise()
                if branch in repo.branches:
                    raise _Refusal(409, "Conflict", "branch exists")
                repo.branches[branch] = repo.branches["main"]
                self._json({})
            case ["xet-write-token", _] if self.server.cas is not None:
                self._authorise()
                url = f"local://{self.server.cas}"
                token = {"accessToken": "x", "exp": 2**40, "casUrl": url}
                headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": str(2**40)}
                self._send(json.dumps(token).encode(), {"Content-Type": "application/json", **headers})
            case _:
                raise _Refusal(404, "NotFound", "no such endpoint")

    def _authorise(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refusal(401, "Unauthorized", "Invalid username or password.")

    def _repo(self, repo_id: str) -> Repo:
        repo = self.server.repos.get(repo_id)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            raise _Refusal(404, "RepoNotFound")
        return repo

    def _commit(self, repo: Repo, revision: str) -> str:
        commit = repo.resolve(revision)
        if commit is None:
            raise _Refusal(404, "RevisionNotFound")
        return commit

    def _create(self, wanted: dict[str, Any]) -> None:
        self._authorise()
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.server.url}/{repo_id}"}
        if repo_id in self.server.repos:
            return self._send(json.dumps(url).encode(), {"Content-Type": "application/json"}, 409)
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.server.repos[repo_id] = Repo(private=bool(private))
        self._json(url)

    def _validate(self, content: str) -> None:
        front = content.split("---")[1] if content.startswith("---") else ""
        try:
            found = yaml.safe_load(front) or {}
            errors = [] if isinstance(found.get("license", ""), str) else [{"message": "license must be a text"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        answer = json.dumps({"errors": errors, "warnings": []}).encode()
        self._send(answer, {"Content-Type": "application/json"}, 400 if errors else 200)

    def _info(self, repo_id: str, repo: Repo, revision: str) -> None:
        commit = self._commit(repo, revision)
        siblings = [{"rfilename": name} for name in repo.commits[commit]]
        self._json({"id": repo_id, "sha": commit, "siblings": siblings, "tags": [], "private": repo.private})

    def _item(self, name: str, data: bytes) -> dict[str, Any]:
        item: dict[str, Any] = {"type": "file", "path": name, "size": len(data)}
        item["oid"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if name.endswith(".safetensors"):
            item["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return item

    def _take(self, repo_id: str, repo: Repo, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line]
        parent = repo.branches.get(branch)
        if parent is None:
            raise _Refusal(404, "RevisionNotFound")
        files = dict(repo.commits[parent])
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    if value.get("parentCommit") not in (None, parent):
                        raise _Refusal(412, "PreconditionFailed", "the branch has moved")
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "deletedFile":
                    del files[value["path"]]
                case "lfsFile":
                    if self.server.cas is None and value["oid"] not in self.server.blobs:
                        raise _Refusal(400, "BadRequest", f"{value['path']} was never uploaded")
                    files[value["path"]] = self.server.blobs.get(value["oid"], b"")
        commit = repo.commit(files, branch)
        self._json({"commitUrl": f"{self.server.url}/{repo_id}/commit/{commit}", "commitOid": commit})

    def _lfs_batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for item in wanted["objects"]:
            entry: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            href = f"{self.server.url}/lfs/{item['oid']}"
            if item["oid"] not in self.server.blobs:
                upload: dict[str, Any] = {"href": href}
                if self.server.chunk_size:
                    count = -(-item["size"] // self.server.chunk_size)
                    upload["header"] = {"chunk_size": str(self.server.chunk_size)}
                    upload["header"] |= {str(i): f"{href}/{i}" for i in range(1, count + 1)}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{href}/verify"}}
            objects.append(entry)
        self._json({"transfer": "multipart" if self.server.chunk_size else "basic", "objects": objects})

    def _lfs(self, rest: list[str], body: bytes) -> None:
        match rest:
            case [oid, "verify"]:
                if oid not in self.server.blobs:
                    raise _Refusal(400, "BadRequest", "nothing arrived")
                self._json({})
            case [oid, part] if self.command == "PUT":
                self.server.parts.setdefault(oid, {})[int(part)] = body
                self._send(b"", {"ETag": f'"{part}"'})
            case [oid]:
                if self.command == "POST":  # all parts are there
                    body = b"".join(data for _, data in sorted(self.server.parts.pop(oid).items()))
                if hashlib.sha256(body).hexdigest() != oid:
                    raise _Refusal(400, "BadRequest", "the content has another hash")
                self.server.blobs[oid] = body
                self._json({})

    def _resolve(self, repo_id: str, revision: str, file: str) -> None:
        repo = self._repo(repo_id)
        commit = self._commit(repo, revision)
        if file not in repo.commits[commit]:
            raise _Refusal(404, "EntryNotFound", headers={"X-Repo-Commit": commit})
        content = repo.commits[commit][file]
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        if file in self.server.corrupted:
            content = bytes([*content[:-1], content[-1] ^ 1])
        if self.command == "GET" and self.server.cut_downloads and file.endswith(".safetensors"):
            self.server.cut_downloads -= 1
            start = self._range_start()
            self._send(content[start : start + (len(content) - start) // 2], headers, 200, length=len(content) - start)
            return self._hang_up()
        if (start := self._range_start()) and self.command == "GET":
            self.server.ranges_seen.append(self.headers["Range"])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._send(content[start:], headers, 206)
        self._send(content, headers)

    def _range_start(self) -> int:
        wanted = self.headers.get("Range", "bytes=0-")
        return int(wanted.removeprefix("bytes=").partition("-")[0] or 0)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, content: Any) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200, *, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)
