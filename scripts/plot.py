#!/usr/bin/env python3
"""Draws pictures of an output file of h5lens: what it has data for.

    h5lens plot OUT.h5 [-o DIR] [--what NAME,…] [--by COLUMN] …      or      python scripts/plot.py OUT.h5 …

Each is a file STEM.NAME.png. Of all prompts:

    rank_per_layer  rank of the answers when each layer's residual stream is read out (logit lens): median and quartiles
    lens            the logit difference by layer, likewise
    logit_diff      the distribution of the logit difference
    components      what embeddings, attention and MLPs add to the answer (table logit_attrs)
    heads           what each head adds to it, layer × head (head_attrs)
    neurons         the 20 neurons that add most (neuron_attrs, else top_neurons)
    head_scores     what heads look at, layer × head for each kind of key
    patch, ablate   each grid of activation patching and of ablation (patch.GRID, ablate.GRID), and patch: heads' outputs
                    beside the residual stream, where both were patched
    path, knockout, steer  the logit difference after path patching, with attention cut, with a vector added

Of one prompt, --prompt:

    attention       one head's attention pattern
    layer           those of all heads of a layer
    lens_tokens     layers × tokens: what each layer would say next (lens_top_token, lens_top_prob; lens_positions: all)
    tokens          log probability of each token of the text (token_logprobs), and what the model expects (entropy)

All are about the first answer less the second, at the position that the tables read. Means have 95 % intervals, 1.96 standard
errors. Where no part has more than 12 prompts, these are drawn one by one, as dots. Panels of one picture have one scale.

--by COLUMN gives each value of a CSV column its own panel or colour (at most six: quarters of a number, the commonest texts).
Pictures of one prompt then show the first of each part; attention, the mean pattern of up to 200 prompts of the part's
commonest length, if at most half of their tokens are neither the same nor the text of a column; layer, the first part only.

--head is the head of `attention` and, without --layer, the layer of `layer`. Without it the head is the one that adds most to
the answer (head_attrs), of the layers whose patterns are stored. Without that table it is the head that looks most, from the
token that is read, at the first answer where the prompts hold it, else at a single earlier token other than the first, on the
mean over the first 200 prompts. The lines above the picture say which it was, with the number.

Patching: a cell is the mean over the prompts that have it (NaN is left out) of what the patch changed: the metric less that
of the run which was patched; white is no change. A grid with normalized shares beside it has a picture of either. On the
axis of positions stand

    the tokens      where all prompts have the same number of tokens and most places the same token; with --by, where those
                    with the same value of the column do
    --roles A,B     the places where the texts of these CSV columns end in the prompt, as in --roles subject,place
    else            places counted from the first token that differs between a prompt and its corrupted one, and from the
                    token that is read

Grids of heads by position show, for each head, the place with the largest effect; the lines above the picture tell which
place it is for the largest of them.

The tokens' texts come from tokenizer.json in --tokenizer, by default in the model directory that the file names; without
one the labels are token ids. Without --what the file's pictures are drawn, and what it has no data for is told in one line;
what --what names and the file does not have is told by itself. Exit code: 0; 1 if nothing was drawn, or not the --head or
--layer that was asked for; 2 for arguments that are none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The first says what is not installed.
from plot_common import STYLE, Draw, NotThere, Options, plt

import h5lens
import plot_answers
import plot_attention
import plot_attrs
import plot_interventions
import plot_tokens

WHAT = ("rank_per_layer", "lens", "logit_diff", "components", "heads", "neurons", "head_scores", "attention", "layer", "lens_tokens",
        "tokens", "patch", "ablate", "path", "knockout", "steer")


def pictures_of(run: h5lens.Run, options: Options) -> dict[str, Draw]:
    """Name → how it is drawn, in the order of WHAT."""
    found: dict[str, Draw] = {}
    for module in (plot_answers, plot_attrs, plot_attention, plot_tokens, plot_interventions):
        found |= module.pictures_of(run, options)
    return {name: found[name] for what in WHAT for name in found if name.split(".")[0] == what}


# --- the program ----------------------------------------------------------------

def head_of(text: str) -> tuple[int, int]:
    try:
        layer, head = (int(part) for part in text.split("."))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not LAYER.HEAD, such as 9.6") from None
    return layer, head


def kinds_of(text: str) -> list[str]:
    if wrong := [k for k in text.split(",") if k.split(".")[0] not in WHAT]:
        raise argparse.ArgumentTypeError(f"'{wrong[0]}' is none of {', '.join(WHAT)}")
    return text.split(",")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="h5lens plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="an output file of h5lens")
    p.add_argument("-o", "--output", type=Path, metavar="DIR", help="where the PNGs go (default: beside the file)")
    p.add_argument("--what", "--only", type=kinds_of, metavar="NAME,…",
                   help=f"only these of {', '.join(WHAT)}; patch.GRID and ablate.GRID are single grids")
    p.add_argument("--by", metavar="COLUMN", help="a panel or a colour for each value of this CSV column")
    p.add_argument("--roles", type=lambda s: s.split(","), metavar="COLUMN,…",
                   help="the CSV columns whose texts are the places on the axis of positions")
    p.add_argument("--head", type=head_of, metavar="L.H", help="layer and head of the attention pattern")
    p.add_argument("--layer", type=int, metavar="L", help="the layer whose heads' patterns are drawn")
    p.add_argument("--prompt", type=int, default=0, metavar="ROW", help="row of the pictures of one prompt (default 0)")
    p.add_argument("--tokenizer", type=Path, metavar="DIR", help="directory with tokenizer.json")
    return p.parse_args(argv)


def options_of(run: h5lens.Run, args: argparse.Namespace, program: str) -> Options:
    """Checked."""
    if not -len(run) <= args.prompt < len(run):
        raise SystemExit(f"{program}: no prompt {args.prompt}: the file has {len(run)}")
    for flag, names in (("--by", [args.by] if args.by else []), ("--roles", args.roles or [])):
        if missing := [name for name in names if name not in run.columns]:
            there = f"the CSV's other columns are {', '.join(run.columns)}" if run.columns else "the CSV has no other columns"
            raise SystemExit(f"{program}: {flag} {missing[0]}: {there}")
    return Options(args.by, args.roles, args.tokenizer, args.head, args.layer, args.prompt % len(run))


def wanted(name: str, what: list[str] | None) -> bool:
    return what is None or name in what or name.split(".")[0] in what


def draw_all(run: h5lens.Run, args: argparse.Namespace) -> int:
    options = options_of(run, args, "plot.py")
    folder = args.output or args.file.parent
    folder.mkdir(parents=True, exist_ok=True)
    drawn, absent = [], []
    for name, draw in pictures_of(run, options).items():
        if not wanted(name, args.what):
            continue
        try:
            fig = draw()
        except NotThere as e:
            absent.append(f"{name}: {e}")
            continue
        path = folder / f"{args.file.stem}.{name}.png"
        fig.savefig(path)
        plt.close(fig)
        print(path)
        drawn.append(name)
    missing = [k for k in args.what or () if not any(wanted(name, [k]) for name in [*drawn, *(a.split(":")[0] for a in absent)])]
    absent += [f"{k}: the file has no such grid" for k in missing]
    for line in absent if args.what else [", ".join(a.split(":")[0] for a in absent)] if absent else []:
        print(f"plot.py: left out, no data: {line}", file=sys.stderr)
    lost = args.head and "attention" not in drawn and wanted("attention", args.what) or \
        args.layer is not None and "layer" not in drawn and wanted("layer", args.what)
    return 1 if not drawn or lost else 0


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    plt.rcParams.update(STYLE)
    try:
        with h5lens.open_run(args.file) as run:
            return draw_all(run, args)
    except (h5lens.H5LensError, h5lens.UnknownName, OSError) as e:
        print(f"plot.py: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
