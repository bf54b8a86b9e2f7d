"""Reads the HDF5 files that h5lens writes.

    import h5lens
    with h5lens.open_run("out.h5") as run:
        run.cache("resid_post", 5)              # [prompt, pos, d_model]
        run.cache("blocks.5.attn.hook_pattern", rows=slice(0, 8))
        run.by_token("resid_post", 5)           # [token, d_model], no padding; run.token_places(): row and position of each
        run.cache("resid_post", 5, pos="read")  # [prompt, d_model]: at the read position
        run.batches("resid_post", 4096, layer=5)  # all tokens, shuffled; h5lens.torch has it for a DataLoader
        run.results["logit_diff"]               # [prompt, answer - 1]
        run.to_dataframe()                      # tables and the CSV's columns, for pandas
        run.patch["resid_pre"]                  # [prompt, layer, pos, answer - 1]: /results/patch
        run.ablate["sets"]                      # [prompt, set, answer - 1]: /results/ablate; run.labels("set")
        run.steer["logit_diff"]                 # [prompt, scale, answer - 1]: /results/steer; run.labels("scale")
        run.knockout["top_tokens"]              # [prompt, k]: /results/knockout
        run.paths["logit_diff"]                 # [prompt, layer, head, answer_other]: /results/path
        run.tree["/results"].to_dataset()       # xarray, read when it is used
        run.activation_cache([0, 1])            # a dict for TransformerLens's ActivationCache
        run.decompose_resid([0, 1])             # and its functions, in NumPy: [component, prompt, pos, d_model]
    with h5lens.open_weights("w.h5") as w:
        w["blocks.0.attn.W_Q"][3]               # what `h5lens weights DIR -o w.h5` wrote

Importing needs NumPy and h5py only; xarray is for `tree` and `Stack.to_xarray`, pandas for `to_dataframe`, torch for
`activation_cache(torch=True)` and h5lens.torch, xxhash for `verify` of files whose chunks are hashed with it.

Conventions of the file. Prompts differ in length and nothing was computed past a prompt's end: float
arrays hold NaN there, `tokens` holds -1. `run.lengths` and `run.mask()` say where the data is. Attention
scores that the causal mask (or a local window) removes are -inf. Ranks count from zero; -1 stands for a
row whose logits were not finite. Arrays keep the type they were stored in (float16 or float32).
A run with cache.layout: ragged is stored without padding, /tokens/<hook name> [token, …], and reads the same.

Interventions. A grid of `run.patch` has a cell for each place of its axes (`run.patch.dims("resid_pre")`): what became of
the answers when the activation there was replaced; NaN past a prompt's end and where patch.layers, patch.heads or
patch.positions did not ask. Beside the grids are both runs, corrupted_logit_diff and clean_logit_diff (or another
patch.metric), and with patch.normalize <grid>_normalized: (x - corrupted) / (clean - corrupted), NaN where those are equal.
A grid of `run.ablate` is the clean run, whose own logit_diff is in `run.results`, with heads, attention or MLPs replaced.
`run.steer` and `run.knockout` hold tables of the read position, as `run.results` does of the run without: with a vector
added, times each of steer.scale, and with attention cut.

A run in shards. HDF5 shows the activations of all shards as one virtual dataset, opens every shard to read it,
and gives NaN, without an error, for a shard that it cannot open (it is missing, or the process has reached its
limit of open files). So nothing here reads through it: each shard is opened in turn, and one that cannot be is
an error. That holds for every array that comes from here, but for `run.file`, which is h5py's own.
"""

from .datasets import Tokens
from .digests import Verification, dataset_digest, file_digest
from .names import H5LensError, H5LensWarning, SCHEMA, TooManyFiles, UnknownName, act_name
from .pieces import load_pieces, tokenizer_digest
from .run import Run, open_run
from .stack import Stack
from .tl_config import transformer_lens_config
from .weights import Weights, open_weights

__version__ = "0.6.0"  # the program's
__all__ = ["H5LensError", "H5LensWarning", "Run", "SCHEMA", "Stack", "Tokens", "TooManyFiles", "UnknownName",
           "Verification", "Weights", "act_name", "dataset_digest", "file_digest", "load_pieces", "open_run",
           "open_weights", "tokenizer_digest", "transformer_lens_config"]
