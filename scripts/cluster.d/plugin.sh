# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Brolga itself, installed as on a site: root's files in a prefix of their own,
# loaded through plugstack.conf, configured by one TOML file.
# Sourced by scripts/cluster.

module=github.com/brolga-hpc/brolga

# Drivers of GPUs are looked for in a directory of the cluster's, not on this
# machine.
install_plugin() {
	[[ -e $dir/etc/plugstack.conf ]] || : >"$dir/etc/plugstack.conf"
	[[ $plugin == auto ]] || return 0
	if ! plugin_sources_exist; then
		say "this tree has no plugin yet: plain Slurm only"
		return 0
	fi
	# Objects that hold this prefix do not belong into the developer's build/.
	make -C "$repo" --no-print-directory install PREFIX="$dir/prefix" \
		RUNDIR="$dir/run" BUILD="$dir/build" GOLDFLAGS="-X $module/hooks/device.hostRoot=$dir/host" >"$dir/log/install.log" 2>&1 || return
	printf 'required %s config=%s\n' "$dir/prefix/lib/slurm/spank_brolga.so" \
		"$dir/etc/brolga.toml" >"$dir/etc/plugstack.conf"
}

plugin_sources_exist() {
	local part
	for part in go.mod spank/plugin.c cmd/brolga/main.go cmd/brolga-helper/main.go cmd/libbrolga; do
		[[ -e $repo/$part ]] || return 1
	done
}

write_site_config() {
	install -d -o brolga -g brolga -m 0711 "$dir/store"
	cat >"$dir/etc/brolga.toml" <<-TOML
		store = "$dir/store"
		run_dir = "$dir/run"
		hooks.directories = ["$dir/etc/hooks.d"]
		named.directory = "$dir/named"
	TOML
}
