"""Configurations: every file parses, precedence, and errors that name the nearest key."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.configs.judges import JUDGE_DIR, judge_names, load_judge
from engine.configs.load import (
    config_toml,
    differing_keys,
    find_config,
    load_config,
    variant_names,
)
from engine.errors import EngineError
from engine.vllm_compat import argument_names

PUBLISHED = {
    "llama32_1b_k1": ([9], 0.251, 0.951),
    "llama32_1b_k1_layer10": ([10], 0.208, 0.936),
    "llama32_1b_k1_layer7": ([7], 0.158, 0.948),
    "llama32_1b_k3": ([9, 10, 7], 0.373, 0.939),
    "llama32_1b_k5": ([9, 10, 7, 8, 15], 0.298, 0.917),
    "llama32_1b_k15": (list(range(1, 16)), 0.334, 0.818),
    "llama32_3b_k1": ([16], 0.262, 0.975),
    "llama32_3b_k1_layer15": ([15], 0.256, 0.982),
    "llama32_3b_k1_layer17": ([17], 0.211, 0.973),
    "llama32_3b_k3": ([16, 15, 17], 0.344, 0.962),
    "llama32_3b_k5": ([16, 15, 17, 13, 9], 0.374, 0.950),
    "llama31_8b_k1": ([9], 0.80, None),
    "qwen1_1_8b_k1": ([15], 0.91, None),
    "qwen3_1_7b_k1": ("sweep", 0.96, None),
    "gemma_2b_k1": ("sweep", 0.90, None),
    "phi3_mini_4k": ("sweep", 0.39, None),
}


@pytest.mark.parametrize("name", variant_names())
def test_every_variant_in_configs_is_valid_and_short(name: str) -> None:
    config = load_config(name)
    assert config.variant == name and config.description
    assert len(find_config(name).read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", judge_names())
def test_every_judge_in_configs_is_valid_short_and_holds_no_key(name: str) -> None:
    file = load_judge(name)
    assert (file is None) == (name == "offline")
    if file is None:
        return
    text = (JUDGE_DIR / f"{name}.toml").read_text()
    assert file.description and len(text.splitlines()) <= 40 and len(file.read_rubric().hash) == 64
    if file.endpoint is not None:
        variable, here = file.endpoint.api_key_env or "", "127.0.0.1" in file.endpoint.base_url
        assert here or (variable.isupper() and f'api_key_env = "{variable}"' in text)
        assert file.endpoint.price is not None or not file.endpoint.prices


def test_a_judges_file_may_extend_another_and_flags_win(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'extends = "{JUDGE_DIR / "deepseek.toml"}"\n[endpoint]\ntemperature = 0.5\n')
    file = load_judge(str(tmp_path / "mine.toml"), {"endpoint.model": "deepseek-reasoner"})
    assert file is not None and file.endpoint is not None and file.endpoint.structured == "json_object"
    assert (file.endpoint.temperature, file.endpoint.model, file.endpoint.price) == (0.5, "deepseek-reasoner", None)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_studys_variants_carry_their_published_figures(name: str) -> None:
    config = load_config(name)
    assert config.published is not None
    assert (config.directions.layers, config.published.compliance, config.published.coherence) == PUBLISHED[name]


def test_the_embedded_variants_have_their_ranks() -> None:
    ranks = {name: len(load_config(f"smollm2_135m_{name}").directions.layers) for name in ("k1", "k3", "k5")}
    assert ranks == {"k1": 1, "k3": 3, "k5": 5}


def test_flags_win_over_the_file_and_the_file_over_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('[model]\npath = "m"\n[sampling]\nmax_tokens = 9\nseed = 3\n[directions]\nlayers = [1]\n')
    (tmp_path / "v.toml").write_text('extends = "base.toml"\n[sampling]\nmax_tokens = 8\n[directions]\nlayers = [2]\n')
    config = load_config(str(tmp_path / "v.toml"), {"directions.layers": [3]})
    assert (config.sampling.max_tokens, config.sampling.seed, config.directions.layers) == (8, 3, [3])
    assert config.sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("samplings.seed", 1, "unknown key 'samplings'. Did you mean 'sampling'?"),
        ("sampling.max_token", 1, "unknown key 'sampling.max_token'. Did you mean 'max_tokens'?"),
        ("published.complience", 1, "unknown key 'published.complience'. Did you mean 'compliance'?"),
        ("vllm.max_modle_len", 1, "unknown key 'vllm.max_modle_len'. Did you mean 'max_model_len'?"),
        ("edit.alpha", "much", "edit.alpha = 'much': expected a number."),
        ("edit.alpha", float("nan"), "edit.alpha = nan: expected a finite number."),
        ("directions.k", 2, "k = 2 is larger than the number of layers given (1)"),
        ("directions.layers", [], "directions.layers = []: expected at least one layer."),
        ("directions.layers", ["a"], "valid integer"),
        ("sampling.max_tokens", 0, "greater than or equal to 1"),
        ("data.num_requests", 0, "greater than or equal to 1"),
        ("data.pair_columns", ["harmful"], "expected two column names, the declined and the answered one"),
        ("data.pair_columns", ["a", "a"], "expected two column names, the declined and the answered one"),
        ("data.request_column", " ", "expected a column's name"),
        ("directions.layers", [True], "valid integer"),
        ("directions.layers", [22, 22], "a layer is named more than once"),
        ("sampling.temperature", float("inf"), "finite number"),
        ("model.chat_template_kwargs", {"tokenize": True}, "tokenize is set by the renderer"),
        ("vllm.load_format", "dummy", "vllm.load_format is not yours to set"),
        ("vllm.model", "other", "vllm.model is not yours to set. Set model.path."),
        ("variant", "../x", "should match pattern"),
        ("model.path.x", 1, "'path' is a value, not a table"),
        ("edit.layers", "4-", "expected numbers such as 16,15,17 or 4-20"),
        ("edit.keep_norms", True, ""),
    ],
)
def test_a_bad_key_or_value_is_named(key: str, value: object, message: str) -> None:
    overrides = {key: value} if message else {key: value, "edit.alpha": 0.5}
    with pytest.raises(EngineError) as caught:
        load_config("smollm2_135m_k1", overrides)
    assert (message or "keep_norms takes alpha 1") in str(caught.value)
    assert str(caught.value).startswith(("smollm2_135m_k1.toml: ", "--set"))


def test_a_saved_configuration_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.json").write_text("[]")
    config = load_config("llama32_3b_k5", {"data.train_pairs": "pairs.json", "edit.alpha": 0.5})
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "llama32_3b_k5.toml"
    file.write_text(config_toml(config))
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_config(str(file))
    assert again.data.train_pairs == str(tmp_path / "pairs.json")
    drop = {"data": {"train_pairs"}, "published": True}
    assert again.model_dump(exclude=drop) == config.model_dump(exclude=drop)


RELATIVE = 'extends = "base/base.toml"\n[data]\ntrain_pairs = "pairs.json"\n[directions]\nlayers = [1]\n'


def write_relative(folder: Path) -> Path:
    """A file that names pairs beside it, and extends one in a folder of its own that names requests beside that."""
    (folder / "base").mkdir(parents=True)
    for file in ("pairs.json", "base/requests.json"):
        (folder / file).write_text("[]")
    (folder / "base" / "base.toml").write_text('[model]\npath = "org/name"\n[data]\ntest_requests = "requests.json"\n')
    (folder / "mine.toml").write_text(RELATIVE)
    return folder / "mine.toml"


def test_a_path_in_a_file_is_relative_to_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_relative(tmp_path / "project")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(str(file)).data.train_pairs == str(tmp_path / "project" / "pairs.json")


def test_a_path_in_an_extended_file_is_relative_to_the_extended_one(tmp_path: Path) -> None:
    file = write_relative(tmp_path / "project")
    assert load_config(str(file)).data.test_requests == str(tmp_path / "project" / "base" / "requests.json")


def test_a_repository_is_no_path(tmp_path: Path) -> None:
    assert load_config(str(write_relative(tmp_path / "project"))).model.path == "org/name"


def test_a_path_from_the_current_folder_is_refused_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_relative(tmp_path / "project")
    (tmp_path / "project" / "pairs.json").rename(tmp_path / "pairs.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"'pairs.json' exists in the current folder and not beside the file"):
        load_config(str(file))


def test_an_unknown_variant_lists_the_nearest() -> None:
    with pytest.raises(EngineError, match=r"Unknown variant 'llama32_3b_k4'.*Nearest: .*llama32_3b_k5"):
        load_config("llama32_3b_k4")


@pytest.mark.parametrize(
    "text", ['extends = "\\u0000.toml"', "a = " + "[" * 3000, "a = " + "9" * 5000, f'extends = "{"x" * 5000}"']
)
def test_toml_that_python_chokes_on_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.toml").write_text(text)
    with pytest.raises(EngineError, match=r"is not valid TOML|is no path of a TOML file"):
        load_config(str(tmp_path / "v.toml"))


def test_a_byte_order_mark_is_no_part_of_a_toml(tmp_path: Path) -> None:
    (tmp_path / "v.toml").write_text('\ufeffmodel.path = "m"\ndirections.layers = [1]\n')
    assert load_config(str(tmp_path / "v.toml")).directions.layers == [1]


def test_broken_files_and_circles_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(EngineError, match=r"a.toml extends itself through a.toml -> b.toml"):
        load_config(str(tmp_path / "a.toml"))
    (tmp_path / "c.toml").write_text("a = ")
    with pytest.raises(EngineError, match="not valid TOML"):
        load_config(str(tmp_path / "c.toml"))
    (tmp_path / "d.toml").write_text('extends = "none.toml"')
    with pytest.raises(EngineError, match="which does not exist"):
        load_config(str(tmp_path / "d.toml"))


def test_vllms_argument_names_are_those_of_the_installed_vllm() -> None:
    names = argument_names()
    assert {"max_model_len", "tensor_parallel_size", "gpu_memory_utilization", "enforce_eager", "seed"} <= set(names)


def test_differing_keys_are_dotted() -> None:
    assert differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 -> 3", "d: 'not set' -> 4"]


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    code = "import sys; from engine.configs.load import load_config; load_config('llama32_3b_k5'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "vllm", "ray", "numpy"} & set(modules)


def test_a_model_without_a_file_is_named_after_its_folder() -> None:
    config = load_config(None, {"model.path": "/models/my-llama", "directions.layers": [3]})
    assert (config.variant, config.directions.layers) == ("my-llama", [3])


def test_a_name_wins_over_the_folders() -> None:
    assert load_config(None, {"model.path": "/models/my-llama", "variant": "mine"}).variant == "mine"


def test_a_variant_may_be_a_file_of_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('model.path = "m"\ndirections.layers = [5]\n')
    monkeypatch.chdir(tmp_path)
    assert load_config("mine").directions.layers == [5]


def test_a_shipped_variant_is_not_hidden_by_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2_135m_k1.toml").write_text('model.path = "m"\ndirections.layers = [5]\n')
    monkeypatch.chdir(tmp_path)
    assert load_config("smollm2_135m_k1").directions.layers != [5]
