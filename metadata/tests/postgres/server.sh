# A PostgreSQL server for one run of the tests, from the programs in the folder $1: says where its socket is, and
# ends, with everything it wrote, when its standard input does, also if the tests are killed.
set -eu

bin=$1
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
