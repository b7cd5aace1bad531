# Where this machine gets its Debian packages from. Read in by ci/setup and ci/qemu.
# shellcheck shell=bash

# One line for each Packages file that apt would use: address | release | origin | codename | file:entry
sources() {
    # shellcheck disable=SC2016 # apt-get fills these in, not the shell
    apt-get indextargets --format '$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(CODENAME)|$(SOURCESENTRY)' 'Identifier: Packages' |
        awk -F'|' '$2 == "main" { print $1 "|" $3 "|" $4 "|" $5 }'
}

# signed_by FILE:ENTRY: the keyring that this entry names, if it does.
signed_by() {
    local file=${1%:*} entry=${1##*:}
    case $file in
        *.sources) grep -v '^#' "$file" | awk -v entry="$entry" 'BEGIN { RS = "" } NR == entry' |
            sed -n '/^Signed-By:/,/^[^ ]/{/^Signed-By:/p;/^ /p}' ;;
        *) sed -n "${entry}s/.*signed-by=\([^] ]*\).*/Signed-By: \1/p" "$file" ;;
    esac
}
