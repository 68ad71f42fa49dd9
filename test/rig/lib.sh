# What ./check, ./demo and test/rig/* share. Sourced, never run.
# Nothing here writes to the checkout or to the machine's own PostgreSQL: the
# checkout is copied, and the server is a private copy that rowkeeper is
# installed into (PostgreSQL finds its files relative to its executable).

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian packages of the arguments that are not installed.
missing_packages() {
	local package
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			printf '%s ' "$package"
	done
}

# Install what is missing. PostgreSQL's package would create and start a
# database cluster of its own; nobody asked for one.
install_missing() {
	local missing log no_cluster=/etc/postgresql-common/createcluster.d/rowkeeper.conf
	missing=$(missing_packages "$@")
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
		die "these packages are missing and there is no sudo to install them: $missing"
	say "installing: $missing"
	log=$(mktemp)
	as_root mkdir -p "${no_cluster%/*}"
	echo 'create_main_cluster = false' | as_root tee "$no_cluster" >/dev/null
	# shellcheck disable=SC2086 # a list of package names
	if ! { as_root apt-get -q update && as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing; } >"$log" 2>&1 </dev/null
	then
		as_root rm -f "$no_cluster"
		tail -n 20 "$log" >&2
		die "apt could not install: $missing"
	fi
	as_root rm -f "$no_cluster" "$log"
}

# A copy of the checkout without its history and without what was built in it.
copy_checkout() {	# FROM TO
	mkdir -p "$2"
	tar -C "$1" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude='./rowkeeper--*.sql' --exclude=./results --exclude=./output_iso \
		--exclude=./tmp_check --exclude=./log --exclude='./regression.*' -cf - . | tar -C "$2" -xf -
}

# A private copy of Debian's PostgreSQL: prints the path of its pg_config.
copy_server() {	# VERSION TO
	local part
	mkdir -p "$2"
	for part in lib share include; do
		tar -C / --exclude="usr/lib/postgresql/$1/lib/bitcode" --exclude='*/man' \
			-cf - $(cd / && ls -d "usr/$part/postgresql/$1" 2>/dev/null) | tar -C "$2" --strip-components=1 -xf -
	done
	printf '%s\n' "$2/lib/postgresql/$1/bin/pg_config"
}
