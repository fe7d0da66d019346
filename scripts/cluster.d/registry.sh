# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Two registries on the loopback interface: an open one whose access log tests
# count, and one that wants a password. They share nothing.
# Sourced by scripts/cluster.

registry_user=alice
registry_password=wonderland

start_registries() {
	local port
	port=$(first_free_port 2)
	registry=127.0.0.1:$port
	private_registry=127.0.0.1:$((port + 1))
	start_registry registry "$registry" ""
	htpasswd -Bbn "$registry_user" "$registry_password" >"$dir/etc/htpasswd"
	start_registry private-registry "$private_registry" \
		"auth: {htpasswd: {realm: brolga-test, path: $dir/etc/htpasswd}}"
}

# start_registry NAME HOST:PORT EXTRA. The access log, one line per request, is
# what the daemon prints to stdout; everything else goes to stderr.
start_registry() {
	cat >"$dir/etc/$1.yml" <<-YAML
		version: 0.1
		log: {level: warn, accesslog: {disabled: false}}
		storage:
		  filesystem: {rootdirectory: $dir/$1}
		  delete: {enabled: true}
		http: {addr: $2}
		$3
	YAML
	mkdir -m 0700 "$dir/$1"
	start "$1" docker-registry serve "$dir/etc/$1.yml"
	wait_for 10 "$1" curl -s -o /dev/null "http://$2/v2/"
}
