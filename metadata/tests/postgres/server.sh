# A PostgreSQL server for one run of the tests: says where its socket is, and ends, with everything it wrote, when
# its standard input does, also if the tests are killed.
set -eu

bin=${TIDINGS_POSTGRES_BIN:-}
if [ -z "$bin" ] && command -v postgres >/dev/null; then
    bin=$(dirname "$(readlink -f "$(command -v postgres)")")
fi
for folder in /usr/lib/postgresql/*/bin; do
    if [ -z "$bin" ] && [ -x "$folder/postgres" ]; then bin=$folder; fi
done
if [ ! -x "$bin/postgres" ]; then
    echo "no PostgreSQL server found: install one, or name its folder in TIDINGS_POSTGRES_BIN" >&2
    exit 1
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/tidings-metadata-XXXXXX")
trap 'rm -rf "$dir"' EXIT
cd "$dir"
as=
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses to run as root.
    chown nobody "$dir"
    as='setpriv --reuid=nobody --regid=nogroup --clear-groups'
fi
$as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-sync >"$dir/initdb.log" 2>&1 || {
    cat "$dir/initdb.log" >&2
    exit 1
}
$as "$bin/postgres" -D "$dir/data" -k "$dir" -h '' -F -N 300 >"$dir/log" 2>&1 &
server=$!
trap 'kill -QUIT "$server" && wait "$server"; rm -rf "$dir"' EXIT
until "$bin/pg_isready" -q -h "$dir" -U postgres; do
    kill -0 "$server" || { cat "$dir/log" >&2; exit 1; }
    sleep 0.05
done
echo "$dir"
cat >/dev/null
