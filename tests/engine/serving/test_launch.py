"""What bin/serve refuses before a model loads, and the command it would become."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.configfile import load_config
from engine.errors import EngineError
from engine.serving import launch
from engine.serving.ready import ready_lines
from engine.serving.swap import Gate

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("smollm2_dir")


def test_engine_arguments_become_vllms_flags() -> None:
    given = {"enforce_eager": True, "enable_prefix_caching": False, "max_model_len": 2048, "quantization": None}
    given |= {"hf_overrides": {"a": 1}, "middleware": ["x", "y"]}
    simple = ["--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "2048"]
    assert launch.flags_of(given) == [*simple, "--hf-overrides", '{"a": 1}', "--middleware", "x", "y"]


def test_another_address_needs_a_key_and_gets_one_made_only_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(EngineError, match=r"0\.0\.0\.0 can be reached from other machines.*--new-key"):
        launch.check_address(launch.Options(host="0.0.0.0", port=0))
    made = launch.check_address(launch.Options(host="0.0.0.0", port=0, new_key=True))
    assert made is not None and len(made) >= 32
    assert launch.check_address(launch.Options(port=0)) is None
    assert launch.check_address(launch.Options(port=0, api_key="k")) == "k"
    monkeypatch.setenv("VLLM_API_KEY", "from the environment")
    assert launch.check_address(launch.Options(host="0.0.0.0", port=0)) == "from the environment"


def test_a_port_in_use_is_said_before_anything_is_made() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            EngineError, match=r"Cannot listen on 127\.0\.0\.1:\d+ \(Address already in use\)\. Choose another --port"
        ):
            launch.check_address(launch.Options(port=taken.getsockname()[1]))


def test_too_little_memory_is_said_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    session = launch.open_sessions([load_config("smollm2_135m_k1", {"vllm.kv_cache_memory_bytes": 10**15})])[0]
    with pytest.raises(EngineError, match=r"Serving takes about 1000001\.\d GB here \(weights 0\.3, cache 1000000\.0\)"):
        launch.check_machine(session)


def test_variants_of_one_base_with_names_of_their_own() -> None:
    one, other = load_config("smollm2_135m_k1"), load_config("smollm2_135m_k3")
    assert len(launch.open_sessions([one, other])) == 2
    with pytest.raises(EngineError, match="Variant smollm2_135m_k1 is named twice"):
        launch.open_sessions([one, one])
    with pytest.raises(EngineError, match="'base' is the base's own name"):
        launch.open_sessions([one.model_copy(update={"variant": "base"})])


def test_variants_of_two_bases_take_two_servers(llama_dir: Path, tmp_path: Path) -> None:
    other = load_config("smollm2_135m_k3", {"model.path": str(llama_dir), "directions.layers": [1]})
    with pytest.raises(EngineError, match=r"one server holds one base. Start two"):
        launch.open_sessions([load_config("smollm2_135m_k1"), other])


def test_the_ready_line_holds_a_request_and_no_key() -> None:
    models = [launch.Served("base", "b" * 16, Path("base")), launch.Served("k1", "a" * 16, Path("k1"))]
    text = ready_lines(launch.Launch([], models, "http://127.0.0.1:9/v1", {launch.KEY_VARIABLE: "secret"}))
    assert "ready: base (bbbbbbbbbbbbbbbb), k1 (aaaaaaaaaaaaaaaa) at http://127.0.0.1:9/v1" in text
    assert '"model": "k1"' in text and "$VLLM_API_KEY" in text and "secret" not in text
    assert "secret" not in repr(launch.Launch([], models, "u", {launch.KEY_VARIABLE: "secret"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "smollm2_135m_k1", "--host", "0.0.0.0"], "can be reached from other machines"),
        (["--variant", "smollm2_k1"], "Unknown variant 'smollm2_k1'"),
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


def test_a_swap_waits_for_responses_and_holds_later_ones_back() -> None:
    order: list[str] = []

    async def respond(gate: Gate, name: str, seconds: float) -> None:
        async with gate.response():
            order.append(f"{name} begins")
            await asyncio.sleep(seconds)
            order.append(f"{name} ends")

    async def swap(gate: Gate) -> None:
        async with gate.swap():
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
