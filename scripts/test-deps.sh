#!/usr/bin/env bash
# Installs what the tests need from Debian's packages: PostgreSQL (and pgbench), MariaDB, SoftHSM, FUSE for the power-cut tests, openssl. The
# packages' own services needn't run: the tests start servers of their own.
# Finds them already there and does nothing; needs root, or sudo without a password, to install.
set -euo pipefail

missing=()
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
{ command -v pgbench || ls /usr/lib/postgresql/*/bin/pgbench; } >/dev/null 2>&1 || missing+=(postgresql-contrib)
{ command -v mariadbd || ls /usr/sbin/mariadbd; } >/dev/null 2>&1 || missing+=(mariadb-server)
command -v fusermount3 >/dev/null 2>&1 || missing+=(fuse3)
command -v openssl >/dev/null 2>&1 || missing+=(openssl) # the oracle of what openssl enc writes
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
{ command -v softhsm2-util && ls /usr/lib/softhsm/libsofthsm2.so; } >/dev/null 2>&1 || missing+=(softhsm2)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "The tests need: ${missing[*]}. Install them with this system's package manager, then run make test again." >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || { echo "The tests need: ${missing[*]}. Run: sudo apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo -n)
fi
echo "installing for the tests: ${missing[*]}"
# Debian's postgresql package would start a cluster of its own; the tests never use it, so it need not exist.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
  "${as_root[@]}" mkdir -p /etc/postgresql-common
  echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
