#!/bin/bash
# A Slurm of one's own: slurmctld, slurmd and munged with several virtual nodes on
# this machine, all in one folder.
#   slurm.sh up DIR     start it, wait until it takes jobs; `export SLURM_CONF=DIR/slurm.conf`
#   slurm.sh down DIR   end its jobs and the daemons that were started there
set -euo pipefail
dir=$2
nodes=4 cpus=4
export SLURM_CONF=$dir/slurm.conf

# Three ports that nobody listens on (and one more for each node).
free_port() {
	local p
	for _ in $(seq 100); do
		p=$((20000 + RANDOM % 10000))
		for i in $(seq 0 $((nodes + 1))); do
			(: < "/dev/tcp/127.0.0.1/$((p + i))") 2>/dev/null && continue 2
		done
		echo $p && return
	done
}

write_conf() {
	local port host user version
	port=$(free_port) host=$(hostname -s) user=$(id -un)
	version=$(slurmd -V | sed 's/[^0-9]*\([0-9]*\).*/\1/')
	cat > "$SLURM_CONF" <<-CONF
	ClusterName=test
	SlurmctldHost=$host(127.0.0.1)
	SlurmUser=$user
	SlurmdUser=$user
	AuthType=auth/munge
	CredType=cred/munge
	AuthInfo=socket=$dir/run/munge.socket
	SlurmctldPort=$port
	SlurmctldPidFile=$dir/run/slurmctld.pid
	SlurmdPidFile=$dir/run/slurmd.%n.pid
	SlurmctldLogFile=$dir/log/slurmctld.log
	SlurmdLogFile=$dir/log/slurmd.%n.log
	StateSaveLocation=$dir/state
	SlurmdSpoolDir=$dir/spool/%n
	ProctrackType=proctrack/linuxproc
	MpiDefault=none
	MailProg=/bin/true
	SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
	SelectType=select/cons_tres
	SelectTypeParameters=CR_CPU
	SlurmdParameters=config_overrides
	ReturnToService=2
	KillWait=5
	MinJobAge=3600
	JobRequeue=1
	PreemptType=preempt/partition_prio
	PreemptMode=REQUEUE
	PropagateResourceLimitsExcept=MEMLOCK
	NodeName=DEFAULT CPUs=$cpus RealMemory=8000 State=UNKNOWN
	CONF
	local i names=
	for i in $(seq 0 $((nodes - 1))); do
		echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1 + i))" >> "$SLURM_CONF"
		names=${names:+$names,}n$i
	done
	cat >> "$SLURM_CONF" <<-CONF
	PartitionName=normal Nodes=$names Default=YES MaxTime=INFINITE State=UP PriorityTier=5 PreemptMode=OFF
	PartitionName=low Nodes=$names MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
	PartitionName=high Nodes=$names MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
	CONF
	# It asks for cgroups even where none are used.
	if [ "$version" -ge 23 ]; then echo CgroupPlugin=disabled; else echo ConstrainRAMSpace=no; fi > "$dir/cgroup.conf"
}

wait_for() { # SECONDS COMMAND …
	local i n=$(($1 * 5))
	shift
	for ((i = 0; i < n; i++)); do
		"$@" && return
		sleep 0.2
	done
	return 1
}
munge_works() { munge -S "$dir/run/munge.socket" -n > /dev/null 2>&1; }
all_up() { [ "$(sinfo -h -N -p normal -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated)$')" = $nodes ]; }
nobody_left() { [ -z "$(squeue -h 2>/dev/null)" ]; }
is_gone() { [ -z "$(tr -d '\0' 2>/dev/null < "/proc/$1/cmdline")" ]; } # or a zombie

up() {
	mkdir -p "$dir"/{run,log,state,spool}
	chmod 755 "$dir" "$dir"/{run,log,state,spool}
	(umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
	munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" --pid-file="$dir/run/munged.pid" \
		--log-file="$dir/log/munged.log" --seed-file="$dir/munge.seed" 2> "$dir/log/munged.err"
	wait_for 10 munge_works
	write_conf
	slurmctld
	for i in $(seq 0 $((nodes - 1))); do
		mkdir -p "$dir/spool/n$i"
		slurmd -N "n$i"
	done
	wait_for 30 all_up || { tail -n 20 "$dir"/log/* >&2; return 1; }
}

# Those that pid files of this folder name, and that are what they say.
down() {
	local pid f name
	scancel --state=PENDING,RUNNING,SUSPENDED --user="$(id -un)" 2>/dev/null || true
	wait_for 20 nobody_left || true
	for f in "$dir"/run/slurmd.*.pid "$dir/run/slurmctld.pid" "$dir/run/munged.pid"; do
		pid=$(cat "$f" 2>/dev/null) || continue
		name=${f##*/}
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${name%%.*}" ] || continue
		kill "$pid"
		wait_for 10 is_gone "$pid" || kill -KILL "$pid" || true
	done
}

case $1 in
up) up ;;
down) down ;;
*) exit 2 ;;
esac
