# Where this machine gets its Debian packages from. Read in by ci/setup, ci/qemu and ci/xen.
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

# download SCRATCH SUITE PACKAGE...: the packages of a suite with all that they depend on, the C library too, into SCRATCH/archives. It is a state
# of apt's own, which believes that nothing is installed, and touches nothing of this machine's. Fails with a sentence where they are out of reach.
download() {
    local scratch=$1 suite=$2 suites=$2 from address entry
    shift 2
    from=$(sources | awk -F'|' '$2 == "Debian"' | head -n 1)
    [ -n "$from" ] || { echo "no package source of this machine serves Debian's main"; return 1; }
    IFS='|' read -r address _ _ entry <<<"$from"
    mkdir -p "$scratch"/{lists,archives}/partial "$scratch/preferences"
    : >"$scratch/status"
    # Backports need the suite that they stand on.
    [[ $suite != *-backports ]] || suites="${suite%-backports} $suite"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$address" "$suites"
        signed_by "$entry"
    } >"$scratch/debian.sources"
    local options=(-q -o "Dir::State=$scratch" -o "Dir::State::status=$scratch/status" -o "Dir::State::Lists=$scratch/lists"
        -o "Dir::Cache=$scratch" -o "Dir::Cache::Archives=$scratch/archives" -o "Dir::Etc::SourceList=$scratch/debian.sources"
        -o Dir::Etc::SourceParts=- -o "Dir::Etc::PreferencesParts=$scratch/preferences" -o APT::Sandbox::User=root
        -o APT::Install-Recommends=false -o Debug::NoLocking=true)
    if ! apt-get "${options[@]}" update >"$scratch/log" 2>&1 || grep -q '^E:' "$scratch/log"; then
        echo "$suite is not to be had here: $(grep -m 1 '^[EW]:' "$scratch/log" || echo 'apt-get update failed')"
        return 1
    fi
    apt-get "${options[@]}" -y --download-only -t "$suite" install "$@" >"$scratch/log" 2>&1 || {
        echo "$* of $suite does not come: $(grep -m 1 '^E:' "$scratch/log" || echo 'apt-get install failed')"
        return 1
    }
}
