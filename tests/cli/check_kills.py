#!/usr/bin/env python3
"""What happens to a sweep in shards when things go wrong for real.

Runs that are killed at random moments and gone on with, signals, a disk that
fills up, folders that are read-only or vanish, two runs at once, tasks side by
side, `status` from another terminal. Every sweep that is finished in the end must
hold what an undisturbed one holds, bit for bit.

H5LENS is the program, WORK a folder for its files. --kills 200 --minutes takes a
quarter of an hour; the default is short enough for `make test`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

PROGRAM = os.environ.get("H5LENS", "build/h5lens")
MODEL = "experiments/demo-gpt2"
CSV = "experiments/ioi.csv"
SHARD = 16  # prompts

passed = 0
failures: list[str] = []


def check(name: str, good: bool, told: str = "") -> bool:
    global passed
    if good:
        passed += 1
    else:
        failures.append(name)
        print(f"FAILED: {name}\n    " + told.strip().replace("\n", "\n    "), flush=True)
    return good


class Sweep:
    """One output in a folder of its own."""

    def __init__(self, folder: Path, rows: int = 240, hooks: str = "*resid_post,*hook_pattern",
                 shard: int = SHARD, data: str = CSV, keys: tuple[str, ...] = ()):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows, self.hooks, self.shard, self.data = folder, rows, hooks, shard, data
        self.keys = [word for key in keys for word in ("--set", key)]
        self.output, self.shards = folder / "out.h5", folder / "out.shards"
        self.n_shards = -(-rows // shard)

    def command(self, *more: str, threads: int = 1) -> list[str]:
        return [PROGRAM, "run", "--model", MODEL, "--data", self.data, "--answers", "correct,incorrect",
                "--hooks", self.hooks, "--limit", str(self.rows), "--set", f"shards.prompts={self.shard}",
                "-o", str(self.output), "--threads", str(threads), *self.keys, *more]

    def start(self, *more: str, threads: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*more, threads=threads), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *more: str, threads: int = 1) -> tuple[int, str]:
        return end(self.start(*more, threads=threads))

    def done(self) -> int:
        return len(list(self.shards.glob("?????.h5")))

    def frozen(self, *more: str, after: int = 2, threads: int = 1) -> subprocess.Popen[str]:
        """A run that is stopped (SIGSTOP) while it computes, after some shards."""
        for _ in range(20):
            p = self.start(*more, threads=threads)
            while p.poll() is None and (self.done() < after or not list(self.shards.glob("*.part-*"))):
                time.sleep(0.002)
            if p.poll() is None:
                p.send_signal(signal.SIGSTOP)
                time.sleep(0.05)
                if not self.output.exists():
                    return p
                p.send_signal(signal.SIGCONT)
            end(p)
            self.clear()
        raise SystemExit("no run could be stopped in time")

    def clear(self) -> None:
        self.output.unlink(missing_ok=True)
        shutil.rmtree(self.shards, ignore_errors=True)


def end(p: subprocess.Popen[str]) -> tuple[int, str]:
    told = p.communicate(timeout=600)[0]
    return p.returncode, told


def cli(*args: str) -> tuple[int, str]:
    r = subprocess.run([PROGRAM, *args], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=600)
    return r.returncode, r.stdout


# --- are two files equal? ------------------------------------------------------------


def values(path: Path) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    f = h5py.File(path, "r")
    f.visititems(lambda name, d: found.__setitem__(name, d) if isinstance(d, h5py.Dataset) else None)
    return {k: v for k, v in found.items() if not k.startswith("shards/") and k != "shard"}


def differences(a: Path, b: Path) -> str:
    """The first dataset that differs, or nothing."""
    x, y = values(a), values(b)
    if x.keys() != y.keys():
        return f"datasets {sorted(x.keys() ^ y.keys())}"
    for name, d in x.items():
        p, q = d[()], y[name][()]
        if p.shape != q.shape or p.dtype != q.dtype:
            return f"{name}: {p.shape} {p.dtype}, {q.shape} {q.dtype}"
        if (p.dtype.kind == "O" and not np.array_equal(p, q)) or \
           (p.dtype.kind != "O" and p.tobytes() != q.tobytes()):
            return name
    for file in (x, y):
        next(iter(file.values())).file.close()
    return ""


def digests(s: Sweep) -> dict[str, str]:
    """Of every dataset of every shard. That of a whole file covers paths and threads too."""
    found = {}
    for shard in sorted(s.shards.glob("?????.h5")):
        for name, d in values(shard).items():
            found[f"{shard.name}/{name}"] = str(d.attrs.get("sha256"))
            file = d.file
        file.close()
    return found


def same_as(name: str, s: Sweep, reference: Sweep) -> None:
    """Finished, sound, and equal in every dataset and digest."""
    code, told = cli("verify", str(s.output))
    if not check(f"{name}: verify", code == 0 and " 0 bad" in told, told):
        return
    what = differences(s.output, reference.output)
    check(f"{name}: the same bits", not what, what)
    check(f"{name}: the same digests", digests(s) == digests(reference))
    left = [p.name for p in s.folder.rglob("*") if p.suffix == ".run" or ".part" in p.name or ".tmp-" in p.name]
    check(f"{name}: nothing is left", not left, str(left))


# --- kill -9 ---------------------------------------------------------------------------


def phase(s: Sweep, pid: int) -> str:
    """Where a killed run was, by what it left."""
    if not list(s.shards.glob(f"*-{pid}.run")):
        return "reading the inputs"
    if list(s.folder.glob("out.h5.part-*")):
        return "joining"
    if list(s.shards.glob("*.part-*")):
        return "computing"
    return "looking at shards, or between them"


def long_csv(path: Path, times: int) -> str:
    """The shipped prompts, over and over."""
    head, *rows = Path(CSV).read_text().splitlines(keepends=True)
    path.write_text(head + "".join(rows) * times)
    return str(path)


def kills(work: Path, n: int, seed: int, minutes: bool, keys: tuple[str, ...] = ()) -> None:
    """Each sweep is killed until it ends: at any moment of a short one, or every few
    seconds of one that takes minutes."""
    rng = random.Random(seed)
    # Each start reads all shards that are there: little data, so that computing takes longer.
    if minutes:
        rows, shard, data = 120_000, 1200, long_csv(work / "long.csv", 100)
    else:
        rows, shard, data = 480, 3 * SHARD, CSV
    reference = Sweep(work / "kill-reference", rows, "ln_final.hook_normalized" if minutes else "*resid_post",
                      shard, data, keys)
    began = time.monotonic()
    code, told = reference.run(threads=2)
    whole = time.monotonic() - began
    if not check("kills: undisturbed", code == 0, told):
        return
    s = Sweep(work / "kill", rows, reference.hooks, shard, data, keys)
    longest = 0.03 * whole if minutes else 1.2 * whole
    where: dict[str, int] = {}
    done = rounds = busy = after_commit = 0
    while done < n:
        before = s.done()
        p = s.start(threads=rng.choice((1, 2, 3)))
        try:
            p.wait(rng.uniform(0.0, longest))
        except subprocess.TimeoutExpired:
            p.kill()
            code, told = end(p)
            if code == -signal.SIGKILL:
                done += 1
                after_commit += s.done() > before
                at = phase(s, p.pid)
                where[at] = where.get(at, 0) + 1
                continue
        code, more = end(p) if p.stdout and not p.stdout.closed else (code, "")
        told = more or told
        if code == 75 and "is at work on this output" in told:
            busy += 1  # a child of the dead one is about to end
            time.sleep(0.2)
            continue
        if not check("kills: goes on", code == 0, told):
            return
        rounds += 1
        same_as(f"kills: round {rounds}", s, reference)
        s.clear()
    code, told = s.run(threads=2)
    check("kills: the last resume", code == 0, told)
    same_as("kills: the last round", s, reference)
    print(f"{done} kills (seed {seed}; undisturbed, the run takes {whole:.1f} s): " + ", ".join(f"{v} {k}" for k, v in sorted(where.items())) +
          f"; {after_commit} after the run had committed a shard, {busy} starts too early; {rounds + 1} sweeps of "
          f"{s.n_shards} shards finished, all equal; {time.monotonic() - began:.0f} s")


def signals(work: Path, reference: Sweep) -> None:
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        s = Sweep(work / sig.name)
        p = s.frozen()
        p.send_signal(sig)
        p.send_signal(signal.SIGCONT)
        code, told = end(p)
        check(f"{sig.name}: exit code 75", code == 75, f"{code}: {told}")
        kept = re.search(r"stopped by a signal; (\d+) of 15 shards are kept, and the same command goes on",
                         told)
        check(f"{sig.name}: told", bool(kept) and int(kept[1]) == s.done(), told)
        code, told = s.run(threads=3)
        check(f"{sig.name}: goes on", code == 0 and "prompts were there already" in told, told)
        same_as(sig.name, s, reference)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    s = Sweep(work / "nohup")
    p = s.frozen()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    p.send_signal(signal.SIGHUP)
    p.send_signal(signal.SIGCONT)
    code, told = end(p)
    check("SIGHUP under nohup: goes on to its end", code == 0, f"{code}: {told}")
    same_as("nohup", s, reference)


def interventions(work: Path, _: Sweep) -> None:
    """Patching and ablation, killed with -9 after some shards and gone on with: grids in the output, and virtual ones."""
    keys = ("data.corrupted=corrupted", "patch.grids=[resid_pre,attn_out,attn_head_out_all_pos,attn_head_out_by_pos]",
            "patch.normalize=true", "ablate.grids=[attn_head_out_all_pos,mlp_out]", "ablate.sets={a: [3.3, 3.2], b: [0.1]}")
    reference, s = (Sweep(work / f"interventions{which}", 60, "none", 4, "experiments/ioi-pairs.csv", keys)
                    for which in ("-reference", ""))
    code, told = reference.run(threads=2)
    if not check("interventions: undisturbed", code == 0, told):
        return
    there = values(reference.output)
    wanted = {"results/patch/resid_pre", "results/patch/attn_head_out_by_pos_normalized", "results/ablate/sets"}
    check("interventions: data sets", wanted <= there.keys(), str(sorted(there)))
    for threads, after in ((1, 3), (3, 7), (2, 10)):
        p = s.frozen(after=after, threads=threads)
        p.kill()
        end(p)
    kept = s.done()
    code, told = s.run(threads=2)
    check("interventions: goes on", code == 0 and kept >= 10 and "prompts were there already" in told, told)
    same_as("interventions", s, reference)


# --- who is at work ----------------------------------------------------------------------


def two_runs(work: Path, reference: Sweep) -> None:
    s, host = Sweep(work / "two"), socket.gethostname()
    p = s.frozen()
    who = f"process {p.pid} on {host} is at work on this output"
    for name, more in (("", ()), (" --overwrite", ("--overwrite",)), (" --repair", ("--repair",)),
                       (" --task 1/3", ("--task", "1/3"))):
        code, told = s.run(*more)
        check(f"two runs: the second is refused{name}", code == 75 and who in told, told)
    code, told = cli("merge", str(s.output))
    check("two runs: merge is refused", code == 75 and who in told, told)
    code, told = cli("status", str(s.output))
    check("two runs: status of one that stands still", code == 75 and
          f"process {p.pid} on {host} is at work" in told and "half done: " in told, told)
    kept = s.done()
    p.send_signal(signal.SIGCONT)
    code, told = end(p)
    check("two runs: the first is not disturbed", code == 0 and kept >= 2, told)
    same_as("two runs", s, reference)

    s.clear()
    p = s.frozen(after=4)
    p.kill()
    end(p)
    code, told = cli("status", str(s.output))
    check("a dead run: status", code == 75 and f"process {p.pid} on {host} died" in told and
          "no run is at work" in told, told)
    code, told = s.run()
    check("a dead run: its lock is stale", code == 0 and "half-done shard" in told, told)
    same_as("a dead run", s, reference)
    code, told = cli("status", str(s.output))
    check("a finished sweep: status", code == 0 and "15 of 15 shards done, 240 of 240" in told and
          "finished" in told and "process" not in told, told)
    code, told = cli("status", str(work / "nothing.h5"))
    check("status of nothing", code == 1 and "cannot find it or its shards" in told, told)


def statuses(work: Path, reference: Sweep) -> None:
    s = Sweep(work / "status", rows=1200)
    p, seen, at_work, odd = s.start(), 0, 0, ""
    while p.poll() is None:
        if not s.shards.exists():
            continue
        code, told = cli("status", str(s.output))
        m = re.search(r": (\d+) of 75 shards done, (\d+) of 1200 prompts", told)
        if m:
            n, rows = int(m[1]), int(m[2])
            odd = odd or ("" if n >= seen and rows == SHARD * n and code in (0, 75) else told)
            seen = n
        r = re.search(r"is at work.*: (\d+) of (\d+) prompts(, (\S+)/s, (\S+) MB/s, (\S+) s left)?", told)
        if r:
            at_work += 1
            odd = odd or ("" if int(r[1]) <= int(r[2]) else told)
        elif code == 75 and "nobody" in told and p.poll() is None and s.done() < 70:
            odd = odd or told
        time.sleep(0.1)
    code, told = end(p)
    check("status during a run: the run", code == 0, told)
    check("status during a run: plausible", not odd and at_work > 0, f"{at_work}: {odd}")
    s.clear()
    _ = reference


def tasks(work: Path, reference: Sweep) -> None:
    s = Sweep(work / "tasks")
    for again in range(5):
        s.clear()
        several, said = [s.start("--task", f"{i}/5") for i in (1, 2, 3, 4, 5)], ""
        for i, p in enumerate(several):
            code, told = end(p)
            said += told
            check(f"tasks at once: {i + 1}/5", code == 0 and "this task's share is done" in told, told)
        check("tasks at once: one joins", said.count("all 15 shards are done and joined") == 1, said)
        same_as("tasks at once", s, reference)
        s.output.unlink()  # all are done, and none has joined
        several = [s.start("--task", f"{i}/5") for i in (1, 2, 3, 4, 5)]
        told = "".join(f"{code}: {told}" for code, told in map(end, several))
        check("tasks at once, all done: nobody fails", told.count("0: ") == 5, told)
        same_as("tasks at once, all done", s, reference)
    s.output.unlink()
    code, told = cli("merge", str(s.output))
    check("tasks at once: merge", code == 0 and "240 prompts" in told, told)
    same_as("tasks at once: merge", s, reference)
    one = s.folder / "one.h5"
    code, told = cli("pack", str(s.output), "-o", str(one))
    check("tasks at once: pack", code == 0, told)
    what = differences(one, reference.output)
    check("tasks at once: pack, the same bits", not what, what)

    s.clear()
    p = s.frozen("--task", "2/4", after=1)
    who = f"process {p.pid} on {socket.gethostname()} (task 2/4) is at work"
    for share in ("2/4", "4/8", "2/2", "6/8", "1/3"):
        code, told = s.run("--task", share)
        numbers = [int(x) for x in share.split("/")]
        overlaps = any(k % 4 == 1 and k % numbers[1] == numbers[0] - 1 for k in range(240))
        refused = code == 75 and who in told
        check(f"tasks: {share} beside 2/4", refused if overlaps else code == 0, told)
    code, told = s.run("--task", "1/2")
    check("tasks: 1/2 beside 2/4", code == 0, told)
    code, told = s.run()
    check("tasks: the whole run beside 2/4", code == 75 and who in told, told)
    p.send_signal(signal.SIGTERM)
    p.send_signal(signal.SIGCONT)
    code, told = end(p)
    check("tasks: SIGTERM", code == 75, told)
    there = s.done()
    code, told = cli("merge", str(s.output))
    check("tasks: merge tells what is missing", code == 75 and
          f"{15 - there} of 15 shards {'is' if there == 14 else 'are'} missing: 0" in told, told)
    code, told = s.run("--task", "1/1", threads=2)
    check("tasks: another number of tasks", code == 0, told)
    code, told = cli("merge", str(s.output))
    check("tasks: merge", code == 0, told)
    same_as("tasks", s, reference)

    # Killed on one thread, killed on three, the rest in three tasks on two.
    s.clear()
    for threads, after in ((1, 2), (3, 6)):
        p = s.frozen(after=after, threads=threads)
        p.kill()
        end(p)
    kept = s.done()
    for i in (1, 2, 3):
        code, told = s.run("--task", f"{i}/3", threads=2)
        check(f"killed, then tasks: {i}/3", code == 0, told)
    code, told = cli("merge", str(s.output))
    check("killed, then tasks: merge", code == 0 and kept >= 6, told)
    same_as("killed, then tasks", s, reference)

    mixed = Sweep(work / "mixed")
    mixed.run("--set", "top_k=3")
    shutil.copy(mixed.shards / "00003.h5", s.shards / "00003.h5")
    code, told = cli("merge", str(s.output))
    check("merge of mixed sweeps", code == 1 and "00003.h5" in told, told)
    code, told = cli("verify", str(s.output))
    check("verify names the shard", code == 1 and "00003.h5" in told, told)
    mixed.clear()


# --- two passes over the data ---------------------------------------------------------------


def first_pass(work: Path, reference: Sweep) -> None:
    """ablate.value: mean: killed at random moments of the first pass and after it; tasks at once."""
    rng, rows, keys = random.Random(7), 240, ("ablate.grids=mlp_out", "ablate.value=mean")
    right = Sweep(work / "mean-reference", rows, "*resid_post", keys=keys)
    code, told = right.run(threads=2)
    if not check("first pass: undisturbed", code == 0, told):
        return
    s = Sweep(work / "mean", rows, right.hooks, keys=keys)
    in_pass = 0
    for again in range(2):
        s.clear()
        for _ in range(3):
            p, want = s.start(threads=rng.choice((1, 3))), rng.randrange(1, 14)
            while p.poll() is None and len(list(s.shards.glob("mean-*.h5*"))) < want:
                time.sleep(0.001)
            time.sleep(rng.choice((0, 0, 0.02, 0.3)))
            p.kill()
            end(p)
            in_pass += bool(list(s.shards.glob("mean-*"))) and not (s.shards / "mean.h5").exists()
            time.sleep(0.1)
        code, told = s.run(threads=2)
        check(f"first pass, killed: goes on ({again})", code == 0, told)
        same_as(f"first pass, killed ({again})", s, right)
        what = differences(s.shards / "mean.h5", right.shards / "mean.h5")
        check("first pass, killed: the same means", not what, what)
    check("first pass: killed in it", in_pass > 0)

    def at_once(name: str) -> None:
        """Three tasks again and again, until all have ended."""
        waiting, odd = [1, 2, 3], ""
        for _ in range(10):
            several = [(i, s.start("--task", f"{i}/3")) for i in waiting]
            ended = [(i, *end(p)) for i, p in several]
            waiting = [i for i, code, _ in ended if code]
            odd += "".join(f"{code}: {told}" for _, code, told in ended
                           if code and (code != 75 or "the same command goes on later" not in told))
        check(name, not odd and not waiting, f"{waiting}: {odd}")
        same_as(name, s, right)

    for again in range(2):
        s.clear()
        at_once(f"first pass, tasks at once ({again})")
        s.clear()
        codes = [s.run("--task", f"{i}/3")[0] for i in (1, 2, 3)]
        check(f"first pass, tasks in turn ({again})", codes == [75, 75, 0], str(codes))
        # All sums are there: each task makes the means, whatever the others do.
        for made in (s.shards / "mean.h5", *s.shards.glob("?????.h5")):
            made.unlink()
        at_once(f"first pass, means at once ({again})")
        check(f"first pass, means at once: one file ({again})", (s.shards / "mean.h5").exists())
    _ = reference


# --- folders and disks ---------------------------------------------------------------------


def vanishing(work: Path, reference: Sweep) -> None:
    s = Sweep(work / "vanish")
    p = s.frozen()
    shutil.rmtree(s.shards)
    p.send_signal(signal.SIGCONT)
    code, told = end(p)
    check("the shards vanish", code == 1 and "out.shards" in told and "No such file" in told,
          f"{code}: {told}")
    code, told = s.run()
    check("the shards vanish: anew", code == 0, told)
    same_as("the shards vanish", s, reference)
    s.clear()
    p = s.frozen()
    shutil.rmtree(s.folder)
    p.send_signal(signal.SIGCONT)
    code, told = end(p)
    check("the folder vanishes", code == 1 and "No such file" in told, f"{code}: {told}")
    code, told = s.run()
    check("the folder vanishes: told", code == 1 and "No such file" in told, told)
    s.folder.mkdir()
    code, told = s.run()
    check("the folder vanishes: anew", code == 0, told)
    same_as("the folder vanishes", s, reference)
    # Shards and plan under names that are taken by something else.
    s.clear()
    s.shards.write_text("notes")
    code, told = s.run()
    check("a file in the way of the shards", code == 2 and "is in the way" in told, told)
    s.shards.unlink()


def in_namespace(work: Path, reference: Sweep) -> bool:
    """The rest, where a file system may be mounted. False: not here."""
    inside = ["sh", "-c", 'mount -t tmpfs -o size=64m none "$1" && shift && exec "$@"', "sh"]
    place = work / "disk"
    place.mkdir()
    for how in (["unshare", "-m"], ["unshare", "-rm"]):
        if subprocess.run([*how, "sh", "-c", f'mount -t tmpfs -o size=1m none "{place}"'],
                          capture_output=True).returncode == 0:
            r = subprocess.run([*how, *inside, str(place), sys.executable, __file__, "--disk", str(place),
                                str(reference.folder)], text=True, stdout=subprocess.PIPE)
            print("".join(f"{line}\n" for line in r.stdout.splitlines() if "passed" not in line), end="")
            m = re.search(r"(\d+) passed, (\d+) failed", r.stdout)
            check("a small disk", bool(m) and m[2] == "0" and r.returncode == 0, r.stdout)
            globals()["passed"] += int(m[1]) if m else 0
            return True
    return False


def small_disk(place: Path, reference: Sweep) -> None:
    """On 64 MiB."""
    s, big = Sweep(place), Sweep(place, rows=1200)
    code, told = big.run()
    check("disk: too small from the start", code == 75 and "will take" in told and "MiB free" in told, told)
    check("disk: nothing is left", not list(place.iterdir()), str(list(place.iterdir())))
    p = s.frozen(after=3)
    ballast = place / "ballast"
    with open(ballast, "wb") as f:
        try:
            while True:
                f.write(b"x" * 65536)
        except OSError:
            pass
    p.send_signal(signal.SIGCONT)
    code, told = end(p)
    check("disk: full", code == 75 and "No space left" in told and "shards are kept" in told,
          f"{code}: {told}")
    check("disk: no half file", not list(s.shards.glob("*.part-*")) and not s.output.exists())
    kept = s.done()
    code, told = s.run()
    check("disk: still full", code == 75 and s.done() == kept, f"{code}: {told}")
    ballast.unlink()
    code, told = s.run(threads=2)
    check("disk: goes on", code == 0 and f"{SHARD * kept} prompts were there" in told, told)
    same_as("disk", s, reference)
    # Shards that were there when the disk was exchanged for a larger one count too.
    (s.shards / "00007.h5").unlink()
    s.output.unlink()
    away = reference.folder.parent / "moved"
    shutil.copytree(place, away)
    moved = Sweep(away)
    code, told = moved.run()
    check("disk: moved to another", code == 0 and f"{240 - SHARD} prompts were there" in told, told)
    same_as("disk: moved", moved, reference)
    code, told = s.run()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    code, told = s.run()
    check("read-only: a finished one can be looked at",
          code == 0 or "Read-only file system" in told, told)
    code, told = cli("status", str(s.output))
    check("read-only: status", code == 0 and "finished" in told, told)
    code, told = cli("verify", str(s.output))
    check("read-only: verify", code == 0, told)
    code, told = Sweep(place, rows=96).run("--overwrite")
    check("read-only: nothing is written", code == 1 and "Read-only file system" in told, f"{code}: {told}")


def main() -> int:
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kills", type=int, default=int(os.environ.get("H5LENS_KILLS", "20")))
    a.add_argument("--minutes", action="store_true", help="kill a run that takes minutes, not short ones")
    a.add_argument("--seed", type=int, default=5)
    a.add_argument("--only", help="one part: kills, signals, interventions, two_runs, statuses, tasks, first_pass, vanishing, disk")
    a.add_argument("--disk", nargs=2, metavar=("PLACE", "REFERENCE"), help=argparse.SUPPRESS)
    args = a.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also under nohup
    if args.disk:
        small_disk(Path(args.disk[0]), Sweep(Path(args.disk[1])))
        print(f"{passed} passed, {len(failures)} failed")
        return 1 if failures else 0
    skipped = 0
    work = Path(tempfile.mkdtemp(prefix="kills.", dir=os.environ.get("WORK")))
    try:
        reference = Sweep(work / "reference")
        code, told = reference.run(threads=2)
        check("undisturbed", code == 0, told)
        for part in (signals, interventions, two_runs, statuses, tasks, first_pass, vanishing):
            if args.only in (None, part.__name__):
                part(work, reference)
        if args.only in (None, "disk") and not in_namespace(work, reference):
            skipped = 1
            print("skipped: a small disk: no file system can be mounted")
        if args.only in (None, "kills"):
            kills(work, args.kills, args.seed, args.minutes)
            kills(work / "ragged", args.kills // 2, args.seed + 1, args.minutes, ("cache.layout=ragged",))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{passed} passed, {len(failures)} failed, {skipped} skipped")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
