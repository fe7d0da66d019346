# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The user who runs a cluster's test jobs, who has a home of its own, and what
# the clusters of a machine share: the owner of the image stores and groups.
# They go with the last cluster, and only if a cluster made them.
# Sourced by scripts/cluster.

make_users() {
	locked make_shared_users
	locked make_test_user
	chmod 0700 "$(home_of "$test_user")"
}

make_shared_users() {
	local group made=$registry_of_clusters/made
	# As udev has it, for users who mount without root.
	[[ ! -c /dev/fuse ]] || chmod 0666 /dev/fuse
	mkdir -p "$registry_of_clusters"
	printf '%s\n' "$dir" >"$registry_of_clusters/$(cluster_id).dir"
	for group in brolgagrp{1,2,3}; do
		getent group "$group" >/dev/null && continue
		groupadd "$group"
		printf 'group %s\n' "$group" >>"$made"
	done
	if ! getent passwd brolga >/dev/null; then
		useradd --system --user-group --no-create-home --home-dir /nonexistent \
			--shell /usr/sbin/nologin brolga
		printf 'user brolga\n' >>"$made"
	fi
}

make_test_user() {
	! getent passwd "$test_user" >/dev/null || return 0
	useradd --user-group --create-home --shell /bin/bash \
		--groups brolgagrp1,brolgagrp2,brolgagrp3 "$test_user"
}

# locked COMMAND...: clusters that start or end at the same time take turns.
locked() {
	(
		flock 9
		"$@"
	) 9<"${registry_of_clusters%/*}"
}

home_of() { getent passwd "$1" | cut -d: -f6; }

cluster_id() { printf '%s' "$dir" | sha256sum | cut -c1-16; }

name_of_test_user() { printf 'brolga-%s' "$(cluster_id | cut -c1-8)"; }

remove_users() {
	locked remove_test_user
	locked remove_shared_users
}

remove_test_user() {
	! getent passwd "$test_user" >/dev/null || userdel --remove "$test_user" 2>/dev/null ||
		say "user $test_user stays"
}

remove_shared_users() {
	local kind name
	rm -f "$registry_of_clusters/$(cluster_id)".{dir,ports}
	! compgen -G "$registry_of_clusters/*.dir" >/dev/null || return 0
	[[ -f $registry_of_clusters/made ]] || return 0
	while read -r kind name; do
		case $kind in
		user) userdel --remove "$name" 2>/dev/null || say "user $name stays" ;;
		group) groupdel "$name" 2>/dev/null || say "group $name stays" ;;
		esac
	done < <(tac "$registry_of_clusters/made")
	rm -rf "$registry_of_clusters"
}
