"""bin/edit: a variant as a checkpoint or an adapter, the plan of an edit, and what a checkpoint made elsewhere changed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/edit --variant smollm2_135m_k1 --out edited",
    "bin/edit --variant smollm2_135m_k1 --out adapter --adapter",
    "bin/edit --verify edited --base DIR",
)

SHOWN = 20  # names of one kind; a table of thousands says no more
OF_CHECKPOINTS = ("merge", "verify", "base")
OF_VARIANTS = ("variant", "layers", "alpha", "model", "pairs", "columns", "settings")
OF_EDITS = ("layers_edited", "embeddings", "biases", "untie", "keep_norms")
OF_WRITING = ("run", "directions", "allow_other_base", "adapter")
UNREAD = {
    "--verify": (*OF_VARIANTS, *OF_EDITS, *OF_WRITING, "plan", "out", "merge", "dry_run"),
    "--merge": (*OF_VARIANTS, *OF_EDITS, *OF_WRITING, "plan", "dry_run"),
    "--plan": (*OF_WRITING, *OF_CHECKPOINTS, "out"),
    "Writing a variant": OF_CHECKPOINTS,
}
"""The options that each of the command's jobs has no use for: giving one is an error, not a wish that goes unheard."""


@app.command()
def edit(
    context: typer.Context,
    variant: Annotated[str | None, typer.Option("--variant", metavar="NAME", help="A name in configs/, or a TOML file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; it must not exist yet.")] = None,
    layers: cli.LayersOption = None,
    alpha: cli.AlphaOption = None,
    layers_edited: Annotated[str | None, typer.Option(help="Blocks whose writers are edited, such as 4-20,25.")] = None,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Edit the embeddings too.")] = False,
    biases: Annotated[bool, typer.Option("--biases", help="Edit the output biases too.")] = False,
    untie: Annotated[bool, typer.Option("--untie", help="With tied embeddings, keep the head as a tensor of its own.")] = False,
    keep_norms: Annotated[bool, typer.Option("--keep-norms", help="Give each edited vector its old length back.")] = False,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    run: Annotated[Path | None, typer.Option(help="Run directory with the directions; the default is runs/NAME.")] = None,
    directions: Annotated[Path | None, typer.Option(help="A directions file instead of the run's.")] = None,
    allow_other_base: Annotated[bool, typer.Option("--allow-other-base", help="Take directions of another base.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print every writer, edited or left, and stop.")] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="Write the same edit as a PEFT LoRA.")] = False,
    merge: Annotated[Path | None, typer.Option(help="Fold this adapter into --base, into --out.")] = None,
    verify: Annotated[Path | None, typer.Option(help="Compare this checkpoint with --base.")] = None,
    base: Annotated[Path | None, typer.Option(help="The base checkpoint, for --verify and --merge.")] = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Write an edited checkpoint: W - alpha Q (Q^T W) on every o_proj and down_proj, all else byte-identical.

    The directions come from the variant's run directory, where they are extracted if they are not there yet.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        job = "--verify" if verify else "--merge" if merge else "--plan" if plan else "Writing a variant"
        cli.refuse_unread(context, job, UNREAD[job])
        if verify or merge:
            _existing(verify, merge, base, out, as_json)
            return
        from engine.configs.load import load_config
        from engine.errors import EngineError

        if variant is None and model is None:
            raise EngineError("Name a variant with --variant, a model with --model, or a folder with --verify DIR --base DIR.")
        flags: dict[str, Any] = {
            "edit__embeddings": embeddings or None,
            "edit__biases": biases or None,
            "edit__untie": untie or None,
        }
        flags |= {"edit__keep_norms": keep_norms or None, "edit__layers": layers_edited}
        config = load_config(
            variant,
            cli.variant_overrides(
                settings, layers, alpha, model, pairs, columns=columns, template=template, system=system, **flags
            ),
        )
        if dry_run:
            cli.show_dry_run(config)
        elif plan:
            _print_plan(config, as_json)
        elif out is None:
            raise EngineError("Name the folder to write with --out DIR.")
        else:
            _write(config, out, run, directions, allow_other_base, adapter, as_json)


def _print_plan(config: Any, as_json: bool) -> None:
    from engine.checkpoints.export import plan_lines
    from engine.runs.session import Session

    plan = Session(config).plan
    if as_json:
        cli.print_json(
            {"scope": plan.scope.label, "edits_head": plan.edits_head, "writers": [vars(item) for item in plan.writers]}
        )
    else:
        print("\n".join(plan_lines(plan)))


def _write(
    config: Any, out: Path, run: Path | None, directions: Path | None, allow_other_base: bool, adapter: bool, as_json: bool
) -> None:
    from engine.paths import default_run_dir
    from engine.runs.of_config import check_has_directions, given_layers
    from engine.runs.session import Session

    check_has_directions(config, "bin/edit")
    given_layers(config)
    Session(config).layers()  # what is wrong with prompts or model is said before torch is imported
    from engine.checkpoints.export import write_variant

    run_path = run or default_run_dir(config.variant)
    record = write_variant(config, run_path, out, directions=directions, allow_other_base=allow_other_base, as_adapter=adapter)
    if as_json:
        cli.print_json(record)
        return
    done = f"{out}: {len(record['tensors'])} tensors edited, variant {record['variant_hash']}"
    print(f"{done}; its README.md says what was removed")
    if "divergence" in record:
        print(f"adapter and folded weights: KL {record['divergence']['kl_mean']:.1e} nats a next token (mean)")


def _existing(verify: Path | None, merge: Path | None, base: Path | None, out: Path | None, as_json: bool) -> None:
    from engine.errors import EngineError

    if base is None:
        raise EngineError("Name the base checkpoint with --base DIR.")
    if merge is not None and out is None:
        raise EngineError("Name the folder to write with --out DIR.")
    cli.check_checkpoints(verify, base)
    from engine.checkpoints.merge import merge_adapter
    from engine.checkpoints.verify import verify_checkpoint

    if merge is not None and out is not None:
        record = merge_adapter(merge, base, out)
        if as_json:
            cli.print_json(record)
        else:
            print(f"{out}: merged; at most {record['worst_residual']:.2%} of what was written along the directions is left")
        return
    assert verify is not None
    report = verify_checkpoint(verify, base)
    if as_json:
        cli.print_json(report)
    else:
        _print_report(report)
    if not report["ok"]:
        raise typer.Exit(1)


def _print_report(report: dict[str, Any]) -> None:
    print(f"{len(report['differing'])} tensors differ from the base")
    if report["converted"]:
        print(f"{len(report['converted'])} tensors are the base's, stored in another type")
    for kind in ("unexpected", "padded", "missing", "added", "failed"):
        _print_some(f"{kind}: ", report[kind])
    _print_some("cannot be compared: ", [f"{name}: {forms}" for name, forms in report["odd"].items()])
    for proof in report["proofs"]:
        print(f"  {proof['tensor']}: {proof['residual']:.2e} left (expected {proof['expected']:g}, within {proof['bound']:.1e})")
    if not report["proofs"]:
        print("\n".join(f"  {name}" for name in report["differing"]))
    print(report.get("note") or ("verified" if report["ok"] else "NOT what its record says"))


def _print_some(kind: str, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"  {kind}{line}")
    if len(lines) > SHOWN:
        print(f"  {kind}{len(lines) - SHOWN} more; --json has all")


if __name__ == "__main__":
    app(prog_name="bin/edit")
