# Shared code of the numbered stages: shell options, CONFIG, --help, and starting an entry point.
#
# A stage sources this file first, then declares each variable it uses in a line of its own,
#     : "${NAME=default}"           # meaning (paper: value); goes to Python as --name
#     : "${NAME=default}" --flag    # goes as --flag; if two lines have the same flag, the second overrides the first when it is set
#     : "${NAME=default}" no flag   # is used by the shell only
# and ends with one call of `run` (one process) or `launch` (NPROC processes); neither returns.
# These lines are the only list of variables: the flags passed to Python, both kinds of --help, the check of config files,
# docs/variables.md and docs/flags.md are made from them. `as in stage 3` stands for the meaning in stage 3's line.
#
# Later sources override earlier ones: default above < config file < environment < command-line flag. An empty value counts as a value.
# Relative paths are relative to the current folder. By default data/ and outputs/ are beside the stages, or in the current folder
# if the stages belong to an installed package (`teachback run`), whose folders are not for users' files.
set -euo pipefail
set +o posix   # POSIXLY_CORRECT in the environment sets it
unset CDPATH   # with it, cd can go to another folder, and prints its path

stage=$0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
beside=$root/
call="bash $beside$(basename "$stage")"
if [[ $PWD -ef $root ]]; then beside= call="bash $(basename "$stage")"; fi
if [[ ! -f $root/pyproject.toml ]]; then beside= call="teachback run $(basename "$stage" .sh)"; fi

fail() {  # message: print it as one line and stop with status 1
    local newline=$'\n'
    echo "$(basename "$stage"): ${1//$newline/ }" >&2
    exit 1
}

variable_lines() {  # script...: its declared variables as "NAME<tab>default<tab>meaning<tab>flag"
    local tab=$'\t'
    sed -nE 's/^: "\$\{([A-Z][A-Z0-9_]*):?=(\$\{beside\})?([^}]*)\}"( (--[a-z_]+|no flag))?[[:space:]]*(#[[:space:]]*(.*))?$/\1'"$tab\3$tab\7$tab\5/p" "$@"
}

variable_flags() {  # the flags that the stage's variables set, one per line: "--flag NAME", then the name of a variable that overrides it
    variable_lines "$stage" | LC_ALL=C awk -F '\t' '
        $4 == "" { $4 = "--" tolower($1) }
        $4 != "no flag" { if (!($4 in names)) flags[++count] = $4; names[$4] = names[$4] " " $1 }
        END { for (i = 1; i <= count; i++) print flags[i] names[flags[i]] }'
}

known_variables() {  # every variable that a config file may set
    variable_lines "$root"/[1-7]_*.sh "$root/scripts/common.sh" | cut -f 1 | grep -vx CONFIG | sort -u
}

explained_variables() {  # the stage's variables as "NAME=default<tab>meaning"
    local script
    for script in "$root"/[1-7]_*.sh "$stage" "$root/scripts/common.sh"; do
        printf '\t%s\n' "${script##*/}"
        variable_lines "$script"
    done | LC_ALL=C awk -F '\t' '
        $1 == "" { number = substr($2, 1, 1); scripts++; next }
        $3 ~ /^as in stage [1-7]$/ { $3 = meaning[substr($3, 13), $1] }
        { meaning[number, $1] = $3 }
        scripts > 7 { printf "%s=%s\t%s\n", $1, $2, $3 }'
}

entry_point() {  # the script that this stage starts
    sed -nE 's/^(run|launch) (scripts\/[a-z_]+\.py).*/\2/p' "$stage" | tail -n 1
}

print_help() {  # the script's comment and variables, read from the script itself
    local config="or in the config file CONFIG" example=
    if [[ $(basename "$stage") == [1-7]_* ]]; then
        example=" Example:\n  CONFIG=configs/amazon.sh SEED=1 $call --seed 2"
    else
        config="those of stages also in the config file CONFIG"
    fi
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$stage"
    printf '\nVariables with their defaults; set them in the environment, %s:\n' "$config"
    explained_variables | awk -F '\t' '{ printf "  %-62s %s\n", $1, $2 }'
    if [[ $(basename "$stage") == [1-7]_* ]]; then
        printf '\n--check checks the variables of this stage and of all later stages in seconds, and runs nothing.\n'
    fi
    printf '\nLater sources override earlier ones: default < config file < environment < flag.%b\n' "$example"
    printf 'Flags are passed to %s unchanged. To list all flags:\n' "$(entry_point)"
    if [[ -f $root/pyproject.toml ]]; then
        echo "  PYTHONPATH=${beside}src $(find_python) ${beside}$(entry_point) --help"
    else
        echo "  $(find_python) $root/$(entry_point) --help"
    fi
}

find_python() {
    if [[ -n ${PYTHON-} ]]; then
        echo "$PYTHON"
    elif [[ -x $root/.venv/bin/python ]]; then
        echo "${beside}.venv/bin/python"
    else
        echo python3
    fi
}

assigned_variables() {  # file: the names that lines of it start by assigning
    sed -nE 's/^[[:space:]]*((export|declare|readonly)[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)\+?=.*/\3/p' "$1"
}

closest_variable() {  # name: the most similar known variable, if any is similar
    # shellcheck disable=SC2046  # names hold no blanks
    "$(find_python)" -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1], sys.argv[2:], 1))' \
        "$1" $(known_variables) 2>/dev/null || true
}

refuse_unknown() {  # file name...: an unknown variable is an error, so that typos are noticed
    local file=$1 known name line hint
    known=$(known_variables)
    for name in "${@:2}"; do
        if grep -qx "$name" <<<"$known"; then continue; fi
        line=$(grep -nE "(^|[^A-Za-z0-9_])$name(\+|:)?=" "$file" | cut -d : -f 1 | tr "\n" " ")
        if variable_lines "$root"/scripts/*.sh | grep -q "^$name$(printf '\t')"; then
            fail "$file line ${line%% *}: $name is not a variable of a stage; set it in the environment"
        fi
        hint=$(closest_variable "$name")
        fail "$file line ${line%% *}: unknown variable $name${hint:+; did you mean $hint?}"
    done
}

words() {  # file: all words in it that could be names of variables
    grep -oE '[A-Za-z_][A-Za-z0-9_]*' "$1"
}

find_config() {  # the path of the config file, relative to the current folder or else to the project's
    if [[ -f $CONFIG ]]; then
        if [[ $CONFIG == */* ]]; then echo "$CONFIG"; else echo "./$CONFIG"; fi   # source would search PATH
    elif [[ -f $root/$CONFIG ]]; then
        echo "$root/$CONFIG"
    else
        fail "CONFIG=$CONFIG: there is no such file; available: $(cd "$root" && echo configs/*.sh)"
    fi
}

remember_environment() {  # keep the variables given in the environment, as a config file must not change them
    local name
    for name in $(known_variables); do
        if [[ -n ${!name+given} ]]; then printf -v "given_$name" '%s' "${!name}"; fi
    done
}

restore_environment() {
    local name kept
    for name in $(known_variables); do
        kept=given_$name
        if [[ -n ${!kept+given} ]]; then printf -v "$name" '%s' "${!kept}"; fi
    done
}

single_domain_is_target() {  # DOMAINS=WiC in the environment also sets DOMAIN=WiC, whatever DOMAIN the config file sets
    local names=()
    # shellcheck disable=SC2154  # given_* are set by remember_environment
    if [[ -z ${given_DOMAINS-} || -n ${given_DOMAIN+given} ]]; then return; fi
    IFS=$', \t\n' read -r -a names <<<"$DOMAINS"
    if [[ ${#names[@]} -eq 1 && -n ${DOMAIN-} && $DOMAIN != "${names[0]}" ]]; then
        if [[ $DOMAIN != all ]]; then
            echo "DOMAIN=${names[0]}, the only domain of DOMAINS, overrides DOMAIN=$DOMAIN from $config" >&2
        fi
        DOMAIN=${names[0]}
        unset TEACHBACK_DOMAIN_FROM
    fi
}

stage_value() {  # general own: the value of the general variable (EPOCHS) if set, else of the stage's own (FIRST_EPOCHS)
    local general=$1 own=$2 general_given=given_$1 own_given=given_$2
    if [[ -z ${!general-} || ( -n ${!own_given+given} && -z ${!general_given+given} ) ]]; then
        echo "${!own}"
    else
        echo "${!general}"
    fi
}

# Exits with 61 and prints the version if Python is too old; with 62 and prints the names if packages are missing. Valid in every Python.
python_check='
import sys
if sys.version_info < (3, 11):
    sys.stdout.write("%d.%d" % sys.version_info[:2])
    sys.exit(61)
from importlib.util import find_spec
needed = "torch transformers accelerate tokenizers safetensors numpy scipy sklearn matplotlib pooch jinja2 filelock".split()
missing = [name for name in needed if not find_spec(name)]
sys.stdout.write(", ".join(missing))
sys.exit(62 if missing else 0)
'

check_python() {  # python: stop with a message on how to get a usable Python, instead of a traceback later
    local found status=0 which=$1 advice="run 'bash scripts/environment.sh', or set PYTHON"
    if [[ -z $PYTHON && -L $root/.venv/bin/python && ! -x $root/.venv/bin/python ]]; then
        fail "${beside}.venv: the Python that it was created with no longer exists; run 'bash scripts/environment.sh' to recreate it"
    fi
    command -v "$1" >/dev/null || fail "PYTHON=$1: there is no such command"
    found=$("$1" -c "$python_check" 2>/dev/null) || status=$?
    if [[ -z $PYTHON && $1 == python3 ]]; then which="there is no .venv, and python3"; fi
    case $status in
        61) fail "$which is Python $found, but 3.11 or newer is needed; $advice" ;;
        62) fail "$which lacks the packages $found; $advice" ;;
        [!0]*) fail "$which does not start, perhaps because its Python was removed; $advice" ;;
    esac
}

hidden() {  # value: without the parts of a URL that may be secret
    sed -e 's|://[^/@ ]*@|://...@|g' -e 's|\(://[^ ?]*\)?.*|\1...|' <<<"$1"
}

remember_given() {  # list the stage's variables given in the environment, with their values, for `start` to print
    local name
    for name in $(variable_lines "$stage" "$root/scripts/common.sh" | cut -f 1); do
        if [[ -n ${!name+given} ]]; then given_here="$given_here $name=$(printf %q "$(hidden "${!name}")")"; fi
    done
}

start() {  # argument of Python...: replace the shell by Python
    local python
    if [[ -n ${TEACHBACK_ARGUMENTS-} ]]; then   # scripts/check.py and in_turn.py ask what would be run
        if [[ -n $given_here ]]; then echo "$(basename "$stage"): from the environment:$given_here" >&2; fi
        # shellcheck disable=SC2086
        printf '%s\0' TEACHBACK_DOMAIN_FROM="${TEACHBACK_DOMAIN_FROM-}" $torchrun "$@"
        exit
    fi
    export TEACHBACK_STAGE
    TEACHBACK_STAGE=$(basename "$stage")
    python=$(find_python)
    check_python "$python"
    if [[ -n $given_here ]]; then echo "$(basename "$stage"): from the environment:$given_here" >&2; fi
    export PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH}
    # shellcheck disable=SC2086  # torchrun holds no word or several
    exec "$python" $torchrun "$@"
}

run() {  # scripts/entry_point.py flag...: replace the shell by that entry point, with the flags of the stage's variables, then those given
    local flag own general value flags=()
    while read -r flag own general; do
        if [[ -n $general ]]; then value=$(stage_value "$general" "$own"); else value=${!own}; fi
        if [[ $value == -* ]]; then flags+=("$flag=$value"); else flags+=("$flag" "$value"); fi   # else argparse would take -x for a flag
    done <<<"$(variable_flags)"
    start "$root/$1" "${flags[@]}" "${@:2}"
}

launch() {  # like run, on NPROC processes; torchrun's own variables (PET_NNODES, PET_RDZV_ENDPOINT ...) add machines
    [[ $NPROC =~ ^[1-9][0-9]*$ ]] || fail "NPROC=$NPROC: expected a number of processes, 1 or more"
    if [[ -n ${PET_NNODES-} ]]; then
        torchrun="-m torch.distributed.run --nproc_per_node $NPROC"
    elif [[ $NPROC -gt 1 ]]; then
        torchrun="-m torch.distributed.run --standalone --nproc_per_node $NPROC"
    fi
    run "$@"
}

given_here= torchrun=
remember_given

check_only=
for argument in "$@"; do
    case $argument in
        -h | --help) print_help; exit 0 ;;
        --check) check_only=1 ;;
    esac
done

: "${CONFIG=}" no flag                # file of variables for an experiment, e.g. configs/amazon.sh
if [[ -n $CONFIG ]]; then
    config=$(find_config)
    # shellcheck disable=SC2046  # names hold no blanks
    refuse_unknown "$config" $(assigned_variables "$config")
    remember_environment
    variables_before=
    variables_before=$(compgen -v)
    # shellcheck source=/dev/null
    source "$config"
    # shellcheck disable=SC2046
    refuse_unknown "$config" $(compgen -v | grep -vxF "$variables_before" | grep -xF "$(words "$config")")
    if [[ -n ${DOMAIN-} && -z ${given_DOMAIN+given} ]]; then export TEACHBACK_DOMAIN_FROM=" (from $config)"; fi
    restore_environment
    single_domain_is_target
fi
: "${PYTHON=}" no flag                # Python to run with; empty: that of .venv where there is one, else python3

if [[ -n $check_only && -z ${TEACHBACK_ARGUMENTS-} ]]; then start "$root/scripts/check.py" "$(basename "$stage")" "$@"; fi
