#!/bin/sh
# Fetch free recordings of voices from Debian's mirrors into a folder: telephone prompts in five languages, games with
# spoken words in twenty-five, and music as a noise. Needs apt-get and dpkg-deb, no root. About 150 MB, nothing installed.
#
#   scripts/fetch_speech.sh FOLDER
#
# FOLDER/voices/<voice>/     telephone prompts, 16 kHz G.722: en_US_f_Allison (with texts.tsv), es_MX_f_Allison,
#                            fr_CA_f_June (CC BY-SA 3.0), it_IT_m_Carlo, ru_RU_f_IvrvoiceRU (CC BY 3.0)
# FOLDER/games/<game>/       ktuberling, klettres: Ogg, licences in FOLDER/licences (GPL and others)
# FOLDER/music/              music on hold, G.722, CC BY-SA 3.0
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
for tool in apt-get dpkg-deb; do
    command -v "$tool" > /dev/null || { echo "$0: $tool is needed (Debian or Ubuntu)" >&2; exit 2; }
done
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
prompts="en fr es it ru"
packages="asterisk-core-sounds-en asterisk-moh-opsound-g722 ktuberling-data klettres-data"
for language in $prompts; do packages="$packages asterisk-core-sounds-$language-g722"; done
# shellcheck disable=SC2086  # a list of words
apt-get download -q $packages
for package in *.deb; do dpkg-deb -x "$package" root; done
mkdir -p "$folder/voices" "$folder/games" "$folder/music" "$folder/licences"
cp -r root/usr/share/asterisk/sounds/*_* "$folder/voices/"
cp root/usr/share/asterisk/moh/*.g722 "$folder/music/"
cp -r root/usr/share/ktuberling/sounds "$folder/games/ktuberling"
cp -r root/usr/share/klettres "$folder/games/klettres"
for doc in root/usr/share/doc/*/copyright; do
    cp "$doc" "$folder/licences/$(basename "$(dirname "$doc")").txt"
done
# "name: what is said" becomes "name<tab>what is said", beside the recordings.
zcat root/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz |
    awk -F': ' '/^[a-zA-Z]/ { name = $1; sub(/^[^:]*: */, ""); print name "\t" $0 }' \
    > "$folder/voices/en_US_f_Allison/texts.tsv"
echo "$folder: $(find "$folder/voices" -name '*.g722' | wc -l) prompts, $(find "$folder/games" -name '*.ogg' | wc -l) words"
