"""``waypost monitoring``: alert rules and dashboards, made from the table of metrics."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("monitoring", epilog="Example: waypost monitoring --out monitoring")
@click.option(
    "--out",
    "out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; existing ones are replaced.",
)
def command(out: Path) -> None:
    """Write alert rules and dashboards for Prometheus and Grafana.

    rules.yaml are rules of Prometheus (rule_files), prometheusrule.yaml the same for its operator
    on Kubernetes, dashboards/*.json dashboards for Grafana's import or provisioning.
    """
    from waypost.telemetry.files import files

    for name, text in files().items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(path)
