"""What a bench found, drawn: distributions of times, and curves over time."""

from pathlib import Path

import matplotlib as mpl

from bench.cluster.result import Result

mpl.use("Agg")  # no display

from matplotlib import pyplot as plt


def draw(result: Result, file: Path) -> None:
    """Draw curves where there are some, and else each distribution as the share that took at most so long."""
    figure, axes = plt.subplots(figsize=(9, 5))
    if curves := result.facts.get("curves"):
        for name, points in curves.items():
            axes.plot([x for x, _ in points], [y for _, y in points], label=name)
        axes.set_xlabel("seconds")
        axes.set_ylabel("objects")
    else:
        for sample in result.samples:
            ordered = sorted(micros / 1000 for micros in sample.micros)
            axes.plot(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], label=sample.name)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("share of samples that took at most so long")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
