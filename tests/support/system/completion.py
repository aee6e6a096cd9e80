"""What the shells of a host complete after ``ai-ticketctl``, with the files that were installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.system.container import Container

COMPLETE = """\
source {file}
[[ $(complete -p ai-ticketctl) =~ -F\\ ([^ ]+) ]] || exit 1
COMP_WORDS=(ai-ticketctl {begun}) COMP_CWORD=1
"${{BASH_REMATCH[1]}}" ai-ticketctl {begun} ai-ticketctl
echo "${{COMPREPLY[@]}}"
"""


def completes(box: Container, bash_file: str, begun: str) -> list[str]:
    """Return the words that bash offers for one that is begun, with what this file defines."""
    return box.run("bash", "-c", COMPLETE.format(file=bash_file, begun=begun)).stdout.split()


def serves_zsh(box: Container, zsh_file: str) -> bool:
    """Tell whether zsh would take the file: it goes by the first line alone."""
    first = box.run("head", "--lines=1", zsh_file).stdout.split()
    return first == ["#compdef", "ai-ticketctl"] and "backup" in box.run("cat", zsh_file).stdout
