#!/usr/bin/env python3
"""How a one-layer model adds modulo p: which frequencies its heads and neurons use, as numbers and as a picture.

    PYTHONPATH=scripts python experiments/modular-addition/fourier.py OUT.h5 -o fourier.png

In: the output of experiment.yaml beside it: the attention of '=' and the neurons behind it, for every pair (a, b). A wave of
frequency k is a function of a and b made of cos(2πk a/p), sin(2πk a/p), the same of b, and their products: what
cos(2πk (a + b)/p) is made of (Nanda et al. 2023).
"""

import argparse
from pathlib import Path

import h5lens
import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def over_pairs(run: h5lens.Run, values: np.ndarray) -> np.ndarray:
    """[prompt, …] → [a, b, …], whatever order the rows have."""
    a, b = run.columns["a"], run.columns["b"]
    out = np.full((a.max() + 1, b.max() + 1, *values.shape[1:]), np.nan)
    out[a, b] = values
    return out


def shares(x: np.ndarray) -> np.ndarray:
    """x [a, b, neuron] → [frequency 1 … (p − 1)/2, neuron]: the share of each one's variance over all pairs."""
    p = len(x)
    power = np.abs(np.fft.fft2(x, axes=(0, 1))) ** 2
    power[0, 0] = 0
    waves = [[(i, j) for i in (0, k, p - k) for j in (0, k, p - k) if i or j] for k in range(1, (p + 1) // 2)]
    return np.array([sum(power[i, j] for i, j in of_k) for of_k in waves]) / np.maximum(power.sum((0, 1)), 1e-30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="OUT.h5")
    parser.add_argument("-o", dest="out", type=Path, default=Path("fourier.png"))
    args = parser.parse_args()
    with h5lens.open_run(args.file) as run:
        pattern = over_pairs(run, run.cache("pattern", 0, pos="read"))  # [a, b, head, key]
        neurons = over_pairs(run, run.cache("post", 0, "mlp", pos="read"))  # [a, b, neuron]
        right = float((run.results["answer_rank"][:, 0] == 0).mean())
    p, share = len(neurons), shares(neurons)
    best = share.argmax(0)
    used = sorted(set(best[neurons.std((0, 1)) > 0]))
    fig = plt.figure(figsize=(13.5, 4.6), layout="constrained")
    n_heads = pattern.shape[2]
    grid = fig.add_gridspec(n_heads, 3)
    middle, last = fig.add_subplot(grid[:, 1]), fig.add_subplot(grid[:, 2])
    for head in range(n_heads):
        ax = fig.add_subplot(grid[head, 0])
        to_a = pattern[:, :, head, 0].mean(1)
        wave = np.abs(np.fft.rfft(to_a - to_a.mean())) ** 2
        k = int(wave.argmax())
        print(f"head 0.{head}: attention to a, mean over b: {100 * wave[k] / wave.sum():.0f} % of it is frequency {k}")
        ax.plot(to_a, ".-", ms=4, lw=1, color="#0072B2")
        ax.set(ylim=(0, 1), ylabel=f"0.{head}: {k}")
        ax.tick_params(labelbottom=head == n_heads - 1)
        if not head:
            ax.set_title("Attention of '=' to a, mean over b; head: frequency", loc="left", fontsize=11)
    ax.set_xlabel("a")
    of = int(share.max(0).argmax())
    shown = middle.imshow(neurons[:, :, of].T, origin="lower", cmap="viridis")
    middle.set(xlabel="a", ylabel="b")
    middle.set_title(f"Neuron {of}: frequency {best[of] + 1}", loc="left", fontsize=11)
    fig.colorbar(shown, ax=middle, label="mlp.hook_post at '='")
    last.bar(np.arange(len(share)) + 1, [100 * np.mean(best == k) for k in range(len(share))], color="#0072B2")
    last.set(xlabel="frequency k", ylabel="neurons of which it is the largest  [%]")
    last.set_title(f"{len(used)} of {len(share)} frequencies", loc="left", fontsize=11)
    for k in used:
        here = best == k
        print(f"frequency {k + 1}: {here.sum()} neurons, of whose variance it is {100 * np.median(share[k, here]):.0f} % (median)")
    print(f"the largest frequency of a neuron is {100 * np.median(share.max(0)):.0f} % of its variance (median); "
          f"{100 * right:.1f} % of pairs right")
    fig.suptitle(f"Addition modulo {p}, {100 * right:.1f} % of pairs right", x=0.01, ha="left", fontweight="bold")
    fig.savefig(args.out, dpi=130)
    print(args.out)


if __name__ == "__main__":
    main()
