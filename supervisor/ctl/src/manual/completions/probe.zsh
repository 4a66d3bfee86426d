# What zsh makes of lines when the completion key is pressed after them: `probe.zsh SCRIPT LINE…`.
# The completion system works only in an interactive shell, so there is one, on a terminal of its own.
emulate -L zsh
zmodload zsh/zpty || exit 77
script=$1
shift
zpty inner "TERM=dumb zsh -f -i"
zpty -w inner "PS1= PS2="
zpty -w inner "autoload -Uz compinit && compinit -D -u"
zpty -w inner "graphctl() { [[ \$* == names ]] && print -l web watcher db }"
zpty -w inner "source ${(q)script} && compdef _graphctl graphctl"
zpty -w inner "probe() { zle complete-word; print -r -- \"<\$BUFFER>\" }"
zpty -w inner "zle -N probe && bindkey '^I' probe && bindkey '^U' kill-whole-line && print ready-\$((1 + 1))"
zpty -r inner said '*ready-2*'
for line in "$@"; do
    zpty -w -n inner "$line"$'\t'
    zpty -r inner said $'*<*>*'
    print -r -- "${${said##*<}%%>*}"
    zpty -w -n inner $'\x15'
done
