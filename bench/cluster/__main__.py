"""`make bench-cluster`: measure on a real Kubernetes control plane, print tables, keep raw data and pictures."""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cluster import admission, change, kill, picture, scale
from bench.cluster.result import Result

BENCHES = ("scale", "kill", "admission", "change")


def main() -> None:
    """Run the benches that were named, or all."""
    options = _options()
    console = Console()
    options.out.mkdir(parents=True, exist_ok=True)
    machine = {"python": sys.version.split()[0], "system": platform.platform(), "cpus": os.cpu_count()}
    for name in options.benches or BENCHES:
        console.rule(name)
        result = _run(name, options, console)
        (options.out / f"cluster-{name}.json").write_text(json.dumps(result.data(machine)) + "\n")
        picture.draw(result, options.out / f"cluster-{name}.png")
        _print(console, result)
    console.print(f"raw data and pictures: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"{', '.join(BENCHES)}; left out: all of them")
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="where raw data and pictures go")
    parser.add_argument("--agents", type=int, default=5_000, help="Agents to apply (scale)")
    parser.add_argument("--policies", type=int, default=1_000, help="policies to apply (scale) or to have (change)")
    parser.add_argument("--sidecars", type=int, default=100, help="connected sidecars (kill)")
    parser.add_argument("--streams", type=int, default=1_000, help="connected streams (change)")
    parser.add_argument(
        "--rounds", type=int, default=40, help="stops of each kind, blocks of pods, changes of a policy"
    )
    options = parser.parse_args()
    if unknown := set(options.benches) - set(BENCHES):
        parser.error(f"found {', '.join(sorted(unknown))}, allowed {', '.join(BENCHES)}")
    return options


def _run(name: str, options: argparse.Namespace, console: Console) -> Result:
    match name:
        case "scale":
            return scale.measure(options.agents, options.policies, console.print)
        case "kill":
            return kill.measure(options.sidecars, options.rounds, console.print)
        case "admission":
            return admission.measure(options.rounds, console.print)
        case _:
            return change.measure(options.streams, options.policies, options.rounds, console.print)


def _print(console: Console, result: Result) -> None:
    figures = Table("figure", "value", "goal", "value / goal", box=None)
    for figure in result.figures:
        goal = "" if figure.goal is None else f"{figure.goal:,g} {figure.unit}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        figures.add_row(figure.name, f"{figure.value:,.2f} {figure.unit}", goal, ratio)
    console.print(figures)
    if result.samples:
        columns = ("p50", "p90", "p99", "max")
        samples = Table("milliseconds", "n", *columns, box=None)
        for sample in result.samples:
            summary = sample.summary()
            samples.add_row(sample.name, f"{summary['n']:,}", *(f"{summary[key] / 1000:,.1f}" for key in columns))
        console.print(samples)


if __name__ == "__main__":
    main()
