#!/usr/bin/env bash
# Makes the data of a release for TestUpgrade: make.sh KEYTURN NAME [postgres://…]
# KEYTURN is the release's binary, NAME the folder here that the data goes to. With a database's address the store lies
# there, and its dump beside the data directory. It is run once a release; what it made is never made again.
set -euo pipefail
kt=$1 out=$(cd "$(dirname "$0")" && pwd)/$2 url=${3:-}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export KEYTURN_DIR=$work/kt KEYTURN_DATASET_APP=sqlite://$work/app.db
python3 - "$work/app.db" <<'P'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE patients (id INTEGER PRIMARY KEY, ssn TEXT NOT NULL)")
db.executemany("INSERT INTO patients VALUES (?, ?)", [(i, "900-00-%04d" % i) for i in range(1, 21)])
db.commit()
P
"$kt" init ${url:+--store "$url"} >/dev/null
seal() { printf '%s\t%s\t%s\n' "$1" "$2" "$(printf %s "$2" | "$kt" encrypt "$1" --context "n=$2")" >>"$work/sealed.tsv"; }
for key in rotated disabled compromised suspended scheduled rows; do "$kt" key create $key >/dev/null; seal $key first; done
for key in rotated compromised scheduled; do "$kt" key rotate $key >/dev/null; seal $key second; done
"$kt" key rotate rotated --reason "a reason" >/dev/null && seal rotated third
"$kt" key disable disabled --version 1 >/dev/null
"$kt" key compromise compromised --version 1 --reason "laptop stolen" >/dev/null
"$kt" key suspend suspended >/dev/null
"$kt" key destroy scheduled --version 1 --yes >/dev/null
"$kt" principal create app --role application --scope 'key/*' --json >"$work/principal.json"
"$kt" dataset add patients --db-env KEYTURN_DATASET_APP --table patients --pk id --column ssn=rows >/dev/null
"$kt" dataset encrypt patients >/dev/null
"$kt" key rotate rows >/dev/null
"$kt" dataset reencrypt patients >/dev/null
"$kt" key rotate rows >/dev/null
"$kt" audit checkpoint >/dev/null
for key in rotated disabled compromised suspended scheduled rows; do "$kt" key show $key --json; done >"$work/keys.json"
"$kt" audit verify --json >"$work/audit.json"
find "$KEYTURN_DIR" -name '*.sock' -o -name '*-wal' -o -name '*-shm' | xargs -r rm -f
sed -i "s|$work|@DIR@|g" "$KEYTURN_DIR/keyturn.yaml"
[ -z "$url" ] || sed -i "s|$url|@STORE@|g" "$KEYTURN_DIR/keyturn.yaml"
[ -z "$url" ] || pg_dump --inserts --no-owner --no-privileges "$url" | grep -v "^\(SET \|SELECT pg_catalog.set_config\|-- \|--$\|.restrict\|.unrestrict\)" >"$work/store.sql"
tar -C "$work" --owner=0 --group=0 --numeric-owner -czf "$out/$([ -n "$url" ] && echo postgres || echo sqlite).tar.gz" .
