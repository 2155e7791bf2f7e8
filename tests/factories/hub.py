"""A hub on this machine: the few routes that the client asks for, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ROUTE = re.compile(
    r"/(?P<api>api/)?(?:(?P<kind>datasets|models)/)?(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?P<verb>revision|tree|resolve)/(?P<rev>[^/]+)(?:/(?P<file>.+))?)?$"
)


@dataclass
class FakeHub:
    """What it holds, how it misbehaves, and what it was asked.

    Attributes:
        files: content by repository and path; those named in `large` are stored apart (LFS).
        commits: the commit of a branch or tag by repository.
        gated: repositories that want the token `good`; `hidden`: unknown without it.
        cut: bytes after which the next transfer of a file breaks off.
        damaged: files of which other bytes arrive.
        asked: (method, path) of every request for a file, and the bytes from which on.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    large: tuple[str, ...] = (".bin",)
    gated: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    endpoint: str = ""

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit that a branch, tag or commit means."""
        known = self.commits[repo]
        return known.get(revision, revision if revision in known.values() else None)

    def sum(self, repo: str, path: str) -> str:
        """As the hub gives it: sha256 of large files, git's sha1 of others."""
        content = self.files[repo][path]
        if path.endswith(self.large):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()

    def tree(self, repo: str) -> list[dict[str, Any]]:
        """All files of a repository, and one folder."""
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "oid": "0" * 40}]
        for path, content in self.files[repo].items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": "1" * 40}
            if path.endswith(self.large):
                sums = self.sum(repo, path)
                entry["lfs"] = {"oid": sums, "size": len(content), "pointerSize": 134}
            else:
                entry["oid"] = self.sum(repo, path)
            entries.append(entry)
        return entries


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub at `endpoint` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            match = _ROUTE.match(self.path.partition("?")[0])
            repo = match["repo"] if match else ""
            is_in = self.headers.get("Authorization") == "Bearer good"
            if match is None or repo not in hub.files or (repo in hub.hidden and not is_in):
                self._send(401 if match else 404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            revision = hub.commit(repo, match["rev"] or "main")
            if revision is None:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif match["verb"] == "tree":
                self._send(200, json.dumps(hub.tree(repo)).encode())
            elif match["verb"] == "resolve":
                self._file(repo, revision, match["file"], is_in)
            else:
                info = {"id": repo, "sha": revision, "siblings": [], "private": False}
                self._send(200, json.dumps(info).encode())

        def _file(self, repo: str, revision: str, path: str, is_in: bool) -> None:
            if repo in hub.gated and not is_in:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
                return
            content, first = hub.files[repo][path], 0
            if path in hub.damaged:
                content = bytes(len(content))
            if wanted := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
                first = int(wanted[1])
            if self.command == "GET":
                hub.asked[path, first] += 1
            headers = {"ETag": f'"{hub.sum(repo, path)}"', "X-Repo-Commit": revision}
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            cut = hub.cut.pop(path, None) if self.command == "GET" else None
            self._send(206 if first else 200, content[first:], headers, cut)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: Any = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
