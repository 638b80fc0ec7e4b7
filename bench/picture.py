"""The distributions, drawn."""

from pathlib import Path

import matplotlib as mpl

from bench.stats import Samples

mpl.use("Agg")  # no display

from matplotlib import pyplot as plt


def draw(samples: dict[str, Samples], out: Path) -> None:
    """Draw each distribution as the share of samples that took at most so long, by kind of measurement."""
    groups = {
        "decisions.png": [name for name in samples if name.startswith(("engine", "bare", "decision"))],
        "edits.png": [name for name in samples if name.startswith("edit")],
        "policies.png": [name for name in samples if name.endswith("policies")],
    }
    for file, names in groups.items():
        figure, axes = plt.subplots(figsize=(9, 5))
        for name in names:
            ordered = sorted(samples[name].micros)
            axes.plot(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], label=name)
        axes.set_xscale("log")
        axes.set_xlabel("microseconds")
        axes.set_ylabel("share of samples that took at most so long")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(loc="lower right", fontsize="small")
        figure.tight_layout()
        figure.savefig(out / file, dpi=120)
        plt.close(figure)
