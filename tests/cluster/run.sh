#!/bin/bash
# Starts a Slurm, runs check_slurm.py on it, and ends it, whatever came of that. Where
# Slurm is not installed it says so and is content.
set -u
here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld slurmd munged; do
	command -v $program > /dev/null || { echo "skipped: slurm-test: $program is not installed"; exit 0; }
done
dir=$(mktemp -d /tmp/slurm.XXXXXX) || exit 1
chmod 755 "$dir"
trap 'bash "$here/slurm.sh" down "$dir"; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP
# Run inside of a job, none of its variables may count.
for name in $(env | sed -n 's/^\(\(SLURM\|SBATCH\|SRUN\)_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done
export SLURM_CONF=$dir/slurm.conf
bash "$here/slurm.sh" up "$dir" || exit 1
"$PYTHON" "$here/check_slurm.py"
