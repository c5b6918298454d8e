"""bin/edit, bin/audit and the adapter forms as a user runs them, on SmolLM2-135M-Instruct."""

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.commands import ran

FEW = ["--set", "data.num_pairs=8"]


def command(cwd: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ran(module, *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path) -> Path:
    """A folder with the three-direction variant as a checkpoint and as an adapter."""
    folder = tmp_path_factory.mktemp("edit")
    for extra in (["--out", "k3"], ["--out", "adapter", "--adapter"]):
        done = command(folder, "edit", "--variant", "smollm2_135m_k3", *FEW, *extra)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
    return folder


def test_a_written_checkpoint_verifies_and_a_tampered_one_does_not(work: Path, smollm2_dir: Path, tmp_path: Path) -> None:
    done = command(work, "edit", "--verify", "k3", "--base", str(smollm2_dir), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"] and len(report["differing"]) == len(report["proofs"]) == 60
    assert max(proof["residual"] for proof in report["proofs"]) < 0.005
    tampered = tmp_path / "tampered"
    subprocess.run(["cp", "-r", str(work / "k3"), str(tampered)], check=True)
    data = bytearray((tampered / "model.safetensors").read_bytes())
    data[-1] ^= 1  # the last tensor is a norm's
    (tampered / "model.safetensors").write_bytes(data)
    done = command(work, "edit", "--verify", str(tampered), "--base", str(smollm2_dir), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report["ok"] and len(report["unexpected"]) == 1


@pytest.mark.slow
def test_a_checkpoint_made_elsewhere_is_verified_along_what_the_difference_shows(
    work: Path, smollm2_dir: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("config.json", "model.safetensors"):
        (elsewhere / name).symlink_to(work / "k3" / name)
    done = command(work, "edit", "--verify", str(elsewhere), "--base", str(smollm2_dir), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and len(report["differing"]) == len(report["proofs"]) == 60
    assert "3 direction(s) recovered from the difference" in report["note"]
    assert max(proof["residual"] for proof in report["proofs"]) < 0.01


@pytest.mark.slow
def test_the_audit_counts_and_recovers_what_was_removed(work: Path, smollm2_dir: Path) -> None:
    report = json.loads(command(work, "audit", "k3", "--out", "found.safetensors", "--json").stdout)
    assert (report["verdict"], report["count"]) == ("erased directions", 3)
    found, removed = (
        load_file(work / "found.safetensors")["basis"],
        load_file(work / "k3" / "edit" / "basis.safetensors")["basis"],
    )
    overlap = (removed.T @ found).square().sum() / 3
    print(f"recovered subspace: {overlap:.6f} of the removed one; {report['evidence'][0]}")
    assert overlap > 0.999
    assert json.loads(command(work, "audit", str(smollm2_dir), "--json").stdout)["verdict"] == "none found"


def test_the_adapter_says_how_far_it_is_from_the_folded_weights_and_merges_to_them(work: Path, smollm2_dir: Path) -> None:
    divergence = json.loads((work / "adapter" / "edit_report.json").read_text())
    print(divergence)
    assert 0 <= divergence["kl_mean"] < 0.01
    done = command(work, "edit", "--merge", "adapter", "--base", str(smollm2_dir), "--out", "merged")
    assert done.returncode == 0, done.stderr
    merged, folded = load_file(work / "merged" / "model.safetensors"), load_file(work / "k3" / "model.safetensors")
    worst = max(float((merged[name].float() - folded[name].float()).norm() / folded[name].float().norm()) for name in folded)
    print(f"largest relative distance of a merged tensor to the folded one: {worst:.1e}")
    assert worst < 3e-3


def test_the_plan_names_every_writer_without_extracting(tmp_path: Path) -> None:
    done = command(
        tmp_path, "edit", "--variant", "smollm2_135m_k1", "--plan", "--embeddings", "--layers-edited", "4-20,25", "--json"
    )
    plan = json.loads(done.stdout)
    edited = [writer for writer in plan["writers"] if not writer["reason"]]
    assert len(plan["writers"]) == 61 and len(edited) == 1 + 2 * 18 and plan["edits_head"]
    assert list(tmp_path.iterdir()) == []


def test_alphas_by_layer_reach_the_plan(tmp_path: Path) -> None:
    done = command(tmp_path, "edit", "--variant", "smollm2_135m_k1", "--plan", "--alpha", "3-4:0.5,7:0.25", "--json")
    alphas = {writer["layer"]: writer["alpha"] for writer in json.loads(done.stdout)["writers"] if writer["alpha"] is not None}
    assert alphas == {3: 0.5, 4: 0.5, 7: 0.25}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "smollm2_135m_k1"], "Name the folder to write with --out DIR"),
        (["--out", "x"], "Name a variant with --variant"),
        (["--verify", "k3", "--alpha", "0.5"], "--verify does not read --alpha. Leave it out."),
        (["--merge", "k3", "--plan"], "--merge does not read --plan"),
        (["--variant", "smollm2_135m_k1", "--plan", "--out", "x"], "--plan does not read --out"),
        (["--variant", "smollm2_135m_k1", "--out", "x", "--base", "y"], "Writing a variant does not read --base"),
        (["--verify", "k3"], "Name the base checkpoint with --base DIR"),
        (["--variant", "smollm2_135m_k1", "--out", "x", "--layers-edited", "28-31"], "Block 30 cannot be edited"),
        (["--variant", "smollm2_135m_k1", "--out", "x", "--layers-edited", "28-"], "expected numbers such as 16,15,17 or 4-20"),
        (["--variant", "smollm2_135m_k1", "--out", "x", "--alpha", "3-4:x"], "expected a number"),
        (["--variant", "smollm2_135m_k1", "--out", "x", "--untie"], "--untie has nothing to do"),
        (["--variant", "smollm2_135m_k1", "--out", "x", "--directions", "none.safetensors"], "not a readable direction file"),
    ],
)
@pytest.mark.usefixtures("smollm2_dir")
def test_bad_arguments_exit_2_and_leave_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = command(tmp_path, "edit", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_directions_of_another_base_are_refused_unless_allowed(work: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = work / "runs" / "smollm2_135m_k3" / "directions.safetensors"
    with safe_open(source, "pt") as file:
        metadata = file.metadata() | {"base_hash": "f" * 64}
    save_file(load_file(source), tmp_path / "other.safetensors", metadata)
    arguments = ["--variant", "smollm2_135m_k3", *FEW, "--directions", "other.safetensors", "--out", "x"]
    done = command(tmp_path, "edit", *arguments)
    assert done.returncode == 2 and "extracted from another base (ffffffffffffffff)" in done.stderr
    assert not (tmp_path / "x").exists()
    assert command(tmp_path, "edit", *arguments, "--allow-other-base").returncode == 0
