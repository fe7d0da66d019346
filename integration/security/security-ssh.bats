#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Only the containers of a step reach its SSH servers, and only as its user; nothing
# of it outlives the step. Strangers are played by "nobody", on the host.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/ssh

setup_file() { make_ssh_image; }

# A step with two nodes that waits until go_on.
running_step() {
	load_ssh_image
	in_background crun -N2 "$@" --container-image="$ssh_image" --container-ssh bash -c "$until_go"
	tasks_run 2
	retry 5 servers_are 2
	# shellcheck disable=SC2046 # one address for each
	set -- $(servers)
	server=$1
	address=$(address_of "$server")
	port=${address##*:}
}

step_ends() {
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

# stranger OPTION... COMMAND: OpenSSH's client on the host.
stranger() {
	timeout 20 runuser -u nobody -- ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p "$port" "$@"
}

@test "ssh: who has not the step's key does not get in, whatever his name" {
	running_step
	ssh-keygen -q -t ed25519 -N '' -f "$BATS_TEST_TMPDIR/key"
	chown -R nobody "$BATS_TEST_TMPDIR"
	chmod 755 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_RUN_TMPDIR"
	for user in "$BROLGA_TEST_USER" root nobody; do
		run_fails stranger "$user@127.0.0.1" true
		expect_match 'Permission denied \(publickey\)'
		run_fails stranger -o IdentitiesOnly=yes -i "$BATS_TEST_TMPDIR/key" "$user@127.0.0.1" true
		expect_match 'Permission denied \(publickey\)'
		run_fails stranger -o PreferredAuthentications=password,keyboard-interactive,hostbased,gssapi-with-mic "$user@127.0.0.1" true
		expect_match 'Permission denied \(publickey\)'
	done
	step_ends
}

@test "ssh: the key of a step opens the servers of no other, nor another account" {
	local first key=$BATS_TEST_TMPDIR/key
	running_step
	first=$server
	nsenter --target "$first" --mount cat /dev/brolga-ssh/id_ed25519 >"$key"
	chmod 600 "$key"
	run_ok ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i "$key" -p "$port" "$BROLGA_TEST_USER@127.0.0.1" id -u
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	run_fails ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i "$key" -p "$port" root@127.0.0.1 id -u
	expect_match 'Permission denied'
	step_ends
	as_user rm -f started go
	running_step
	[[ $server != "$first" ]]
	run_fails ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i "$key" -p "$port" "$BROLGA_TEST_USER@127.0.0.1" id -u
	expect_match 'Permission denied'
	step_ends
}

@test "ssh: a server with another key is refused" {
	load_ssh_image
	run_ok in_step -N2 --container-image="$ssh_image" '
		sed -i "s/^n1 /x /; s/^n2 /n1 /; s/^x /n2 /" /dev/brolga-ssh/known_hosts
		ssh n2 true; echo status $?'
	expect_match 'REMOTE HOST IDENTIFICATION HAS CHANGED'
	expect_match 'Host key verification failed'
	expect_line "status 255"
}

@test "ssh: nothing is forwarded, unless the site allows connections through the server" {
	load_ssh_image
	# shellcheck disable=SC2016 # for the shell of the task
	local text='
		eval "$(ssh-agent)" >/dev/null
		ssh -A n2 "echo agent \${SSH_AUTH_SOCK:-none}"
		DISPLAY=:9 XAUTHORITY=/dev/null ssh -X -o ForwardX11Timeout=0 n2 "echo display \${DISPLAY:-none}" 2>/dev/null
		ssh -o ExitOnForwardFailure=yes -R 127.0.0.1:0:127.0.0.1:22 n2 true; echo status $?
		ssh -W 127.0.0.1:$port n2 </dev/null | head -c 14; echo
		kill $SSH_AGENT_PID'
	text=${text//\$port/${BROLGA_TEST_REGISTRY##*:}}
	run_ok in_step -N2 --container-image="$ssh_image" "${text}"
	expect_line "agent none"
	expect_line "display none"
	expect_match 'remote port forwarding failed'
	expect_line "status 255"
	expect_match 'open failed: administratively prohibited: port forwarding is not allowed on this cluster'
	printf '[ssh]\nforwarding = true\n' >>"$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_ok in_step -N2 --container-image="$ssh_image" "
		printf 'GET /v2/ HTTP/1.0\r\n\r\n' | ssh -W $BROLGA_TEST_REGISTRY n2 | head -n1"
	expect_match '^HTTP/1.0 200 OK'
}

@test "ssh: strangers who keep connections keep nobody out" {
	local held=() i
	running_step
	for ((i = 0; i < 100; i++)); do
		exec {fd}<>"/dev/tcp/127.0.0.1/$port" || fail "connection $i"
		held+=("$fd")
	done
	as_user rm -f in
	run_ok nsenter --target "$server" --mount runuser -u "$BROLGA_TEST_USER" -- ssh localhost echo in
	expect_line in
	for fd in "${held[@]}"; do exec {fd}>&-; done
	step_ends
}

@test "ssh: server and sessions are the user's, without any privilege" {
	local field uid gid
	uid=$(id -u "$BROLGA_TEST_USER") gid=$(id -g "$BROLGA_TEST_USER")
	running_step
	[[ $(awk '$1 == "Uid:" || $1 == "Gid:" {print $2, $3, $4, $5}' "/proc/$server/status" | xargs) == "$uid $uid $uid $uid $gid $gid $gid $gid" ]]
	[[ $(awk '$1 == "Groups:" {$1 = ""; print $0}' "/proc/$server/status" | xargs -n1 | sort -n | xargs) == "$(id -G "$BROLGA_TEST_USER" | xargs -n1 | sort -n | xargs)" ]]
	for field in CapInh CapPrm CapEff CapBnd CapAmb; do grep -qE "^$field:[[:space:]]+0{16}$" "/proc/$server/status"; done
	grep -qE '^NoNewPrivs:[[:space:]]+1$' "/proc/$server/status"
	run_ok nsenter --target "$server" --mount runuser -u "$BROLGA_TEST_USER" -- ssh localhost 'grep -E "^(CapPrm|CapBnd|NoNewPrivs)" /proc/self/status; whoeuid'
	(($(grep -cE '^Cap(Prm|Bnd):.0{16}$' <<<"$output") == 2))
	expect_match '^NoNewPrivs:.1$'
	expect_line "uid=$(id -u "$BROLGA_TEST_USER") euid=$(id -u "$BROLGA_TEST_USER")"
	step_ends
}

@test "ssh: keys are the user's alone, and nowhere else" {
	local key
	running_step
	run_ok nsenter --target "$server" --mount stat -c '%a %U %n' /dev/brolga-ssh /dev/brolga-ssh/{id_ed25519,config,known_hosts,nodes.json}
	expect_line "700 $BROLGA_TEST_USER /dev/brolga-ssh"
	for file in id_ed25519 config known_hosts nodes.json; do expect_line "600 $BROLGA_TEST_USER /dev/brolga-ssh/$file"; done
	run_fails runuser -u nobody -- cat "/proc/$server/root/dev/brolga-ssh/id_ed25519"
	key=$(nsenter --target "$server" --mount sed -n 4p /dev/brolga-ssh/id_ed25519)
	((${#key} > 30))
	for file in /proc/[0-9]*/{environ,cmdline}; do
		! grep -qaE "$key|BROLGA_STEP_SECRET" "$file" 2>/dev/null || [[ $(readlink "${file%/*}/exe") == */srun ]] || fail "$file has the key, or the secret"
	done
	run grep -rsE "$key|BROLGA_STEP_SECRET=[0-9a-f]{64}" "$BROLGA_CLUSTER_DIR"/{log,run,store} "$user_home/.ssh"
	[[ -z $output ]] || fail "a file has the key, or the secret: $output"
	step_ends
	! grep -rqsF "$key" "$BROLGA_CLUSTER_DIR"/{log,run,spool,state} /dev/shm || fail "a file has the key"
}

@test "ssh: servers listen where the node is, and nowhere else" {
	running_step
	for pid in $(servers); do [[ $(address_of "$pid") =~ ^127\.0\.0\.1:2[0-9]{4}$ ]] || fail "$(address_of "$pid")"; done
	step_ends
}

@test "ssh: everything ends with the step, whoever is killed" {
	local victim
	for victim in scancel slurmstepd server task; do
		as_user rm -f started go
		running_step --time=2
		for pid in $(servers); do
			nsenter --target "$pid" --mount runuser -u "$BROLGA_TEST_USER" -- ssh localhost 'setsid sleep 787 >/dev/null 2>&1 </dev/null & sleep 788 >/dev/null 2>&1 </dev/null & true'
		done
		case $victim in
		scancel) as_user scancel --quiet --user "$BROLGA_TEST_USER" ;;
		slurmstepd)
			steps | xargs kill -KILL
			as_user scancel --quiet --user "$BROLGA_TEST_USER"
			;;
		server)
			servers | xargs kill -KILL
			go_on
			;;
		task) pkill -KILL -u "$BROLGA_TEST_USER" -x bash ;;
		esac
		background_ends 60 || fail "$victim"
		kill_orphans
		retry 15 no_servers || fail "after $victim a server is left"
		[[ $victim == server ]] || retry 10 none_sleep || fail "after $victim: $(pgrep -af 'sleep 78[78]')"
		# What a killed server has started, a user may have started without it, too.
		pkill -KILL -u "$BROLGA_TEST_USER" -f '^sleep 78[78]' || true
		expect_clean
	done
}

none_sleep() { ! pgrep -u "$BROLGA_TEST_USER" -f '^sleep 78[78]' >/dev/null; }
