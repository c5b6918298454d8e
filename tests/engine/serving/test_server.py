"""bin/serve for real: a folded variant behind a key, and base and variants side by side, through the openai client."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
KEY = "a-key-of-the-test"
ASK = [{"role": "user", "content": "Could you turn off the alarm on my phone?"}]
pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.usefixtures("smollm2_dir")]


@contextmanager
def serve(folder: Path, *arguments: str, key: str | None = KEY) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A server, its URL and its log; killed in the end if it has not stopped by itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFUSAL_ROLLOUT_CACHE": str(ROOT / ".cache")}
    if key is not None:
        environment["VLLM_API_KEY"] = key
    log = folder / "log.txt"
    command = [sys.executable, "-m", "engine.commands.serve", "--port", str(port), *arguments]
    small = ["--", "--max-model-len", "1024"]
    with log.open("w") as output:
        server = subprocess.Popen([*command, *small], cwd=folder, stdout=output, stderr=output, text=True, env=environment)
        try:
            deadline = time.monotonic() + 300
            while "\ntry: curl" not in log.read_text():
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
            yield server, f"http://127.0.0.1:{port}/v1", log
        finally:
            if server.poll() is None:
                server.kill()
                server.wait(30)


def post(url: str, path: str, key: str | None) -> int:
    body = json.dumps({"model": "smollm2_135m_k1", "messages": ASK, "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url.removesuffix("/v1") + path, body, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_variant_is_served_as_any_model_is(tmp_path: Path) -> None:
    with serve(tmp_path, "--variant", "smollm2_135m_k1") as (server, url, log):
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
        (model,) = client.models.list().data
        found = re.search(r"ready: smollm2_135m_k1 \((\w{16})\)", log.read_text())
        assert (
            found is not None
            and model.id == "smollm2_135m_k1"
            and f"smollm2_135m_k1-{found[1]}" in str(model.model_dump()["root"])
        )
        options = {"model": model.id, "messages": ASK, "max_tokens": 24, "temperature": 0}
        chat = client.chat.completions.create(**options, logprobs=True, top_logprobs=2)
        text = chat.choices[0].message.content
        assert text and len(chat.choices[0].logprobs.content[0].top_logprobs) == 2
        pieces = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**options, stream=True)]
        assert len(pieces) > 5 and "".join(pieces) == text
        assert client.completions.create(model=model.id, prompt="The capital of France is", max_tokens=4).choices[0].text
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _: client.chat.completions.create(**options).choices[0].message.content, range(8)))
        assert all(texts)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="another", max_retries=0).models.list()
        assert [post(url, path, None) for path in ("/invocations", "/tokenize", "/v1/chat/completions")] == [401, 401, 401]
        assert post(url, "/invocations", KEY) == 200
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**options, "model": "nobody"})
        line = next(line for line in log.read_text().splitlines() if line.startswith("try: "))
        done = subprocess.run(
            line.removeprefix("try: "),
            shell=True,
            capture_output=True,
            text=True,
            env={**os.environ, "VLLM_API_KEY": KEY},
            check=True,
        )
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]
        assert KEY not in Path(f"/proc/{server.pid}/cmdline").read_text() and KEY not in log.read_text()
        assert "vllm" in Path(f"/proc/{server.pid}/cmdline").read_text()  # this very process became the server
        assert "Traceback" not in log.read_text()  # afterwards vLLM may log that its engine went before its output handler
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, -signal.SIGTERM)


def test_base_and_variants_answer_side_by_side(tmp_path: Path) -> None:
    with serve(tmp_path, "--variant", "smollm2_135m_k1", "--variant", "smollm2_135m_k3", "--with-base", key=None) as (
        server,
        url,
        log,
    ):
        client = openai.OpenAI(base_url=url, api_key="none needed", max_retries=0)
        names = [model.id for model in client.models.list().data]
        assert names == ["base", "smollm2_135m_k1", "smollm2_135m_k3"]
        answers = {
            name: client.chat.completions.create(model=name, messages=ASK, max_tokens=24, temperature=0)
            .choices[0]
            .message.content
            for name in names
        }
        print(answers)
        assert len(set(answers.values())) == 3 and "adapters on one copy of the base" in log.read_text()
        check_bench_over(url, tmp_path, log)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) in (0, 130, -signal.SIGINT)


def check_bench_over(url: str, folder: Path, log: Path) -> None:
    """bin/bench --server on it: the documents carry the hashes that the server told, and base and variants differ."""
    asked = ["--variant", "smollm2_135m_k1", "--variant", "smollm2_135m_k3", "--limit", "8", "--num-fewshot", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFUSAL_ROLLOUT_CACHE": str(ROOT / ".cache")}
    command = [sys.executable, "-m", "engine.commands.bench", *asked, "--server", url, "--out", str(folder / "bench")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["n"] for row in result["tasks"]] == [8, 8] and result["server"] == url
    rows = pd.read_parquet(folder / "bench" / "bench.parquet")
    ready = next(line for line in log.read_text().splitlines() if line.startswith("ready: "))
    hashes = dict(re.findall(r"(\S+) \((\w{16})\)", ready))
    assert rows.groupby("variant").variant_hash.first().to_dict() == hashes
    assert rows.groupby("variant").responses.first().nunique() == 3
    command = [*command[:-4], "--server", url.replace("/v1", "/v2"), "--variant", "another"]
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False, env=environment).returncode == 2


def admin(url: str, key: str, variant: str | None = None) -> tuple[int, dict[str, Any]]:
    body = None if variant is None else json.dumps({"variant": variant}).encode()
    request = urllib.request.Request(url.removesuffix("/v1") + "/admin/variant", body, {"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_running_server_walks_through_variants_and_no_response_mixes_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSAL_ADMIN_KEY", "the admin's")
    variants = ["--variant", "smollm2_135m_k1", "--variant", "smollm2_135m_k3", "--swappable"]
    with serve(tmp_path, *variants) as (server, url, log):
        client = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)

        def ask(tokens: int = 24) -> tuple[str, str]:
            raw = client.chat.completions.with_raw_response.create(
                model="swappable", messages=ASK, max_tokens=tokens, temperature=0, stream=True
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
            return raw.headers["x-refusal-variant"].split("@")[0], text

        texts = {}
        for name in ("base", "smollm2_135m_k1", "smollm2_135m_k3", "base"):
            status, state = admin(url, "the admin's", name)
            assert status == 200 and state["variant"] == name and state["probe_error"] < 0.05, state
            served, text = ask()
            assert served == name and texts.setdefault(name, text) == text  # the base comes back to the letter
            print(f"{name}: swap {state['seconds']} s, {text[:60]!r}")
        assert len(set(texts.values())) == 3
        longer = dict.fromkeys(texts, "")
        for name in longer:
            assert admin(url, "the admin's", name)[0] == 200
            longer[name] = ask(96)[1]
        with ThreadPoolExecutor(9) as pool:
            asked = [pool.submit(ask, 96) for _ in range(4)]
            time.sleep(0.3)
            swapped = pool.submit(admin, url, "the admin's", "smollm2_135m_k1")
            time.sleep(0.1)
            asked += [pool.submit(ask, 96) for _ in range(4)]
            answers = [one.result() for one in asked]
        assert swapped.result()[0] == 200
        print("served by:", [name for name, _ in answers])
        assert {name for name, _ in answers[:4]} == {"smollm2_135m_k3"} and {name for name, _ in answers[4:]} == {
            "smollm2_135m_k1"
        }
        starts = {name: text[:20] for name, text in longer.items()}
        assert all(text.startswith(starts[name]) for name, text in answers)
        assert admin(url, "another")[0] == 401 and admin(url, "the admin's", "nobody")[0] == 404
        assert admin(url, "the admin's")[1]["variant"] == "smollm2_135m_k1"
        card = client.models.list().data[0].model_dump()
        assert card["id"] == "swappable" and card["variant"] == "smollm2_135m_k1" and len(card["variants"]) == 3
        assert "the admin's" not in log.read_text() and "the admin's" not in Path(f"/proc/{server.pid}/cmdline").read_text()
