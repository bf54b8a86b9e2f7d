#!/usr/bin/env python3
"""What becomes of sweeps on a real Slurm: the README's scripts, as they stand there.

Each job is disturbed in its own way (time limit and requeue, preemption, kill -9, …)
and must end with what an undisturbed run gives, in every dataset. Only the sizes in
the scripts are changed: threads, memory, time, so that they fit on one machine.

H5LENS is the program, SLURM_CONF the cluster (tests/cluster/slurm.sh).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "cli"))
import check_kills
from check_kills import check, differences

PROGRAM = Path(os.environ.get("H5LENS", "build/h5lens")).resolve()
ROOT = Path(__file__).resolve().parent.parent.parent
YAML = f"""model: {ROOT}/experiments/demo-gpt2
data: {{csv: prompts.csv, prompt: prompt, answers: [correct, incorrect]}}
cache: {{hooks: [ln_final.hook_normalized], positions: last}}
tables: all
shards: {{prompts: 400}}
output: unused.h5
"""
SIZES = [(r"--cpus-per-task=16", "--cpus-per-task=1"), (r"--mem=32G", "--mem=400"), (r"--mem-per-cpu=2G", "--mem-per-cpu=400"),
         (r"--time=\S+", "--time=30"), (r"USR1@120", "USR1@50"), (r"--array=1-8", "--array=1-3")]


def sh(*command: str, cwd: Path | None = None) -> str:
    r = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd, timeout=120)
    return r.stdout.strip()


def readme_scripts() -> list[str]:
    """The array, the one with several tasks, the chain."""
    page = (ROOT / "README.md").read_text().split("## On a Slurm cluster")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, re.S)


class Place:
    """A folder with sweep.yaml, prompts.csv, and jobs that were submitted there."""

    def __init__(self, work: Path, name: str, times: int):
        self.name, self.dir = name, work / name
        self.dir.mkdir()
        (self.dir / "sweep.yaml").write_text(YAML)
        head, *rows = (ROOT / "experiments/ioi.csv").read_text().splitlines(keepends=True)
        (self.dir / "prompts.csv").write_text(head + "".join(rows) * times)
        self.output, self.shards = self.dir / "out.h5", self.dir / "out.shards"

    def paste(self, script: str) -> None:
        """As it is, but for the sizes."""
        for pattern, size in SIZES:
            script = re.sub(pattern, size, script)
        (self.dir / "sweep.sh").write_text(script)

    def sbatch(self, script: str, *more: str) -> str:
        """Pastes and submits it; the job's id."""
        self.paste(script)
        told = sh("sbatch", "--parsable", *more, "sweep.sh", cwd=self.dir)
        if not told.isdigit():
            raise SystemExit(f"{self.name}: sbatch: {told}")
        return told

    def log(self) -> str:
        return "".join(p.read_text() for p in sorted(self.dir.glob("*.log")))

    def check(self, what: str, good: bool, told: str = "") -> bool:
        return check(f"{self.name}: {what}", good, told or self.log())

    def done(self) -> int:
        return len(list(self.shards.glob("?????.h5")))

    def pids(self) -> list[int]:
        """Of the runs that are at work here."""
        told = sh(str(PROGRAM), "status", str(self.output))
        return [int(pid) for pid in re.findall(r"process (\d+) on \S+ is at work", told)]

    def freeze(self, job: str, n: int = 1) -> None:
        """Its n runs stand still once a shard is done: they will not end before they are disturbed,
        the first to be seen not even before the last has begun."""
        self.frozen: list[int] = []

        def all_stand() -> bool:
            for pid in self.pids():
                if pid not in self.frozen and (self.done() > 0 or self.frozen):
                    os.kill(pid, signal.SIGSTOP)
                    self.frozen.append(pid)
            return ended(job) or len(self.frozen) == n
        wait("a shard", all_stand)
        self.check("stands still", len(self.frozen) == n and not self.output.exists(), str(self.frozen))

    def thaw(self) -> None:
        """Once a signal is waiting for each, or has ended it."""
        wait("a signal", lambda: all(signalled(pid) for pid in self.frozen))
        for pid in self.frozen:
            if not gone(pid):
                os.kill(pid, signal.SIGCONT)

    def same_as(self, reference: Place) -> None:
        told = sh(str(PROGRAM), "verify", str(self.output))
        if self.check("verify", " 0 bad" in told, told + self.log()):
            what = differences(self.output, reference.output)
            self.check("the same bits", not what, what)
        left = [p.name for p in self.dir.rglob("*") if p.suffix == ".run" or ".part" in p.name]
        self.check("nothing is left", not left, str(left))


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()


def signalled(pid: int) -> bool:
    """Is a signal other than the one that stopped it pending? Or is it not stopped any more?"""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    return int(re.search(r"ShdPnd:\s*(\w+)", status)[1], 16) != 0 or not re.search(r"State:\s*T", status)


# --- jobs --------------------------------------------------------------------------------


def jobs(job: str) -> list[dict[str, str]]:
    """What Slurm says of a job, or of each task of its array; of all, without its id."""
    return [dict(w.split("=", 1) for w in line.split() if "=" in w)
            for line in sh("scontrol", "show", "job", *([job] if job else []), "-o").splitlines()]


def wait(what: str, condition: Callable[[], bool]) -> bool:
    """No test of speed: that something comes at all."""
    end = time.monotonic() + 300
    while not condition():
        if time.monotonic() > end:
            print(f"waited in vain: {what}\n{sh('squeue')}")
            return False
        time.sleep(0.2)
    return True


def ended(job: str) -> bool:
    return all(j["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL") for j in jobs(job))


def codes(job: str) -> set[str]:
    return {j["ExitCode"].split(":")[0] for j in jobs(job)}


def soon_over(job: str) -> None:
    """The time of each of its running tasks is over in 30 to 90 seconds, however slowly it began."""
    for j in jobs(job):
        if j["JobState"] == "RUNNING":
            hours, minutes, seconds = (int(w) for w in j["RunTime"].split(":"))
            sh("scontrol", "update", f"JobId={j['JobId']}", f"TimeLimit={60 * hours + minutes + (1 if seconds < 30 else 2)}")


def start_again(job: str) -> None:
    """Requeued jobs wait two minutes, and have the whole time again."""
    for j in jobs(job):
        if j["JobState"] == "PENDING" and j["Restarts"] != "0":
            sh("scontrol", "update", f"JobId={j['JobId']}", "StartTime=now", "TimeLimit=30")


def restarts(job: str) -> int:
    return min(int(j["Restarts"]) for j in jobs(job))


def finish(p: Place, job: str) -> None:
    def over() -> bool:
        start_again(job)
        return ended(job)
    wait(f"{p.name}: the end of the job", over)
    p.check("exit code 0", codes(job) == {"0"}, f"{codes(job)}\n{p.log()}")


# --- what is done to them -------------------------------------------------------------------


class Case:
    """One sweep: begin submits it, go_on disturbs it and waits for its end."""

    times: int  # the shipped prompts, so often

    def begin(self, p: Place) -> None:
        raise NotImplementedError

    def go_on(self, p: Place) -> None:
        raise NotImplementedError


class Array(Case):
    """The script that requeues itself; its time is over before it is done."""

    times = 8

    def begin(self, p: Place) -> None:
        self.job = p.sbatch(ARRAY)
        p.freeze(self.job, 3)

    def go_on(self, p: Place) -> None:
        soon_over(self.job)
        p.thaw()
        wait("requeues", lambda: ended(self.job) or restarts(self.job) > 0)
        p.check("was stopped by its limit", restarts(self.job) > 0 and p.log().count("stopped by a signal") >= 3)
        p.check("no output yet", not p.output.exists())
        finish(p, self.job)
        p.check("the last task joins", p.log().count("and joined") == 1)


class Preempted(Case):
    """A job of a partition with a higher priority takes its node, and Slurm starts it again."""

    times = 8

    def begin(self, p: Place) -> None:
        self.job = p.sbatch(re.sub("--array=1-8", "--array=1-1", ARRAY), "--partition=low", "--nodelist=n3", "--exclusive", "--ntasks=1",
                            "--time=30")
        p.freeze(self.job)

    def go_on(self, p: Place) -> None:
        sh("sbatch", "--partition=high", "--nodelist=n3", "--exclusive", "--output=/dev/null", "--wrap=true", cwd=p.dir)
        p.thaw()
        wait("the preemption", lambda: ended(self.job) or restarts(self.job) > 0)
        p.check("was preempted", restarts(self.job) > 0 and "stopped by a signal" in p.log())
        finish(p, self.job)


class Killed(Case):
    """kill -9 of the program; the same script, submitted again with more tasks, goes on."""

    times = 8

    def begin(self, p: Place) -> None:
        self.job = p.sbatch(TASKS, "--ntasks=1", "--time=30")
        p.freeze(self.job)

    def go_on(self, p: Place) -> None:
        for pid in p.frozen:
            os.kill(pid, signal.SIGKILL)
        wait("its end", lambda: ended(self.job))
        p.check("it died", codes(self.job) == {"137"}, f"{codes(self.job)}\n{p.log()}")
        kept = {f.name: f.stat().st_mtime_ns for f in p.shards.glob("?????.h5")}
        finish(p, p.sbatch(TASKS, "--time=30"))
        now = {f.name: f.stat().st_mtime_ns for f in p.shards.glob("?????.h5")}
        p.check("what was done is kept", bool(kept) and kept.items() <= now.items())


class Tasks(Case):
    """`srun -n4`: four tasks, and then the output."""

    times = 2

    def begin(self, p: Place) -> None:
        self.job = p.sbatch(TASKS, "--nodes=2", "--time=30")

    def go_on(self, p: Place) -> None:
        finish(p, self.job)
        told = p.log()
        p.check("each is a task", all(f"task {i}/4: " in told for i in (1, 2, 3, 4)))
        p.check("one joins", told.count("and joined") == 1)
        p.check("its memory", "three quarters of SLURM_MEM_PER_CPU" in told)


class TasksOfArray(Case):
    """Both: the tasks multiply."""

    times = 2

    def begin(self, p: Place) -> None:
        self.job = p.sbatch(ARRAY, "--array=4-8:2", "--ntasks=2", "--time=30", "--mem=800")

    def go_on(self, p: Place) -> None:
        finish(p, self.job)
        p.check("tasks of tasks", all(f"task {i}/6: " in p.log() for i in range(1, 7)))


class NoSrun(Case):
    """`sbatch -n4` starts one program, which computes everything; a second one is told to come later."""

    times = 8

    def begin(self, p: Place) -> None:
        script = re.sub(r"srun \S+ ", "exec ", TASKS)
        self.job = p.sbatch(script, "--time=30", "--signal=B:USR1@5")
        p.freeze(self.job)
        self.second = p.sbatch(script, "--time=30", "--output=second.out")

    def go_on(self, p: Place) -> None:
        wait("the second's end", lambda: ended(self.second))
        p.check("a second run", codes(self.second) == {"75"}, (p.dir / "second.out").read_text())
        os.kill(p.frozen[0], signal.SIGCONT)
        finish(p, self.job)
        p.check("no task", "task 1/" not in p.log())


class Chain(Case):
    """afterany goes on after 75; afterok never does."""

    times = 8

    def begin(self, p: Place) -> None:
        p.paste(TASKS)
        (p.dir / "chain.sh").write_text(CHAIN)
        self.last = sh("bash", "chain.sh", cwd=p.dir).split()[-1]
        self.first = str(min(int(j["JobId"]) for j in jobs("") if j["WorkDir"] == str(p.dir)))
        self.never = sh("sbatch", "--parsable", f"--dependency=afterok:{self.first}", "--wrap=true", cwd=p.dir)
        p.freeze(self.first, 4)

    def go_on(self, p: Place) -> None:
        soon_over(self.first)
        p.thaw()
        wait("the chain", lambda: ended(self.last))
        p.check("the first link fails with 75", codes(self.first) == {"75"}, f"{codes(self.first)}\n{p.log()}")
        p.check("merge", codes(self.last) == {"0" if p.output.exists() else "75"}, f"{codes(self.last)}\n{p.log()}")
        p.check("afterok waits for ever", jobs(self.never)[0]["Reason"] == "DependencyNeverSatisfied", str(jobs(self.never)))
        if not p.output.exists():  # on a slow machine four links are too few
            finish(p, p.sbatch(TASKS, "--time=30"))


ARRAY, TASKS, CHAIN = readme_scripts()


def main() -> int:
    os.environ["PATH"] = f"{PROGRAM.parent}:{os.environ['PATH']}"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slurm-test.") as folder:
        work = Path(folder)
        references = {}
        for times in (2, 8):
            references[times] = r = Place(work, f"undisturbed-{times}", times)
            told = sh(str(PROGRAM), "run", "sweep.yaml", "-o", "out.h5", cwd=r.dir)
            r.check("undisturbed", "prompts in" in told, told)
        cases = [(c(), Place(work, c.__name__, c.times)) for c in
                 (Chain, Array, Preempted, Killed, NoSrun, Tasks, TasksOfArray)]
        for case, p in cases:
            case.begin(p)
        for case, p in cases:
            case.go_on(p)
            p.same_as(references[case.times])
            print(f"{p.name}: {case.__doc__} {time.monotonic() - began:.0f} s", flush=True)
    print(f"{check_kills.passed} passed, {len(check_kills.failures)} failed; {time.monotonic() - began:.0f} s")
    return 1 if check_kills.failures else 0


if __name__ == "__main__":
    sys.exit(main())
