# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Several slurmd on one machine, tuned for short jobs in quick succession.
# Sourced by scripts/cluster.

node_names() { seq -f 'n%g' 1 "$nodes"; }

start_slurm() {
	local node port
	export SLURM_CONF=$dir/etc/slurm.conf
	port=$(first_free_port $((nodes + 1)))
	write_slurm_conf "$port"
	write_flavour
	make_gpus
	slurmctld -c </dev/null >>"$dir/log/slurmctld.log" 2>&1
	for node in $(node_names); do
		mkdir -m 0755 "$dir/spool/$node"
		install -d -m 1777 "$dir/tmp/$node"
		slurmd -N "$node" </dev/null >>"$dir/log/slurmd.$node.log" 2>&1
	done
	wait_for 60 "$nodes idle nodes" all_idle
}

all_idle() {
	(($(sinfo --noheader --Node --format='%T' | grep -cx idle) == nodes))
}

# Job numbers start elsewhere in each cluster: cgroups and files in /tmp are
# named after them and are shared with the other clusters of this machine.
write_slurm_conf() {
	local port=$1 task=task/none prolog=
	[[ $proctrack == linuxproc ]] || task=task/cgroup
	# Each job pays for the extern step this makes; only job_container needs it.
	[[ $job_container == none ]] || prolog=PrologFlags=Alloc,Contain
	cat >"$dir/etc/slurm.conf" <<-CONF
		ClusterName=brolga
		SlurmctldHost=localhost
		SlurmctldPort=$port
		SlurmUser=root
		SlurmdUser=root
		AuthType=auth/munge
		AuthInfo=socket=$dir/munge/socket
		CredType=cred/munge
		StateSaveLocation=$dir/state
		SlurmdSpoolDir=$dir/spool/%n
		TmpFS=$dir/tmp/%n
		SlurmctldPidFile=$dir/pid/slurmctld.pid
		SlurmdPidFile=$dir/pid/slurmd.%n.pid
		SlurmctldLogFile=$dir/log/slurmctld.log
		SlurmdLogFile=$dir/log/slurmd.%n.log
		SlurmctldDebug=info
		SlurmdDebug=verbose
		PlugStackConfig=$dir/etc/plugstack.conf
		ProctrackType=proctrack/$proctrack
		TaskPlugin=$task
		JobAcctGatherType=jobacct_gather/none
		JobContainerType=job_container/$job_container
		$prolog
		GresTypes=gpu
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		SlurmdParameters=config_overrides
		LaunchParameters=use_interactive_step
		MpiDefault=none
		SchedulerType=sched/backfill
		SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1,bf_yield_interval=100000
		FirstJobId=$((port % 10000 + 1))
		ReturnToService=2
		KillWait=2
		UnkillableStepTimeout=60
		SlurmdTimeout=600
		InactiveLimit=0
		NodeName=n[1-$nodes] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=64 RealMemory=8000 Gres=gpu:4 State=UNKNOWN
		PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
	CONF
}

# Four GPUs that each node has, as far as Slurm is concerned: devices of a number
# without a driver (linux, Documentation/admin-guide/devices.txt: 60 char is for
# local use). Opening one fails with ENXIO, or EPERM where a cgroup forbids it.
# Drivers are put into host/ by the tests that play them.
make_gpus() {
	local i
	mkdir -p "$dir/host" "$dir/gpu"
	for i in 0 1 2 3; do
		mknod -m 0666 "$dir/gpu/card$i" c 60 "$i"
	done
	echo "Name=gpu File=$dir/gpu/card[0-3]" >"$dir/etc/gres.conf"
}

# Files that Slurm looks for next to slurm.conf.
write_flavour() {
	cat >"$dir/etc/cgroup.conf" <<-CONF
		CgroupMountpoint=/sys/fs/cgroup
		ConstrainCores=no
		ConstrainRAMSpace=yes
		ConstrainDevices=$([[ $proctrack == cgroup ]] && echo yes || echo no)
	CONF
	[[ $job_container == tmpfs ]] || return 0
	mkdir -m 0755 "$dir/job-container"
	cat >"$dir/etc/job_container.conf" <<-CONF
		AutoBasePath=true
		BasePath=$dir/job-container
	CONF
}

write_env() {
	cat >"$dir/etc/env.new" <<-ENV
		export BROLGA_CLUSTER_DIR='$dir'
		export BROLGA_CONFIG='$dir/etc/brolga.toml'
		export SLURM_CONF='$dir/etc/slurm.conf'
		export PATH="$dir/prefix/bin:\$PATH"
		export BROLGA_TEST_USER='$test_user'
		export BROLGA_TEST_NODES='$nodes'
		export BROLGA_TEST_REGISTRY='$registry'
		export BROLGA_TEST_PRIVATE_REGISTRY='$private_registry'
		export BROLGA_TEST_PRIVATE_LOGIN='$registry_user:$registry_password'
		export BROLGA_TEST_IMAGE='$registry/debian:12'
		export BROLGA_TEST_SMALL_IMAGE='$registry/distroless:latest'
		export BROLGA_TEST_PRIVATE_IMAGE='$private_registry/secret/distroless:latest'
	ENV
	mv "$dir/etc/env.new" "$dir/etc/env"
}
