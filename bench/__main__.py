"""`make bench`: measure everything, print a table, and keep the raw data and a picture."""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import budgets, chains, engine, http, picture, propagation
from bench.stats import Samples

KEPT = 2_000
"""How many samples of each measurement are kept as raw data."""

COLUMNS = ("p50", "p90", "p99", "max")


def main() -> None:
    """Run the benches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/out"), help="where raw data and pictures go")
    parser.add_argument("--rounds", type=int, default=5_000, help="samples of each decision")
    parser.add_argument("--edits", type=int, default=20, help="edits on disk to follow")
    options = parser.parse_args()
    console = Console()
    console.print("the engine alone ...")
    samples = engine.measure(options.rounds)
    growth = engine.measure_growth(options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        console.print("decisions over HTTP, beside a bare echo ...")
        over_http, memory = http.measure(Path(folder) / "http", options.rounds)
        console.print(f"edits reaching {propagation.LINKS} links ...")
        edits = propagation.measure(Path(folder) / "edits", options.edits)
        console.print("chains, delegations, plans and a trace ...")
        handed_down, counted = chains.measure(Path(folder) / "chains", options.rounds)
        console.print(f"budgets: leased spending, and one hot pot of {budgets.WEBHOOKS} webhooks to its end ...")
        spending = budgets.measure(Path(folder) / "budgets", options.rounds)
        counted |= budgets.measure_hot(Path(folder) / "hot")
    everything = {**samples, **growth, **over_http, **edits, **handed_down, **spending}
    ratios = _ratios(growth, over_http) | {
        "p50 decision at depth 5 / at depth 0": round(
            handed_down[chains.AT_5].percentile(50) / handed_down[chains.AT_0].percentile(50), 3
        ),
        "p50 decision under a budget / without one": round(
            spending[budgets.LEASED].percentile(50) / spending[budgets.FREE].percentile(50), 3
        ),
    }
    memory |= counted
    options.out.mkdir(parents=True, exist_ok=True)
    _keep(options.out, everything, ratios, memory)
    picture.draw(everything, options.out)
    _print(console, everything, ratios | memory)
    console.print(f"raw data and pictures: {options.out}")


def _ratios(growth: dict[str, Samples], over_http: dict[str, Samples]) -> dict[str, float]:
    few, *_, many = (sample.percentile(50) for sample in growth.values())
    echo, decision, other_echo, conditional = (sample.percentile(50) for sample in over_http.values())
    return {
        "p50 at 10,000 policies / at 10": round(many / few, 3),
        "p50 decision over HTTP / bare echo": round(decision / echo, 3),
        "p50 decision with CEL over HTTP / bare echo": round(conditional / other_echo, 3),
    }


def _keep(out: Path, samples: dict[str, Samples], ratios: dict[str, float], memory: dict[str, float]) -> None:
    data = {
        "machine": {"python": sys.version.split()[0], "system": platform.platform(), "cpus": os.cpu_count()},
        "ratios": ratios,
        "memory": memory,
        "micros": {name: sample.summary() for name, sample in samples.items()},
        "samples": {name: [round(m, 1) for m in sample.micros[:KEPT]] for name, sample in samples.items()},
    }
    (out / "results.json").write_text(json.dumps(data) + "\n")


def _print(console: Console, samples: dict[str, Samples], figures: dict[str, float]) -> None:
    table = Table("microseconds", "n", *COLUMNS, box=None)
    for sample in samples.values():
        figures_of = sample.summary()
        table.add_row(sample.name, f"{figures_of['n']:,}", *(f"{figures_of[key]:,.1f}" for key in COLUMNS))
    console.print(table)
    figures_table = Table("figure", "value", box=None)
    for name, value in figures.items():
        figures_table.add_row(name, f"{value:,}")
    console.print(figures_table)


if __name__ == "__main__":
    main()
