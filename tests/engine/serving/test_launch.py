"""What bin/serve refuses before a model loads, and the command it would become."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from editing.errors import EditError
from editing.projection import Edit, orthonormal_basis
from engine.configs.load import load_config
from engine.errors import EngineError
from engine.models.variant import Variant
from engine.rollout.variants import open_sessions
from engine.serving import checks, guard, launch
from engine.serving.folders import Launch, ServedModel, variant_folder
from engine.serving.gate import Gate
from engine.serving.ready import ready_lines

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("smollm2_dir")


def test_engine_arguments_become_vllms_flags() -> None:
    given = {"enforce_eager": True, "enable_prefix_caching": False, "max_model_len": 2048, "quantization": None}
    given |= {"hf_overrides": {"a": 1}, "allowed_local_media_path": ["x", "y"]}
    simple = ["--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "2048"]
    assert launch.flags_of(given) == [*simple, "--hf-overrides", '{"a": 1}', "--allowed-local-media-path", "x", "y"]


def test_another_address_needs_a_key_and_gets_one_made_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(EngineError, match=r"0\.0\.0\.0 can be reached from other machines.*--new-key"):
        checks.check_address(checks.ServeOptions(host="0.0.0.0", port=0))
    made = checks.check_address(checks.ServeOptions(host="0.0.0.0", port=0, new_key=True))
    assert made is not None and len(made) >= 32
    assert checks.check_address(checks.ServeOptions(port=0)) is None
    assert checks.check_address(checks.ServeOptions(port=0, api_key="k")) == "k"
    monkeypatch.setenv("VLLM_API_KEY", "from the environment")
    assert checks.check_address(checks.ServeOptions(host="0.0.0.0", port=0)) == "from the environment"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("--host", "--host"),
        ("--host=0.0.0.0", "--host"),
        ("--hos", "--hos"),
        ("--api_key", "--api-key"),
        ("--served-model-name", "--served-model-name"),
        ("--hf-overrides.rope_theta", "--hf-overrides"),
        ("--grpc", "--grpc"),
        ("--config", "--config"),
        ("--quantization=fp8", "--quantization"),
    ],
)
def test_what_follows_the_dashes_cannot_open_the_server_or_make_another_model(given: str, named: str) -> None:
    with pytest.raises(EngineError, match=f"{named} is not passed on to vLLM"):
        checks.check_extra(checks.ServeOptions(extra=("--max-model-len", "2048", given)))


@pytest.mark.parametrize("given", ["--api-server-count=2", "-dp", "--data_parallel_size", "--kv-offloading-size"])
def test_a_server_that_swaps_is_one_engine_with_one_cache(given: str) -> None:
    checks.check_extra(checks.ServeOptions(extra=(given, "2")))
    with pytest.raises(EngineError, match="is not passed on to vLLM"):
        checks.check_extra(checks.ServeOptions(swappable=True, extra=(given, "2")))


def test_a_configuration_of_several_engines_does_not_swap() -> None:
    session = open_sessions([load_config("smollm2_135m_k1", {"vllm.data_parallel_size": 2})])[0]
    checks.check_settings(session, checks.ServeOptions())
    with pytest.raises(EngineError, match=r"vllm.data_parallel_size does not go with --swappable"):
        checks.check_settings(session, checks.ServeOptions(swappable=True))


def test_other_flags_of_vllm_are_passed_on() -> None:
    checks.check_extra(
        checks.ServeOptions(extra=("--max-model-len", "2048", "--model-impl", "vllm", "--max-num-seqs=8", "-1", "--"))
    )


def test_a_port_in_use_is_said_before_anything_is_made() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            EngineError, match=r"Cannot listen on 127\.0\.0\.1:\d+ \(Address already in use\)\. Choose another --port"
        ):
            checks.check_address(checks.ServeOptions(port=taken.getsockname()[1]))


def test_too_little_memory_is_said_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_sessions([load_config("smollm2_135m_k1", {"model.dtype": "bfloat16", "vllm.kv_cache_memory_bytes": 10**15})])[
        0
    ]
    with pytest.raises(EngineError, match=r"Serving takes about 1000001\.\d GB here \(weights 0\.3, cache 1000000\.0\)"):
        checks.check_machine(session, checks.ServeOptions())


def test_a_window_that_the_cache_cannot_hold_is_said_with_both() -> None:
    """SmolLM2 keeps 2 (keys, values) x 30 blocks x 3 heads x 64 values of 2 bytes a token: 23,040 bytes."""
    settings = {"model.dtype": "bfloat16", "vllm.kv_cache_memory_bytes": 23_040 * 1000}
    session = open_sessions([load_config("smollm2_135m_k1", settings)])[0]
    checks.check_machine(session, checks.ServeOptions(extra=("--max_model_len=1000",)))
    with pytest.raises(EngineError, match=r"One request of 1024 tokens takes 0\.0 GB of cache, and the cache has 0\.0. Shorten"):
        checks.check_machine(session, checks.ServeOptions())
    checks.check_machine(session, checks.ServeOptions(extra=("--kv-cache-memory-bytes", str(10**9))))


def test_a_new_key_is_the_users_own_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "the user's")
    options = checks.ServeOptions(port=0, new_key=True)
    assert checks.check_address(options) == checks.given_key(options) == "the user's"
    monkeypatch.delenv("VLLM_API_KEY")
    assert checks.check_address(options) and checks.given_key(options) is None


def test_a_gpu_installation_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has none; only the name of the installed build is another here."""
    monkeypatch.setattr(checks, "has_gpu", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    session = open_sessions([load_config("smollm2_135m_k1")])[0]
    with pytest.raises(EngineError, match=r"vLLM is for a GPU: none is visible. Check nvidia-smi"):
        checks.check_machine(session, checks.ServeOptions())


def test_a_gpu_that_is_in_use_is_said_before_vllm_starts() -> None:
    checks.check_gpu_memory(weights=6 * 10**9, free=75 * 10**9, claimed=72 * 10**9)
    with pytest.raises(EngineError, match=r"vLLM takes 72\.0 GB of the GPU \(weights 6\.0\) and 70\.0 GB are free"):
        checks.check_gpu_memory(weights=6 * 10**9, free=70 * 10**9, claimed=72 * 10**9)
    with pytest.raises(EngineError, match=r"vLLM takes 17\.1 GB of the GPU \(weights 16\.0\) and 8\.0 GB are free"):
        checks.check_gpu_memory(weights=16 * 10**9, free=8 * 10**9, claimed=0)


def test_variants_of_one_base_with_names_of_their_own() -> None:
    one, other = load_config("smollm2_135m_k1"), load_config("smollm2_135m_k3")
    assert len(open_sessions([one, other])) == 2
    with pytest.raises(EngineError, match="Variant smollm2_135m_k1 is named twice"):
        open_sessions([one, one])
    with pytest.raises(EngineError, match="'base' is the base's own name"):
        open_sessions([one.model_copy(update={"variant": "base"})])


def test_variants_of_two_bases_take_two_servers(llama_dir: Path, tmp_path: Path) -> None:
    other = load_config("smollm2_135m_k3", {"model.path": str(llama_dir), "directions.layers": [1]})
    with pytest.raises(EngineError, match=r"one server holds one base. Start two"):
        open_sessions([load_config("smollm2_135m_k1"), other])


def test_the_ready_line_holds_a_request_and_no_key() -> None:
    models = [ServedModel("base", "b" * 16, Path("base")), ServedModel("k1", "a" * 16, Path("k1"))]
    text = ready_lines(Launch([], models, "http://127.0.0.1:9/v1", {checks.KEY_VARIABLE: "secret"}))
    assert "ready: base (bbbbbbbbbbbbbbbb), k1 (aaaaaaaaaaaaaaaa) at http://127.0.0.1:9/v1" in text
    assert '"model": "k1"' in text and "$VLLM_API_KEY" in text and "secret" not in text
    assert "secret" not in repr(Launch([], models, "u", {checks.KEY_VARIABLE: "secret"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "smollm2_135m_k1", "--host", "0.0.0.0"], "can be reached from other machines"),
        (["--variant", "smollm2_k1"], "Unknown variant 'smollm2_k1'"),
        (["--variant", "smollm2_135m_k1", "--", "--host", "0.0.0.0"], "--host is not passed on to vLLM. Give --host before"),
        (["--variant", "qwen3_1_7b_k1"], "has no published layer"),
        (["--variant", "smollm2_135m_k1", "--layers", "40"], "Layer 40 is out of range"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "REFUSAL_ROLLOUT_CACHE": os.environ.get("REFUSAL_ROLLOUT_CACHE", str(ROOT / ".cache")),
    }
    environment.pop("VLLM_API_KEY", None)
    command = [sys.executable, "-m", "engine.commands.serve", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()


def test_every_route_but_health_takes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "the key")
    reached: list[str] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: object, send: object) -> None:
        reached.append(scope.get("path", scope["type"]))

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def ask(path: str, key: str | None, kind: str = "http") -> None:
        headers = [] if key is None else [(b"authorization", key.encode())]
        await guard.KeyMiddleware(app)({"type": kind, "path": path, "method": "POST", "headers": headers}, receive, send)

    async def receive() -> dict[str, Any]:
        return {}

    async def all_of_it() -> None:
        for path in ("/v1/completions", "/invocations", "/tokenize", "/metrics", "/healthy", "/"):
            for key in (None, "Bearer another", "Bearer", "the key", "Basic the key"):
                await ask(path, key)
            await ask(path, "bearer the key")
        await ask("/health", None)
        await ask("/v1/realtime", None, "websocket")
        await guard.KeyMiddleware(app)({"type": "lifespan"}, receive, send)

    asyncio.run(all_of_it())
    assert reached == ["/v1/completions", "/invocations", "/tokenize", "/metrics", "/healthy", "/", "/health", "lifespan"]
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 30 and {message["status"] for message in starts} == {401}
    assert [message for message in sent if message["type"].startswith("websocket")] == [{"type": "websocket.close", "code": 1008}]


def test_a_swap_gives_up_on_a_response_that_does_not_end() -> None:
    async def all_of_it() -> None:
        gate = Gate()
        stalled = asyncio.create_task(respond_for(gate, 60.0))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with gate.swap(0.05):
                raise AssertionError("swapped while a response was under way")
        await asyncio.wait_for(respond_for(gate, 0.0), 1.0)  # the gate is open again
        stalled.cancel()
        await asyncio.sleep(0)
        async with gate.swap(1.0):
            pass

    async def respond_for(gate: Gate, seconds: float) -> None:
        async with gate.response():
            await asyncio.sleep(seconds)

    asyncio.run(all_of_it())


def test_a_swap_waits_for_responses_and_holds_later_ones_back() -> None:
    order: list[str] = []

    async def respond(gate: Gate, name: str, seconds: float) -> None:
        async with gate.response():
            order.append(f"{name} begins")
            await asyncio.sleep(seconds)
            order.append(f"{name} ends")

    async def swap(gate: Gate) -> None:
        async with gate.swap(5.0):
            order.append("swap")

    async def all_of_it() -> None:
        gate = Gate()
        early = [asyncio.create_task(respond(gate, name, 0.05)) for name in "ab"]
        await asyncio.sleep(0.01)
        swapping = asyncio.create_task(swap(gate))
        await asyncio.sleep(0.01)
        late = asyncio.create_task(respond(gate, "c", 0.0))
        given_up = asyncio.create_task(swap(gate))
        await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.gather(*early, swapping, late)
        await asyncio.wait_for(respond(gate, "d", 0.0), 1.0)  # a swap that was given up leaves the gate open

    asyncio.run(all_of_it())
    assert order.index("swap") > max(order.index("a ends"), order.index("b ends"))
    assert order.index("c begins") > order.index("swap") and order[-1] == "d ends"


def test_a_cached_folder_whose_weights_are_not_its_cards_is_refused_unless_told(
    llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    config = load_config("smollm2_135m_k1", {"model.path": str(llama_dir), "directions.layers": [1]})
    session = open_sessions([config])[0]
    basis_HK = orthonormal_basis(torch.randn(1, 48, generator=torch.Generator().manual_seed(0)))
    variant = Variant("k1", session.base_hash, session.plan, Edit(basis_HK, 1.0))
    for as_adapter, file in ((False, "model.safetensors"), (True, "adapter_model.safetensors")):
        made = variant_folder(session, variant, as_adapter=as_adapter, allow_changed=False)
        assert variant_folder(session, variant, as_adapter=as_adapter, allow_changed=False) == made
        tensors = load_file(made.folder / file)
        name = next(name for name in sorted(tensors) if "down_proj" in name)
        save_file({**tensors, name: tensors[name] + 0.5}, made.folder / file, {"format": "pt"})
        with pytest.raises(EngineError, match=rf"{made.folder} says on its card .* 1 of its tensors .*down_proj.*--allow"):
            variant_folder(session, variant, as_adapter=as_adapter, allow_changed=False)
        assert variant_folder(session, variant, as_adapter=as_adapter, allow_changed=True) == made
        assert f"1 tensors or files are not variant {variant.hash}'s; served as they are" in capsys.readouterr().err
        save_file(tensors, made.folder / file, {"format": "pt"})
        assert variant_folder(session, variant, as_adapter=as_adapter, allow_changed=False) == made
        settings = made.folder / ("adapter_config.json" if as_adapter else "config.json")
        kept = settings.read_text()
        settings.write_text(json.dumps({**json.loads(kept), "lora_alpha": 4, "rms_norm_eps": 0.5}))
        with pytest.raises(EngineError, match=rf"are not what that edit makes of the base, {settings.name} first"):
            variant_folder(session, variant, as_adapter=as_adapter, allow_changed=False)
        settings.write_text(kept)
        (made.folder / file).write_bytes((made.folder / file).read_bytes()[:-100])
        with pytest.raises(EngineError, match=r"first. Remove the folder, and it is made again"):
            variant_folder(session, variant, as_adapter=as_adapter, allow_changed=False)


def test_an_adapter_of_what_no_adapter_can_do_is_refused_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("smollm2_135m_k1", {"edit.keep_norms": True})
    with pytest.raises(EditError, match="keeps norms is not of rank k"):
        launch.prepare(open_sessions([config]), checks.ServeOptions(with_base=True), None)
    assert not any(tmp_path.iterdir())
