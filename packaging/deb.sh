#!/usr/bin/env bash
# Builds the Debian package: packaging/deb.sh [FOLDER], default dist. It prints
# the name of the package. Needs Go, git, gzip and dpkg-deb. VERSION, GOARCH and
# SOURCE_DATE_EPOCH may be set; the same three give the same bytes.
set -euo pipefail
shopt -s nocaseglob nullglob
umask 022
cd "$(dirname "$0")/.."
out=${1:-dist}
# The clone may belong to another user, as in a container that builds it.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
arch=${GOARCH:-$(go env GOARCH)}
declare -A debian=([amd64]=amd64 [arm64]=arm64 [386]=i386 [arm]=armhf [riscv64]=riscv64 [ppc64le]=ppc64el [s390x]=s390x)
[[ -n ${debian[$arch]:-} ]] || { echo "deb.sh: no Debian name is known for GOARCH $arch" >&2; exit 1; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
if [[ -z ${VERSION:-} ]]; then
	VERSION=$(git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/~/') || true
	VERSION=${VERSION:-0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=12 HEAD)}
fi
[[ $VERSION =~ ^[0-9][A-Za-z0-9.+~]*$ ]] || { echo "deb.sh: $VERSION is no Debian version" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/peerchat
doc=$root/usr/share/doc/peerchat
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$root/usr/share/man/man1" "$doc"

# The program, for this machine to write the man pages and for the package.
CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -buildvcs=true -trimpath -ldflags '-s -w' -o "$root/usr/bin/peerchat" ./cmd/peerchat
writer=$root/usr/bin/peerchat
if [[ $arch != "$(go env GOHOSTARCH)" ]]; then
	writer=$work/host
	CGO_ENABLED=0 GOOS= GOARCH= go build -buildvcs=true -trimpath -o "$writer" ./cmd/peerchat
fi
HOME=/home/you XDG_DATA_HOME=/home/you/.local/share "$writer" man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*

for unit in packaging/systemd/*; do
	install -D -m 644 "$unit" "$root/usr/lib/systemd/user/$(basename "$unit")"
done
for board in packaging/grafana/*.json; do
	install -D -m 644 "$board" "$root/usr/share/peerchat/grafana/$(basename "$board")"
done

# Words: what it is, what has changed, and the licence of each module in it.
install -m 644 packaging/copyright "$doc/copyright"
gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
printf 'peerchat (%s) unstable; urgency=medium\n\n  * Built from commit %s; see changelog.gz.\n\n -- %s  %s\n' \
	"$VERSION" "$(git rev-parse HEAD)" "$(sed -n 's/^Maintainer: //p' packaging/control.in)" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
	gzip -9n >"$doc/changelog.Debian.gz"
GOOS=linux GOARCH=$arch go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/peerchat |
	sort -u | while read -r module version dir; do
	found=
	for file in "$dir"/*licen[cs]e* "$dir"/copying* "$dir"/notice* "$dir"/licenses/*; do
		[[ -f $file ]] || continue
		found=yes
		printf '==== %s %s: %s\n\n' "$module" "$version" "$(basename "$file")"
		cat "$file"
		printf '\n'
	done
	[[ -n $found ]] || { echo "deb.sh: $module $version has no licence file" >&2; exit 1; }
done >"$work/licenses"
{ printf '==== Go: LICENSE\n\n'; cat "$(go env GOROOT)/LICENSE"; printf '\n'; cat "$work/licenses"; } | gzip -9n >"$doc/licenses.gz"

size=$(du -k -s --apparent-size "$root/usr" | cut -f1)
sed -e "s/@VERSION@/$VERSION/; s/@ARCH@/${debian[$arch]}/; s/@SIZE@/$size/" packaging/control.in >"$root/DEBIAN/control"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
find "$root" -print0 | xargs -0 touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
mkdir -p "$out"
package=$out/peerchat_${VERSION}_${debian[$arch]}.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
