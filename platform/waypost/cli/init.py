"""``waypost init``: write the files of a pool of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.cli.output import echo_table

if TYPE_CHECKING:
    from waypost.pipelines.data.config import LLMConfig
    from waypost.start.files import More
    from waypost.start.pool import Member, Tried


@click.command(
    "init",
    epilog="Example: waypost init --llm openai/gpt-4.1-mini --llm openai/gpt-4.1 "
    "--endpoint http://127.0.0.1:8001/v1 - local-llm",
)
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option(
    "--llm",
    "llms",
    multiple=True,
    metavar="PROVIDER/MODEL",
    help="LLM of a known provider, such as openai/gpt-4.1-mini; repeat for several.",
)
@click.option(
    "--endpoint",
    "endpoints",
    nargs=3,
    multiple=True,
    metavar="URL SERVICE MODEL[,MODEL...]",
    help="LLMs of any endpoint that speaks OpenAI's API, the service of its key (- needs none) "
    "and its models; repeat for several.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="NAME=IN,OUT",
    help="USD per million prompt and generated tokens of an LLM that the price library does not "
    "know; repeat for several.",
)
@click.option(
    "--from-litellm",
    "litellm",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Take the LLMs from the model_list of a config of LiteLLM's proxy.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--no-try", is_flag=True, help="Do not call the endpoints.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def command(
    folder: Path,
    llms: tuple[str, ...],
    endpoints: tuple[tuple[str, str, str], ...],
    prices: tuple[str, ...],
    litellm: Path | None,
    port: int,
    no_try: bool,
    force: bool,
) -> None:
    """Write the files of a pool of your own.

    FOLDER gets serve.yaml, data.yaml and .env.example. Asks for LLMs where no option names one.
    Looks up prices, sizes and context lengths, and asks each LLM one short question with the keys
    of API_KEYS. No key is written anywhere.
    """
    from waypost.start import files, pool

    files.check_free(folder, force)
    more = files.NOTHING_MORE
    if litellm is None:
        wanted = pool.named(_wanted(llms, endpoints))
    elif llms or endpoints:
        raise click.UsageError("give --from-litellm, or --llm and --endpoint")
    else:
        wanted, more = _converted(litellm)
    given = dict(map(_price, prices))
    members = pool.look_up(wanted, given)
    if not (llms or endpoints or litellm):
        members = pool.look_up(wanted, given | _asked_prices(members))
    pool.check_priced(members)
    texts = files.texts(members, port, more)
    tried = {} if no_try else pool.try_all(wanted)
    files.write(folder, texts)
    _show(members, tried)
    for note in more.notes:
        click.echo(f"not taken over: {note}", err=True)
    _next(folder, members, bool(more.args.get("api_keys")), list(texts))


def _converted(path: Path) -> tuple[dict[str, LLMConfig], More]:
    from waypost.start.litellm import read_litellm

    return read_litellm(path)


def _wanted(llms: Sequence[str], endpoints: Sequence[tuple[str, str, str]]) -> list[LLMConfig]:
    from waypost.config import collecting
    from waypost.contracts.errors import ConfigError, Fault
    from waypost.start import pool

    if not llms and not endpoints:
        return _asked()
    found: list[Fault] = []
    wanted: list[LLMConfig] = []
    for text in llms:
        one = collecting(found, text, lambda text=text: pool.from_provider(text))  # type: ignore[misc]
        wanted += [] if one is None else [one]
    for url, service, models in endpoints:
        several = collecting(
            found,
            url,
            lambda url=url, service=service, models=models: pool.from_endpoint(  # type: ignore[misc]
                url, service, _models(models)
            ),
        )
        wanted += several or []
    if found:
        raise ConfigError(found)
    return wanted


def _asked() -> list[LLMConfig]:
    """Ask for endpoints at the terminal until none follows."""
    from waypost.contracts.errors import ConfigError
    from waypost.start import pool
    from waypost.start.providers import PROVIDERS, provider_named, service_of

    click.echo(f"Known providers: {', '.join(PROVIDERS)}. Others by their base URL.")
    wanted: list[LLMConfig] = []
    while True:
        more = "" if not wanted else " (empty: no more)"
        where = click.prompt(f"Provider or base URL{more}", default="", show_default=False).strip()
        if not where and wanted:
            return wanted
        if not where:
            continue
        try:
            if "://" not in where:
                provider_named(where, "provider")
                models = _models(click.prompt("Models, separated by commas"))
                wanted += [pool.from_provider(f"{where}/{model}") for model in models]
                continue
            default = service_of(where) or pool.NO_KEY
            service = click.prompt("Service of its key in API_KEYS (- for no key)", default=default)
            models = _models(click.prompt("Models, separated by commas"))
            wanted += pool.from_endpoint(where, service, models)
        except ConfigError as error:
            click.echo("; ".join(fault.problem for fault in error.faults), err=True)


def _asked_prices(members: Mapping[str, Member]) -> dict[str, tuple[float, float]]:
    """Ask for the prices that the library should know and does not."""
    found: dict[str, tuple[float, float]] = {}
    for name, member in members.items():
        if member.unpriced is not None:
            click.echo(f"{name}: {member.unpriced}", err=True)
            text = click.prompt(f"USD per million prompt and generated tokens of {name}: IN,OUT")
            found |= dict([_price(f"{name}={text}")])
    return found


def _models(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _price(text: str) -> tuple[str, tuple[float, float]]:
    name, _, amounts = text.rpartition("=")
    try:
        first, second = (float(one) for one in amounts.split(","))
    except ValueError:
        first = second = -1.0
    if not name or not (0 <= first < float("inf") and 0 <= second < float("inf")):
        raise click.UsageError(f"--price {text}: expected NAME=IN,OUT, such as local-llm=0.1,0.4")
    return name, (first, second)


def _show(members: Mapping[str, Member], tried: Mapping[str, Tried]) -> None:
    rows: list[tuple[Any, ...]] = []
    for name, member in members.items():
        llm = member.llm
        prices = "unknown"
        if member.prices is not None:
            prices = f"{member.prices[0]:g} / {member.prices[1]:g}"
        one = tried.get(name)
        answers = "not tried"
        if one is not None:
            answers = f"yes, {one.seconds:.2f} s" if one.problem is None else "no"
        context = "" if llm.context_length is None else f"{llm.context_length:,}"
        rows.append((name, llm.size or "", context, prices, answers))
    echo_table(("LLM", "size", "context", "USD per million tokens", "answers"), rows)
    for name, one in tried.items():
        if one.problem is not None:
            click.echo(f"{name} did not answer: {one.problem}", err=True)


def _next(
    folder: Path, members: Mapping[str, Member], clients: bool, written: Sequence[str]
) -> None:
    from waypost.start import files

    click.echo(f"wrote {', '.join(str(folder / name) for name in written)}")
    if files.services_of(members) or clients:
        click.echo(f"keys:  cp {folder / files.KEYS_FILE} {folder / '.env'}, write them in, then")
        keys = folder / ".env"
        click.echo(f"       set -a; . {keys if keys.is_absolute() else f'./{keys}'}; set +a")
    click.echo(f"check: waypost doctor {folder / files.SERVE_FILE}")
    click.echo(f"serve: waypost serve --local {folder / files.SERVE_FILE}")
