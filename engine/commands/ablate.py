"""bin/ablate: the edit at run time over alpha, by hooks or in the engine; and the direction added."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli
from engine.errors import EngineError

app = cli.Application(
    "bin/ablate --variant smollm2_135m_k1 --alphas 0.5,1",
    "bin/ablate --variant smollm2_135m_k1 --by engine   # in vLLM instead of by hooks",
    "bin/ablate --variant smollm2_135m_k1 --by engine --site both --draws 5   # a band of random directions",
)


@app.command()
def ablate(
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: cli.LayersOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    alphas: Annotated[str, typer.Option(help="Shares of the projection removed.")] = "0.25,0.5,0.75,1,1.5,2",
    site: Annotated[
        str, typer.Option(help="inputs (of every block, as the study), writes (of attention and MLP), or both.")
    ] = "inputs",
    add: Annotated[
        str, typer.Option(help="Multiples of the mean difference added at the first layer; none for none.")
    ] = "0.5,1,2",
    num_prompts: Annotated[int, typer.Option(min=2, help="Test requests of each kind.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="New tokens per response.")] = 32,
    controls: Annotated[bool, typer.Option(help="A random and a shuffled-label direction beside.")] = True,
    draws: Annotated[int, typer.Option(min=1, help="Random directions; several are drawn as a band.")] = 1,
    by: Annotated[str, typer.Option("--by", help="hooks on transformers, or the engine: all settings as one batch.")] = "hooks",
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="runs/NAME", help="Run directory.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Generate with r - alpha <r, v> v applied while the model runs, for each alpha; graded by the rules.

    Writes ablation.json into the run directory.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config
        from engine.paths import default_run_dir

        config = load_config(
            variant,
            cli.variant_overrides(
                settings,
                layers,
                None,
                model,
                pairs,
                columns=columns,
                template=template,
                system=system,
                name=name,
                judge=judge,
            ),
        )
        sites = {"inputs": ("inputs",), "writes": ("writes",), "both": ("inputs", "writes")}
        if site not in sites:
            raise EngineError(f"--site takes inputs, writes or both; found '{site}'.")
        options = {
            "alphas": cli.numbers(alphas, "--alphas"),
            "sites": sites[site],
            "added": () if add == "none" else cli.numbers(add, "--add"),
            "num_prompts": num_prompts,
            "max_tokens": max_tokens,
            "controls": controls,
            "by": by,
            "draws": draws,
        }
        if by not in ("hooks", "engine"):
            raise EngineError(f"--by takes hooks or engine; found '{by}'.")
        if dry_run:
            cli.show_dry_run(config, {"ablation": options})
            return
        from engine.display.console import show
        from engine.display.study_tables import ablation_view
        from engine.study.jobs import ablate as work

        found = work(config, out or default_run_dir(config.variant), **options)
        show(ablation_view(found), form, found)


if __name__ == "__main__":
    app(prog_name="bin/ablate")
