"""bin/serve: an OpenAI-compatible endpoint for a variant, or for several beside the base."""

import os
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/serve --variant smollm2_135m_k1",
    "bin/serve --variant smollm2_135m_k1 --variant smollm2_135m_k3 --with-base",
    "bin/serve --variant smollm2_135m_k1 --steerable   # each request says how much of it: alpha",
    "bin/serve --variant smollm2_135m_k1 -- --max-model-len 2048",
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def serve(
    context: typer.Context,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", metavar="NAME", help="A variant; again for several at once.")
    ] = None,
    with_base: Annotated[bool, typer.Option("--with-base", help="The base beside them, as 'base'.")] = False,
    swappable: Annotated[
        bool,
        typer.Option("--swappable", help="One engine that changes its variant on an admin route, under the name 'swappable'."),
    ] = False,
    steerable: Annotated[
        bool,
        typer.Option("--steerable", help='One engine whose requests each name a variant and strength: {"variant", "alpha"}.'),
    ] = False,
    host: Annotated[str, typer.Option(help="Address; another than this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    api_key_fd: Annotated[
        int | None,
        typer.Option(help="Read the key for clients from this descriptor, 0 is stdin; or set VLLM_API_KEY."),
    ] = None,
    api_key: Annotated[str | None, typer.Option(hidden=True)] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make a key and print it once.")] = False,
    allow_changed_weights: Annotated[
        bool, typer.Option("--allow-changed-weights", help="Serve a cached folder whose weights are not what its card says.")
    ] = False,
    layers: cli.LayersOption = None,
    alpha: cli.AlphaOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    dry_run: cli.DryRunOption = False,
) -> None:
    """Make what is missing, then become `vllm serve`: chat, completions, streaming, logprobs, /v1/models.

    One variant is served as its folded checkpoint. Several, or one with --with-base, share one copy of the base with an adapter
    each. What follows -- is passed on to vLLM: bin/serve --variant NAME -- --max-model-len 2048
    """
    environment = dict(os.environ)
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config
        from engine.errors import EngineError

        if api_key is not None:
            raise EngineError("A key on the command line is shown by ps to every user. Set VLLM_API_KEY, or give --api-key-fd 0.")
        overrides = cli.variant_overrides(
            settings, layers, alpha, model, pairs, columns=columns, template=template, system=system
        )
        configs = [load_config(each, overrides) for each in cli.named(variant)]
        from engine.serving import checks

        api_key = None if api_key_fd is None else checks.read_key(api_key_fd)
        extra = tuple(context.args)
        options = checks.ServeOptions(host, port, api_key, new_key, with_base, swappable, steerable, allow_changed_weights, extra)
        checks.check_extra(options)
        from engine.rollout.variants import open_sessions

        sessions = open_sessions(configs)
        if dry_run:
            cli.show_dry_run(configs[0], {"vllm": list(context.args)}, others=configs)
            return
        key = checks.check_address(options)
        checks.check_settings(sessions[0], options)
        checks.check_machine(sessions[0], options)
        from engine.serving import launch as serving

        way = serving.prepare_swappable if swappable else serving.prepare_steerable if steerable else serving.prepare
        made = way(sessions, options, key)
        for line in serving.describe_models(made):
            typer.echo(f"serve: {line}", err=True)
        for line in serving.admin_lines(made):
            typer.echo(f"serve: {line}", err=True)
        if key and not checks.given_key(options):
            typer.echo(f"serve: the key, shown this once: {key}", err=True)
        serving.become(made, environment)


if __name__ == "__main__":
    app(prog_name="bin/serve")
