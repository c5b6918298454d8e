"""A batch endpoint on loopback, as OpenAI's is: files go up, batches are made of them, answers come down."""

import json
from typing import Any

from aiohttp import web

from tests.judging.chaos import Chaos
from tests.judging.imitation import completion

Body = dict[str, Any]


class BatchEndpoint(Chaos):
    """Answers each question of a batch with the right verdict once it was looked at `looks` times.

    faults: by place in the file, what comes in an answer's stead: a status with its body, or "missing".
    uploads, looked: what was asked of it.
    """

    def __init__(self, looks: int = 1, faults: dict[int, Any] | None = None, refuse: str | None = None) -> None:
        super().__init__()
        self.looks, self.broken, self.refuse = looks, faults or {}, refuse
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Body] = {}
        self.uploads: list[list[Body]] = []
        self.looked = 0

    def application(self) -> web.Application:
        application = web.Application(client_max_size=2**28)
        application.router.add_post("/v1/files", self._upload)
        application.router.add_get("/v1/files/{name}/content", self._content)
        application.router.add_post("/v1/batches", self._create)
        application.router.add_get("/v1/batches/{name}", self._look)
        return application

    async def _upload(self, request: web.Request) -> web.Response:
        if self.refuse is not None:
            return web.json_response({"error": {"message": self.refuse}}, status=404)
        form = await request.post()
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
        self.uploads.append([json.loads(line) for line in self.files[name].splitlines()])
        return web.json_response({"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"})

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {"file": asked["input_file_id"], "looks": 0}
        return web.json_response(self._batch(name, "validating"))

    async def _look(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        batch = self.batches[name]
        batch["looks"] += 1
        self.looked += 1
        if batch["looks"] < self.looks:
            return web.json_response(self._batch(name, "in_progress"))
        out = f"out-{name}"
        questions = [json.loads(line) for line in self.files[batch["file"]].splitlines()]
        answers = [self._answer(place, one) for place, one in enumerate(questions)]
        self.files[out] = b"\n".join(json.dumps(one).encode() for one in answers if one is not None)
        return web.json_response(self._batch(name, "completed") | {"output_file_id": out})

    async def _content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["name"]])

    def _answer(self, place: int, question: Body) -> Body | None:
        fault = self.broken.get(place)
        if fault == "missing":
            return None
        status, body = (200, completion(question["body"])) if fault is None else fault
        response = {"status_code": status, "request_id": "r", "body": body}
        return {"id": f"r{place}", "custom_id": question["custom_id"], "response": response, "error": None}

    def _batch(self, name: str, status: str) -> Body:
        told = {"completion_window": "24h", "endpoint": "/v1/chat/completions", "created_at": 0}
        return {"id": name, "object": "batch", "status": status, "input_file_id": self.batches[name]["file"], **told}
