#!/bin/sh
# Unpacks Debian's CPython and moves it below /usr/local: no python3 package is registered, and pip may install.
set -eux
version=3.13
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
apt-get update
# What its extension modules link to.
apt-get install --yes ca-certificates media-types netbase tzdata libbz2-1.0 libexpat1 libffi8 liblzma5 libncursesw6 \
    libreadline8t64 libsqlite3-0 libssl3t64 libuuid1 zlib1g
cd "$(mktemp -d)"
apt-get -o APT::Sandbox::User=root download "python$version-minimal" "libpython$version-minimal" \
    "libpython$version-stdlib" "libpython$version-dev" "python$version-venv" python3-pip-whl
for package in *.deb; do
    dpkg --extract "$package" root
done
library=/usr/local/lib/python$version
cp root/usr/bin/python$version /usr/local/bin/
cp -a root/usr/lib/python$version /usr/local/lib/
cp -a root/usr/include/python$version /usr/local/include/
cp root/usr/include/*/python$version/pyconfig.h "/usr/local/include/python$version/"
cp -a root/usr/share/python-wheels /usr/share/
rm -rf "$PWD" "$library/EXTERNALLY-MANAGED" "$library/sitecustomize.py" "$library"/config-$version-*
# Debian's site module, frozen into the program, looks for dist-packages.
mkdir "$library/site-packages"
ln -s site-packages "$library/dist-packages"
sed -i "s/prefix_scheme = 'posix_local'/prefix_scheme = 'posix_prefix'/" "$library/sysconfig/__init__.py"
# ensurepip is disabled in Debian by one call.
sed -i 's/^    _ensurepip_is_disabled_in_debian_for_system()$/    pass/' "$library/ensurepip/__init__.py"
cd /usr/local/bin
ln -s python$version python3
ln -s python3 python
python -m ensurepip --default-pip
# The official image carries no byte-compiled files either.
find "$library" -name __pycache__ -prune -exec rm -rf {} +
pip --version
