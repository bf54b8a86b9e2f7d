#!/usr/bin/env python3
"""Trains a linear probe for a name on each layer's residual stream at the read position, and draws how often it is right.

    python experiments/probe/probe.py OUT.h5 [OUT.h5 …] -o probe.png

In: outputs of h5lens with the activations of probe.yaml (experiments/smollm2-ioi's have them, too) and the CSV's columns
indirect_object, subject and pair. A panel a file: the share of held-out prompts whose name has the largest score.
"""

import argparse
from pathlib import Path

import h5lens
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

FOLDS, PENALTY = 5, 100.0
WHAT = {"indirect_object": ("the indirect object, the answer", "#0072B2", "o-"), "subject": ("the subject", "#D55E00", "s--")}


def accuracy(x: np.ndarray, names: np.ndarray, pair: np.ndarray) -> float:
    """Of ridge regression to one-hot names, on the prompts held out: each once, with the others of its pair."""
    label = np.unique(names.astype(str), return_inverse=True)[1]
    target = np.eye(label.max() + 1)[label]
    hits = np.zeros(len(x), bool)
    for fold in range(FOLDS):
        test = pair % FOLDS == fold
        mean, scale = x[~test].mean(0), x[~test].std(0) + 1e-6
        z = np.c_[(x - mean) / scale, np.ones(len(x))]
        a = z[~test]
        w = np.linalg.solve(a.T @ a + PENALTY * np.eye(z.shape[1]), a.T @ target[~test])
        hits[test] = (z[test] @ w).argmax(1) == label[test]
    return float(hits.mean())


def probe(run: h5lens.Run) -> tuple[list[str], dict[str, list[float]]]:
    """Layers' labels as the logit lens has them, and the accuracy of each column's probe."""
    n, pair = run.model_config["n_layers"], run.columns["pair"]
    hooks = {"0_pre": ("resid_pre", 0)} | {f"{i}_pre": ("resid_post", i - 1) for i in range(1, n)}
    hooks["final_post"] = ("resid_post", n - 1)
    stored = {label: run.cache(*hook, pos="read", dtype=np.float64) for label, hook in hooks.items()
              if h5lens.act_name(*hook) in run.hooks}
    return list(stored), {what: [accuracy(x, run.columns[what], pair) for x in stored.values()] for what in WHAT}


def draw(ax: plt.Axes, run: h5lens.Run) -> None:
    layers, found = probe(run)
    chance = 1 / len(set(run.columns["indirect_object"]))
    for what, values in found.items():
        text, colour, line = WHAT[what]
        half = 1.96 * np.sqrt(np.multiply(values, 1 - np.array(values)) / len(run))
        ax.errorbar(range(len(layers)), values, half, fmt=line, ms=4, lw=1.5, capsize=2, color=colour, label=text)
        print(f"{run.path.name}: {what}: " + ", ".join(f"{k} {v:.3f}" for k, v in zip(layers, values)))
    first = float((run.results["answer_rank"][:, 0] == 0).mean())
    ax.axhline(first, color="#009E73", lw=1, ls="-.")
    ax.annotate(f"the model's own first token: {100 * first:.0f} %", (0, first), (2, -4), textcoords="offset points", va="top",
                fontsize=8.5, color="#00795a")
    ax.axhline(chance, color="#777777", lw=1, ls=":", label="by chance")
    step = -(-len(layers) // 16)
    shown = range(len(layers))[::-1][::step][::-1]
    ax.set_xticks(shown, [layers[i] for i in shown], rotation=45, ha="right", rotation_mode="anchor")
    ax.set(ylim=(0, 1.03), xlabel="residual stream at the read position")
    ax.set_title(f"{Path(run.experiment['model']).name}: {len(run):,} prompts, {round(1 / chance)} names", loc="left", fontsize=11)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", type=Path, metavar="OUT.h5")
    p.add_argument("-o", dest="out", type=Path, default=Path("probe.png"))
    args = p.parse_args()
    fig, axes = plt.subplots(1, len(args.files), figsize=(5.2 * len(args.files) + 0.6, 4.4), sharey=True, squeeze=False,
                             layout="constrained")
    for ax, path in zip(axes[0], args.files):
        with h5lens.open_run(path) as run:
            draw(ax, run)
    axes[0][0].set_ylabel("accuracy on held-out prompts")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    fig.suptitle("A linear probe for names, layer by layer", x=0.01, ha="left", fontweight="bold")
    fig.savefig(args.out, dpi=150)
    print(args.out)


if __name__ == "__main__":
    main()
