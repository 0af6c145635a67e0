#!/usr/bin/env bash
# Checks a Debian package: what it declares, what it holds, and that it installs
# into an empty root, runs there, and leaves nothing behind. Needs dpkg and, for
# an install as another user than root, fakeroot.
set -euo pipefail
package=$(realpath -e "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
fail() { echo "check_deb.sh: $*" >&2; bad=1; }

# What it declares.
for field in Package Version Architecture Maintainer Installed-Size Section Priority Description; do
	[[ -n $(dpkg-deb --field "$package" "$field") ]] || fail "no field $field"
done
[[ $(basename "$package") == "$(dpkg-deb -W --showformat '${Package}_${Version}_${Architecture}.deb' "$package")" ]] || fail "its name is not that of its fields"
dpkg --validate-version "$(dpkg-deb --field "$package" Version)" || fail "the version is not valid"
[[ $(dpkg-deb --field "$package" Maintainer) =~ ^[^\<]+\ \<[^@\ ]+@[^\>\ ]+\>$ ]] || fail "the maintainer has no address"
dpkg-deb --field "$package" Description | awk 'length > 80 { exit 1 } NR == 1 && /^(a|an|the) / { exit 1 }' || fail "the description is too wide, or begins with an article"

# What it holds.
dpkg-deb --contents "$package" >"$work/contents"
while read -r mode owner _ _ _ name rest; do
	[[ $owner == root/root ]] || fail "$name belongs to $owner"
	case $mode in
	drwxr-xr-x | -rw-r--r--) ;;
	-rwxr-xr-x) [[ $name == ./usr/bin/* ]] || fail "$name is executable" ;;
	*) fail "$name has mode $mode" ;;
	esac
	case $name in
	./ | ./usr/ | ./usr/bin/ | ./usr/bin/peerchat | ./usr/lib/ | ./usr/lib/systemd/* | ./usr/share/ | ./usr/share/doc/ | ./usr/share/doc/peerchat/* | ./usr/share/man/ | ./usr/share/man/man1/ | ./usr/share/man/man1/peerchat*.1.gz | ./usr/share/peerchat/*) ;;
	*) fail "$name is in a place that is not its own" ;;
	esac
done <"$work/contents"
dpkg-deb --raw-extract "$package" "$work/raw"
for file in usr/bin/peerchat usr/share/doc/peerchat/{copyright,changelog.gz,changelog.Debian.gz,licenses.gz} usr/share/man/man1/peerchat.1.gz; do
	[[ -s $work/raw/$file ]] || fail "no $file"
done
(cd "$work/raw" && md5sum --quiet -c DEBIAN/md5sums) || fail "md5sums do not fit"
[[ $(cd "$work/raw" && find usr -type f | wc -l) == $(wc -l <"$work/raw/DEBIAN/md5sums") ]] || fail "md5sums do not name every file"
find "$work/raw/usr" -name '*.gz' -print0 | xargs -0 gzip -t || fail "a compressed file is damaged"
for page in "$work"/raw/usr/share/man/man1/*.gz; do
	case $(gzip -dc "$page" | head -c 400) in *.TH*) ;; *) fail "$(basename "$page") is no man page" ;; esac
	! gzip -dc "$page" | grep -q "$HOME\|$work" || fail "$(basename "$page") names a folder of this machine"
done
if command -v ldd >/dev/null && ldd "$work/raw/usr/bin/peerchat" >/dev/null 2>&1; then
	fail "the program needs shared libraries, which the package does not name"
fi
for unit in "$work"/raw/usr/lib/systemd/user/*.service; do
	[[ -e $unit ]] || continue
	program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
	[[ -x $work/raw/$program ]] || fail "$(basename "$unit") starts $program, which the package does not hold"
done

# Installed into a root of its own, run there, and removed.
if [[ $(dpkg-deb --field "$package" Architecture) == "$(dpkg --print-architecture)" ]]; then
	root=$work/root
	mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers}
	touch "$root"/var/lib/dpkg/{status,available}
	as=()
	[[ $(id -u) == 0 ]] || as=(fakeroot)
	dpkg_in_root() { PATH="$PATH:/usr/sbin:/sbin" "${as[@]}" dpkg --root="$root" --log=/dev/null --force-not-root "$@" >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; fail "dpkg $*"; }; }
	dpkg_in_root --install "$package"
	version=$("$root/usr/bin/peerchat" --version) || fail "--version fails"
	[[ $version == "peerchat version "* ]] || fail "--version prints $version"
	"$root/usr/bin/peerchat" --help >/dev/null || fail "--help fails"
	dpkg_in_root --purge peerchat
	left=$(cd "$root" && find . -path ./var -prune -o ! -type d -print)
	[[ -z $left ]] || fail "left behind: $left"
	echo "$version"
fi
((bad == 0)) || exit 1
echo "$(basename "$package"): $(du -h "$package" | cut -f1), $(wc -l <"$work/contents") entries, all checks passed"
